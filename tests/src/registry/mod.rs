//! The registry of the real `cairn` and the clients of other projects, as they come.

pub(crate) mod big_blob;
pub(crate) mod buildah;
pub(crate) mod conformance;
pub(crate) mod crane;
mod daemon;
mod image;
pub(crate) mod oras;
pub(crate) mod podman;
mod random;
pub(crate) mod regctl;
pub(crate) mod skopeo;
pub(crate) mod umoci;
