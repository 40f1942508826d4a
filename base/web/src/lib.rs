//! The HTTP base: the one error shape ([`Problem`]), extractors that answer with it, the [`frame`] around all routes
//! (security headers, metrics, access log), basic authentication, rate limits, health, and the server itself
//! ([`bind`], [`serve`]), files in answers ([`file_body`]). It knows no route of any layer; layers hand in their routers.

mod basic_auth;
mod client_address;
pub mod codes;
mod extract;
mod frame;
mod health;
mod http_metrics;
mod listen;
mod problem;
mod proof;
mod rate_limit;
mod sending;
mod serve;
mod suggestion;
mod time_limit;
mod tls;

pub use basic_auth::{AuthError, BasicAuth, Credentials, Refusal, User};
pub use client_address::{ClientIp, TrustedProxies};
pub use extract::{Json, Query, body_limit, shape};
pub use frame::{FrameOptions, frame};
pub use health::{Check, health_routes, metrics_route};
pub use http_metrics::HttpMetrics;
pub use listen::{BindError, ListenAddress, bind};
pub use problem::{Detail, Problem};
pub use proof::Proof;
pub use rate_limit::{RateLimiter, limit_posts};
pub use sending::file_body;
pub use serve::{Drain, ServeOptions, serve};
pub use time_limit::limit_time;
pub use tls::{Tls, TlsError, TlsFiles};
