//! What the controller is told: progress (best effort), the terminal report, the first boot.

pub mod first_boot;
pub mod progress;
pub mod webhook;

mod post;

pub use post::Patience;
