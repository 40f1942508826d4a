//! The two kinds that users write: [`Machine`], a host reached by SSH, and [`NixosConfiguration`], what it is to run.
//!
//! Group, names, fields and columns are those of the upstream operator, so that its objects go on working; what is
//! ours is added beside them. The same objects stand in a cluster and in an inventory file. [`definitions`] makes the
//! CustomResourceDefinitions of them, [`check`] says in words what a schema cannot.

pub mod check;
mod condition;
mod configuration;
mod definition;
mod fields;
mod machine;
mod span;

pub use condition::Condition;
pub use configuration::{
    AdditionalFile, BuildOn, DeletionPolicy, Delivery, Deployment, DeploymentResult, Drift, DriftPolicy, FileSource,
    HealthCheck, HttpCheck, NixosConfiguration, NixosConfigurationSpec, NixosConfigurationStatus, Quarantine, Retry,
    TcpCheck,
};
pub use definition::{SIZE_LIMIT, definitions, to_yaml};
pub use fields::{CheckFrom, FileSecretRef, HostKeyPolicy, KeySecretRef, NameRef, PasswordSecretRef};
pub use machine::{
    Cpu, Disk, Hardware, HostKeySource, Interface, JumpHost, Machine, MachineSpec, MachineStatus, SeenHostKey,
};
pub use span::{InvalidSpan, Span};

/// API group of both kinds; fixed by the upstream operator.
pub const GROUP: &str = "nio.homystack.com";
/// The only version there is.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of both kinds.
pub const API_VERSION: &str = "nio.homystack.com/v1alpha1";
/// Our finalizer on both kinds.
pub const FINALIZER: &str = "nio.homystack.com/finalizer";
/// Annotation on an object: a changed value asks for a reconciliation now, and lifts a quarantine.
pub const REQUESTED_AT: &str = "nio.homystack.com/requestedAt";
/// Annotation on a Machine: the pinned host key, so that it survives a restore which drops the status.
pub const PINNED_HOST_KEY: &str = "nio.homystack.com/host-key";
/// Annotation on a Secret: namespaces, separated by commas, whose objects may use it.
pub const ALLOWED_NAMESPACES: &str = "nio.homystack.com/allowed-namespaces";

/// Key of an SSH private key in a Secret.
pub const SSH_PRIVATE_KEY: &str = "ssh-privatekey";
/// Key of the passphrase of that private key, in the same Secret.
pub const SSH_PASSPHRASE: &str = "ssh-passphrase";
/// Key of a login password in a Secret unless the reference names another.
pub const PASSWORD: &str = "password";
/// Key of a token for a Git server in a Secret.
pub const TOKEN: &str = "token";
