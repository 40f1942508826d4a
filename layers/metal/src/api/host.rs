//! Which names this controller answers to when nobody has to log in. A web page can point a name of its own at a loopback
//! address (DNS rebinding), and would then speak to the controller with the operator's browser.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use web::Problem;

use super::header;
use crate::context::Metal;

/// Lets requests through that are addressed to one of the controller's own names.
pub(super) async fn own_names_only(State(metal): State<Arc<Metal>>, request: Request, next: Next) -> Response {
    if is_own_name(&metal, request.headers(), request.uri()) {
        return next.run(request).await;
    }
    Problem::new(
        ErrorKind::Forbidden,
        web::codes::HOST_REFUSED,
        "without a login only this machine's own names are taken",
    )
    .hint("use http://127.0.0.1:PORT, or set BASIC_USER and BASIC_PASS_HASH")
    .into_response()
}

/// Whether a request is addressed to a loopback address, `localhost`, or the host of MEDIA_URL or CALLBACK_URL.
pub(super) fn is_own_name(metal: &Metal, headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(authority) = header(headers, "host").or_else(|| uri.authority().map(|authority| authority.as_str()))
    else {
        // No browser leaves it out.
        return true;
    };
    let host = host_of(authority);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let set = [&metal.urls.media, &metal.urls.callback].into_iter().filter_map(|url| url.host_str());
    loopback || set.map(|own| own.trim_matches(['[', ']'])).any(|own| own.eq_ignore_ascii_case(host))
}

/// Host of `host:port`, without the brackets of IPv6.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_their_ports() {
        assert_eq!(host_of("127.0.0.1:8080"), "127.0.0.1");
        assert_eq!(host_of("[::1]:8080"), "::1");
        assert_eq!(host_of("localhost"), "localhost");
        assert_eq!(host_of("evil.example:8080"), "evil.example");
    }
}
