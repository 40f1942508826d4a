//! What scripted scenarios stand on: the real `cairn serve`, a stock sushy-emulator with its fake driver, and a guest that
//! the scenario itself plays. No virtual machine; a scenario takes seconds.

pub(crate) mod bmc;
pub(crate) mod floor;
pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod media;
pub(crate) mod metrics;

use std::time::Duration;

/// The emulator changes power after 1 to 11 s; the rest is room for a machine with other work.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at something that announces itself to nobody.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Programs that every scripted scenario needs.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso"];
