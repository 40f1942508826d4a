//! Waiting for something that sends no event.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer or the time is over. Asks at least once.
pub(crate) fn until<T>(limit: Duration, interval: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Block devices, carriers and addresses come from drivers and daemons that have no common event to wait for.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(interval.min(left));
    }
}
