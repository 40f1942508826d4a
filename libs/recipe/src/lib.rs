//! What controller and maintenance system share about a job: the recipe with its schema, checks and partition
//! plan, what the maintenance system needs to report back (`callback.json`) and how it gets on the network
//! (`network.json`). Pure: no I/O, no clock, no async runtime.

pub mod callback;
pub mod network;
pub mod partition_type;

mod disk;
mod lint;
mod model;
mod parse;
mod plan;
mod reference;
mod roles;
mod schema;
mod size;
mod target;

pub use disk::{Disk, DiskHints, SelectError, TargetDisk};
pub use lint::{Lint, lints};
pub use model::{Format, Partition, Payload, RESERVED_ENV, Recipe, is_reserved_env};
pub use parse::{KS_CFG_LIMIT, USER_DATA_LIMIT, parse};
pub use plan::{ALIGNMENT, Placement, PlanError, plan};
pub use reference::{OciReference, ReferenceError};
pub use roles::{Roles, roles};
pub use schema::{SCHEMA, SCHEMA_ID, SchemaError, Violation, schema_id, validate_against};
pub use size::{Size, SizeError};
pub use target::TaskTarget;
