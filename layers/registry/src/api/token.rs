//! `/api/v1/registry/token`: a password for a token. `GET` is the distribution token specification, `POST` its OAuth 2
//! form. Both take several scopes, and grant of them what the user may do.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use secrecy::SecretString;
use serde_json::json;
use web::{ClientIp, Problem};

use super::Shared;
use crate::access::{BASIC_CHALLENGE, NotKnown, Scheme, basic_header};
use crate::service::Service;
use crate::tokens::{self, Grant, SERVICE};

pub(super) async fn get(
    State(service): Shared,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let form = Form::parse(query.unwrap_or_default().as_bytes());
    // `account` only repeats the name that the password proves, and tokens are never renewed without one, whatever
    // `offline_token` wishes for.
    answer(&service, &headers, client, &form).await
}

pub(super) async fn post(
    State(service): Shared,
    ClientIp(client): ClientIp,
    mut headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let form = match body {
        Ok(body) => Form::parse(&body),
        Err(rejection) => {
            return unusable(rejection.status(), "invalid_request", "the body is too large, or ended early");
        }
    };
    match form.get("grant_type") {
        Some("password") => {
            let password = SecretString::from(form.get("password").unwrap_or_default());
            match basic_header(form.get("username").unwrap_or_default(), &password) {
                Some(basic) => headers.insert(header::AUTHORIZATION, basic),
                None => return refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "user or password is wrong"),
            };
        }
        other => {
            let error = if other.is_some() { "unsupported_grant_type" } else { "invalid_request" };
            let text = "grant_type has to be password: no refresh tokens are given";
            return unusable(StatusCode::BAD_REQUEST, error, text);
        }
    }
    answer(&service, &headers, client, &form).await
}

/// A request that is none, in the form of RFC 6749, 5.2.
fn unusable(status: StatusCode, error: &str, text: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": text }))).into_response()
}

async fn answer(service: &Service, headers: &HeaderMap, client: IpAddr, form: &Form) -> Response {
    if service.gate.scheme != Scheme::Bearer {
        let detail = "this registry gives no tokens: its clients send their password";
        return Problem::new(ErrorKind::NotFound, web::codes::NOT_FOUND, detail)
            .hint("REGISTRY_AUTH_MODE=token changes that")
            .into_response();
    }
    if let Some(other) = form.get("service").filter(|name| *name != SERVICE) {
        let detail = format!("{other:?} is another service than {SERVICE}");
        return Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail).into_response();
    }
    let identity = match service.gate.identify(headers, client).await {
        // A token for a token would go on for ever.
        Ok(identity) if !identity.by_token() => identity,
        Err(NotKnown::Limited(wait)) => return too_many(wait),
        Ok(_) | Err(NotKnown::Wrong | NotKnown::Token(_)) => {
            service.audit.refused("", client, None, "token");
            return refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "user or password is wrong");
        }
    };
    if identity.is_anonymous() && !service.gate.policy.anonymous_pull {
        return refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    }
    let scopes = tokens::scopes(form.all("scope"));
    let grants = service.gate.grants(&identity, &scopes);
    let scope = grants.iter().map(scope_of).collect::<Vec<_>>().join(" ");
    let (subject, holder) = identity.holder();
    let issued = service.gate.tokens.issue(subject, holder, grants);
    let body = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.ttl.as_secs(),
        "issued_at": format!("{:.0}", issued.at),
        "scope": scope,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn scope_of(grant: &Grant) -> String {
    format!("{}:{}:{}", grant.kind, grant.name, grant.actions.join(","))
}

/// In the form of the distribution specification, which clients of registries read here too.
fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
    (status, [(header::WWW_AUTHENTICATE, BASIC_CHALLENGE)], Json(body)).into_response()
}

fn too_many(wait: Duration) -> Response {
    let body =
        json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": "too many wrong passwords", "detail": null }] });
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1).to_string();
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], Json(body)).into_response()
}

/// Names and values of a query or a form, in their order.
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
