//! A token bucket for each client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;

use crate::{ClientIp, Problem, codes};

/// Most clients that are remembered: about a megabyte.
const CLIENTS: usize = 10_000;

/// `per_minute` requests on average and `burst` at once, for each client. IPv6 clients count by their /64, which is
/// what one of them has.
///
/// A bucket is kept as the moment at which it will be full again (the generic cell rate algorithm), so nothing is
/// lost to rounding and a full bucket needs no entry.
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    burst: u32,
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl RateLimiter {
    /// A limiter with full buckets.
    pub fn new(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(60) / per_minute.get(),
            burst: burst.get(),
            full_at: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one token of a client, or tells how long until there is one.
    pub fn take(&self, client: IpAddr) -> Result<(), Duration> {
        self.take_at(client, Instant::now())
    }

    fn take_at(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = bucket_of(client);
        let mut buckets = self.buckets();
        let full_at = buckets.get(&client).map_or(now, |at| (*at).max(now)) + self.interval;
        let missing = full_at.saturating_duration_since(now).saturating_sub(self.interval * self.burst);
        if !missing.is_zero() {
            return Err(missing);
        }
        if buckets.len() >= CLIENTS && !buckets.contains_key(&client) {
            make_room(&mut buckets, now);
        }
        buckets.insert(client, full_at);
        Ok(())
    }

    /// Gives a token back that turned out not to be owed.
    pub(crate) fn give_back(&self, client: IpAddr) {
        if let Some(full_at) = self.buckets().get_mut(&bucket_of(client)) {
            *full_at -= self.interval;
        }
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Full buckets go first; when none is full, the one that will be soonest.
fn make_room(buckets: &mut HashMap<IpAddr, Instant>, now: Instant) {
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() >= CLIENTS
        && let Some(client) = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(client, _)| *client)
    {
        buckets.remove(&client);
    }
}

fn bucket_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
        v4 => v4,
    }
}

/// The answer to a client whose bucket is empty.
pub(crate) fn exceeded(wait: Duration) -> Problem {
    Problem::new(ErrorKind::RateLimited, codes::RATE_LIMIT_EXCEEDED, "too many requests from this address")
        .hint("wait as long as Retry-After says")
        .retry_after(wait)
}

/// Lets every POST to these routes take a token: 429 `rate_limit_exceeded` with `Retry-After` when there is none.
pub fn limit_posts<S>(limiter: &Arc<RateLimiter>, routes: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.route_layer(from_fn_with_state(Arc::clone(limiter), limit))
}

async fn limit(State(limiter): State<Arc<RateLimiter>>, request: Request, next: Next) -> Response {
    if request.method() == Method::POST
        && let Err(wait) = limiter.take(ClientIp::of(request.extensions()).0)
    {
        return exceeded(wait).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn number(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    fn client(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_burst_then_the_exact_rate() {
        let limiter = RateLimiter::new(number(10), number(5));
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(limiter.take_at(client(1), start), Ok(()));
        }
        assert_eq!(limiter.take_at(client(1), start), Err(Duration::from_secs(6)));
        assert_eq!(limiter.take_at(client(1), start + Duration::from_millis(5_999)), Err(Duration::from_millis(1)));
        assert_eq!(limiter.take_at(client(1), start + Duration::from_secs(6)), Ok(()));
        assert_eq!(limiter.take_at(client(1), start + Duration::from_secs(6)), Err(Duration::from_secs(6)));
        assert_eq!(limiter.take_at(client(2), start), Ok(()), "another client has its own bucket");
    }

    #[test]
    fn a_minute_gives_what_was_promised_and_a_bucket_never_overflows() {
        let limiter = RateLimiter::new(number(7), number(3));
        let start = Instant::now();
        let allowed = (0..60_000).filter(|ms| limiter.take_at(client(1), start + Duration::from_millis(*ms)).is_ok());
        assert_eq!(allowed.count(), 3 + 6, "the seventh token of the minute is there when it is over");
        let later = start + Duration::from_secs(86_400);
        assert_eq!((0..10).filter(|_| limiter.take_at(client(1), later).is_ok()).count(), 3);
    }

    #[test]
    fn a_token_that_was_given_back_can_be_taken_again() {
        let limiter = RateLimiter::new(number(1), number(1));
        let now = Instant::now();
        assert!(limiter.take_at(client(1), now).is_ok());
        limiter.give_back(client(1));
        assert!(limiter.take_at(client(1), now).is_ok());
        assert!(limiter.take_at(client(1), now).is_err());
    }

    #[test]
    fn one_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        let limiter = RateLimiter::new(number(1), number(1));
        let now = Instant::now();
        assert!(limiter.take_at("2001:db8::1".parse().unwrap(), now).is_ok());
        assert!(limiter.take_at("2001:db8::2".parse().unwrap(), now).is_err());
        assert!(limiter.take_at("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
        assert!(limiter.take_at("::ffff:192.0.2.1".parse().unwrap(), now).is_ok());
        assert!(limiter.take_at(client(1), now).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_the_newest_keep_their_place() {
        let limiter = RateLimiter::new(number(1), number(1));
        let now = Instant::now();
        for number in 0..u32::try_from(CLIENTS).unwrap() + 100 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(number));
            assert!(limiter.take_at(address, now + Duration::from_millis(number.into())).is_ok());
        }
        assert_eq!(limiter.buckets().len(), CLIENTS);
        assert!(limiter.take_at(std::net::Ipv4Addr::from_bits(10_099).into(), now + Duration::from_secs(11)).is_err());
    }
}
