//! MicroVMs through the real `metald`, with guests under emulation.

pub(crate) mod count;
pub(crate) mod guide;
pub(crate) mod jail;
pub(crate) mod kills;
pub(crate) mod life;
pub(crate) mod steps;
pub(crate) mod tls;
