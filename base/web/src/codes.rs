//! The codes that this crate answers with. Each has a page in docs/errors/.

/// The body is not JSON.
pub const INVALID_JSON: &str = "invalid_json";
/// The body is JSON of another shape, or the query or a path part is wrong.
pub const INVALID_REQUEST: &str = "invalid_request";
/// The body is not declared as JSON.
pub const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";
/// The body is larger than the route takes.
pub const BODY_TOO_LARGE: &str = "body_too_large";
/// There is nothing at this path.
pub const NOT_FOUND: &str = "not_found";
/// The path does not take this method.
pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
/// No credentials, or wrong ones.
pub const UNAUTHORIZED: &str = "unauthorized";
/// Too many requests from one address.
pub const RATE_LIMIT_EXCEEDED: &str = "rate_limit_exceeded";
/// A check of `/readyz` failed.
pub const NOT_READY: &str = "not_ready";
/// A fault of ours; the log says more.
pub const SERVER_ERROR: &str = "server_error";

/// The request was not complete in time.
pub const REQUEST_TIMEOUT: &str = "request_timeout";
/// Without a login, only requests to this machine's own names are taken.
pub const HOST_REFUSED: &str = "host_refused";

/// All of them, for the test that compares codes with pages.
pub const ALL: &[&str] = &[
    INVALID_JSON,
    INVALID_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    BODY_TOO_LARGE,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    UNAUTHORIZED,
    RATE_LIMIT_EXCEEDED,
    NOT_READY,
    SERVER_ERROR,
    REQUEST_TIMEOUT,
    HOST_REFUSED,
];
