//! The real things that a job touches.

pub(crate) mod bmc;
pub(crate) mod tls;
