//! Rate limiters: token buckets of bytes and of operations.

use serde::{Deserialize, Serialize};

use super::ModelError;

/// A bucket of tokens (`TokenBucket`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Tokens the bucket holds: bytes, or operations.
    pub size: u64,
    /// Tokens on top of that which are there once and never come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// Milliseconds in which an empty bucket fills.
    pub refill_time: u64,
}

/// Limits of a device (`RateLimiter`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimiter {
    /// Limit in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Limit in operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

impl RateLimiter {
    /// A limit in bytes per second, granted in portions of `refill_ms`, with `burst` bytes on top once.
    ///
    /// # Errors
    /// When that makes a bucket without tokens, which Firecracker would take for no limit at all.
    pub fn bandwidth(bytes_per_second: u64, refill_ms: u64, burst: u64) -> Result<Self, ModelError> {
        let size = u128::from(bytes_per_second) * u128::from(refill_ms) / 1000;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size == 0 {
            return Err(ModelError::EmptyBucket { bytes_per_second, refill_ms });
        }
        let one_time_burst = (burst > 0).then_some(burst);
        Ok(Self { bandwidth: Some(TokenBucket { size, one_time_burst, refill_time: refill_ms }), ops: None })
    }

    /// Takes limits away again when sent to a running VM; leaving a bucket out would leave it as it is.
    pub fn unlimited() -> Self {
        let none = TokenBucket { size: 0, one_time_burst: None, refill_time: 0 };
        Self { bandwidth: Some(none), ops: Some(none) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_becomes_a_bucket() {
        let limiter = RateLimiter::bandwidth(1_000_000, 100, 50_000).unwrap();
        let bucket = TokenBucket { size: 100_000, one_time_burst: Some(50_000), refill_time: 100 };
        assert_eq!(limiter, RateLimiter { bandwidth: Some(bucket), ops: None });
        let json = serde_json::to_string(&RateLimiter::bandwidth(8, 1000, 0).unwrap()).unwrap();
        assert_eq!(json, r#"{"bandwidth":{"size":8,"refill_time":1000}}"#);
    }

    #[test]
    fn what_would_mean_no_limit_is_refused() {
        for (rate, refill) in [(0, 100), (1_000_000, 0), (9, 100)] {
            assert!(RateLimiter::bandwidth(rate, refill, 0).is_err(), "{rate} {refill}");
        }
    }

    proptest! {
        #[test]
        fn the_bucket_never_grants_more_than_the_rate(rate in any::<u64>(), refill in 0_u64..100_000) {
            if let Ok(limiter) = RateLimiter::bandwidth(rate, refill, 0) {
                let bucket = limiter.bandwidth.unwrap();
                prop_assert!(bucket.size > 0);
                prop_assert!(u128::from(bucket.size) * 1000 <= u128::from(rate) * u128::from(refill));
            }
        }
    }
}
