//! When to try again, and when to look again. Pure arithmetic, and two sleeps that never pass a deadline.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::options::{Phase, Retry};

/// Largest share of a delay that jitter may add.
const JITTER: f64 = 0.2;

/// Delay after `failed` attempts (at least 1), without jitter: base, doubled each time, capped.
fn backoff(retry: &Retry, failed: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failed.saturating_sub(1));
    retry.base.saturating_mul(factor).min(retry.cap)
}

/// Delay before the next attempt: the longer one of backoff with jitter and what the service asked for.
pub(crate) fn delay(retry: &Retry, failed: u32, asked: Option<Duration>) -> Duration {
    let jitter = rand::random_range(0.0..=JITTER);
    backoff(retry, failed).mul_f64(1.0 + jitter).max(asked.unwrap_or_default())
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds or an HTTP date.
///
/// A date is compared with the `Date` of the same answer and not with this machine's clock, because the clock of a BMC
/// is often years off; a date without that counterpart says nothing.
pub(crate) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time, not an error.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX))));
    }
    let wait = http_date(value)?.duration_since(http_date(date?)?);
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// The three forms of RFC 9110, 5.6.7: IMF-fixdate, RFC 850 and asctime.
fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let obsolete = |format: &str| {
        let civil = jiff::fmt::strtime::parse(format, text).ok()?.to_datetime().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
        .or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|| obsolete("%a %b %e %H:%M:%S %Y"))
}

/// Sleeps for `delay`; `false`, at once, when the phase would be over before the end.
pub(crate) async fn pause(phase: Phase, delay: Duration) -> bool {
    if delay >= phase.remaining() {
        return false;
    }
    tokio::time::sleep(delay).await;
    true
}

/// The rhythm of looking at something again and again: the pause doubles from shortest to longest.
///
/// Redfish has events, but most BMCs do not send one for power or media, lose subscriptions over a reset, or cannot
/// reach the subscriber; so looking is the one way that works everywhere.
pub(crate) struct Poll {
    phase: Phase,
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Poll {
    /// A rhythm that ends with the phase.
    pub(crate) fn new(phase: Phase, (shortest, longest): (Duration, Duration)) -> Self {
        Self { phase, shortest, longest, next: shortest }
    }

    /// Waits for the next look; `false` when there is no time for one. The last pause is cut so that one more look
    /// fits in before the deadline.
    pub(crate) async fn wait(&mut self) -> bool {
        let Some(room) = self.phase.remaining().checked_sub(self.shortest).filter(|room| !room.is_zero()) else {
            return false;
        };
        tokio::time::sleep(self.next.min(room)).await;
        self.next = self.next.saturating_mul(2).min(self.longest);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let retry = Retry::default();
        let delays: Vec<u128> = (1..=8).map(|failed| backoff(&retry, failed).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
        assert_eq!(backoff(&retry, u32::MAX), retry.cap);
    }

    #[test]
    fn retry_after_takes_seconds_and_every_form_of_date() {
        assert_eq!(retry_after(" 120 ", None), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("0", None), Some(Duration::ZERO));
        assert_eq!(retry_after(&"9".repeat(40), None), Some(Duration::from_secs(u64::from(u32::MAX))));
        for later in ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"] {
            assert_eq!(retry_after(later, Some(DATE)), Some(Duration::from_secs(30)), "{later}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", Some(DATE)), Some(Duration::ZERO), "in the past");
        assert_eq!(retry_after(DATE, None), None);
        assert_eq!(retry_after("soon", Some(DATE)), None);
        assert_eq!(retry_after("", Some(DATE)), None);
        assert_eq!(retry_after("-5", Some(DATE)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_never_passes_the_deadline() {
        let started = Instant::now();
        let phase = Phase::new("test", Duration::from_secs(10));
        assert!(pause(phase, Duration::from_secs(9)).await);
        assert!(!pause(phase, Duration::from_secs(2)).await);
        assert_eq!(started.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn polling_slows_down_and_looks_once_more_at_the_end() {
        let phase = Phase::new("test", Duration::from_secs(20));
        let mut poll = Poll::new(phase, (Duration::from_secs(1), Duration::from_secs(5)));
        let started = Instant::now();
        let mut looks = vec![0];
        while poll.wait().await {
            looks.push(started.elapsed().as_secs());
        }
        assert_eq!(looks, [0, 1, 3, 7, 12, 17, 19]);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(value in "\\PC{0,60}", date in proptest::option::of("\\PC{0,60}")) {
            let _ = retry_after(&value, date.as_deref());
        }

        #[test]
        fn seconds_are_read_back(seconds in 0..=u32::MAX) {
            prop_assert_eq!(retry_after(&seconds.to_string(), None), Some(Duration::from_secs(seconds.into())));
        }

        #[test]
        fn a_delay_lies_between_backoff_and_a_fifth_more(failed in 1..40_u32, asked in proptest::option::of(0..100_u64)) {
            let retry = Retry::default();
            let asked = asked.map(Duration::from_secs);
            let low = backoff(&retry, failed).max(asked.unwrap_or_default());
            let high = backoff(&retry, failed).mul_f64(1.0 + JITTER).max(asked.unwrap_or_default());
            let chosen = delay(&retry, failed, asked);
            prop_assert!(low <= chosen && chosen <= high);
        }
    }
}
