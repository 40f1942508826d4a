//! What a running Cairn tells about itself: log lines ([`logging`]), numbers ([`metrics`]) and what neither of
//! them may ever contain ([`redaction`]). It knows nothing of layers: they hand in names, labels and fields.

pub mod logging;
pub mod metrics;
pub mod redaction;
