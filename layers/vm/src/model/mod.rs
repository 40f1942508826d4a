//! What the layer speaks of. Pure: no I/O.

mod asset;
mod id;
mod record;
mod spec;
mod state;

pub use asset::{Asset, AssetKind, AssetName};
pub use id::{CustomerId, InvalidName, Slot, VmId};
pub use record::{Backend, Event, Failure, Mapping, Operation, Options, Phase, Vm};
pub use spec::{
    Boot, Console, Cpu, Egress, Ipv4, Ipv6, Memory, NetworkInterface, Port, Protocol, RateLimit, RestartPolicy,
    SpecError, Storage, VmSpec,
};
pub(crate) use spec::{PRIVATE_IPV4, PRIVATE_IPV6, private_networks};
pub use state::State;
