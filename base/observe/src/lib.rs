//! What a running Cairn tells about itself: log lines ([`logging`]), numbers ([`metrics`]), what it is doing
//! right now ([`tasks`]), how long each part of its work took ([`traces`]) and what none of them may ever contain
//! ([`redaction`]). It knows nothing of layers: they hand in names, labels and fields.

pub mod logging;
pub mod memory;
pub mod metrics;
pub mod redaction;
pub mod tasks;
pub mod traces;
