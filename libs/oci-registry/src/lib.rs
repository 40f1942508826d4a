//! An OCI registry and a client for one: storage on disk, the `/v2/` routes, pull and push.
//! Stand-alone: who may do what and what is counted are hooks that the caller hands in.
//!
//! - [`storage`]: blobs, manifests, tags, referrers and upload sessions on disk; each commit point is one atomic
//!   rename, and every record is a lease that a collector of garbage respects.
//! - [`server`]: [`server::Registry`] (also for callers in the same process), [`server::Options`] with its limits and
//!   hooks, and [`server::router`].
//! - [`cache`]: repositories that are a cache of another registry's.
//! - [`client`]: resolve, verified and resumed pulls, resumed pushes.
//! - [`mod@reference`]: `host:port/repo/name:tag@digest`. [`artifact`]: the manifest of an OS image.
//!
//! Contract: OCI distribution-spec 1.1 and image-spec 1.1, with sha256 and sha512, and the catalog of the Docker
//! Registry HTTP API V2 where it is switched on. One thing that the specification leaves open is refused: a manifest
//! that names content, other than its subject, that its repository does not hold; a cache takes it.

pub mod artifact;
pub mod cache;
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
