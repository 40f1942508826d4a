//! An OCI registry and a client for one: storage on disk, the `/v2/` routes, pull and push.
//! Stand-alone: who may do what and what is counted are hooks that the caller hands in.
//!
//! - [`storage`]: blobs, manifests, tags and upload sessions on disk; each commit point is one atomic rename.
//! - [`server`]: [`server::Registry`] (also for callers in the same process) and [`server::router`].
//! - [`client`]: resolve, verified and resumed pulls, resumed pushes.
//! - [`mod@reference`]: `host:port/repo/name:tag@digest`. [`artifact`]: the manifest of an OS image.
//!
//! Contract: OCI distribution-spec 1.1 and image-spec 1.1. Garbage collection, referrers, catalog, sha512 and
//! deleting blobs are not here.

pub mod artifact;
pub mod client;
mod descriptor;
mod digest;
mod name;
pub mod reference;
pub mod server;
pub mod storage;

pub use descriptor::{Descriptor, Index, Manifest, media_type};
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use name::{InvalidName, InvalidSelector, InvalidTag, RepositoryName, Selector, Tag};
pub use reference::{InvalidReference, Reference};
