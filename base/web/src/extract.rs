//! Request parts that answer with a [`Problem`] when they are wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::{Detail, Problem, codes, suggestion};

/// Largest body that a route takes, in bytes. Without it 2 MiB; a route that streams its body has no limit here.
pub fn body_limit(bytes: usize) -> DefaultBodyLimit {
    DefaultBodyLimit::max(bytes)
}

/// A JSON body, in both directions.
///
/// Rejections: 415 when the body is not declared as JSON (a browser can send any other type to us from a foreign
/// page), 413, 400 `invalid_json`, and 400 `invalid_request` with the place when the JSON has another shape.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let problem = Problem::new(
                ErrorKind::Invalid,
                codes::UNSUPPORTED_MEDIA_TYPE,
                "the body must be declared as application/json",
            );
            return Err(problem.status(415).hint("send the header Content-Type: application/json"));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| unread_body(&rejection))?;
        parse(&body).map(Self)
    }
}

/// A value of another shape from JSON that was already read, for bodies whose shape depends on what they hold. `at` is where
/// it stood in the body, as a JSON pointer. The same 400 `invalid_request` as from [`Json`].
pub fn shape<T: DeserializeOwned>(value: serde_json::Value, at: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| unparsed(error.inner(), &format!("{at}{}", pointer(error.path()))))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

fn unread_body(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(ErrorKind::Invalid, codes::BODY_TOO_LARGE, "the body is larger than this route takes")
            .status(413);
    }
    Problem::new(ErrorKind::Invalid, codes::INVALID_REQUEST, "the body ended early")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = pointer(error.path());
        unparsed(error.inner(), &path)
    })?;
    deserializer.end().map_err(|error| unparsed(&error, ""))?;
    Ok(value)
}

fn unparsed(error: &serde_json::Error, path: &str) -> Problem {
    if error.classify() != Category::Data {
        return Problem::new(ErrorKind::Invalid, codes::INVALID_JSON, format!("the body is not JSON: {error}"));
    }
    let text = error.to_string();
    // The place in the text says less than the path, which stands beside it.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let code = match message {
        m if m.starts_with("missing field") => "required",
        m if m.starts_with("unknown field") => "unknown",
        m if m.starts_with("invalid type") => "type",
        _ => "invalid",
    };
    let place = if path.is_empty() { String::new() } else { format!(" at {path}") };
    let problem =
        Problem::new(ErrorKind::Invalid, codes::INVALID_REQUEST, format!("the request is wrong{place}: {message}"))
            .detail_list(vec![Detail::at(path, code, message)]);
    suggest(problem, message)
}

fn suggest(problem: Problem, message: &str) -> Problem {
    match suggestion::in_message(message) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem,
    }
}

fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The query of the URL; 400 `invalid_request` when it has another shape.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(value)| Self(value)).map_err(
            |rejection| {
                let text = rejection.body_text();
                let detail = format!("the query is wrong: {text}");
                suggest(Problem::new(ErrorKind::Invalid, codes::INVALID_REQUEST, detail), &text)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Layout {
        #[allow(dead_code, reason = "only its shape matters")]
        sizes: Vec<u32>,
    }

    #[test]
    fn what_is_no_json_and_what_has_another_shape_are_told_apart() {
        for body in ["", "{", "{\"sizes\": [1],}", "{\"sizes\":[1]} x", "\u{1}"] {
            assert_eq!(parse::<Layout>(body.as_bytes()).unwrap_err().code, codes::INVALID_JSON, "{body}");
        }
        for (body, path, code) in [
            ("{}", "", "required"),
            ("{\"sizes\":[1,\"x\"]}", "/sizes/1", "type"),
            ("{\"sizes\":[1],\"a/b\":2}", "/a~1b", "unknown"),
            ("{\"sizes\":[-1]}", "/sizes/0", "invalid"),
        ] {
            let problem = parse::<Layout>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code, codes::INVALID_REQUEST, "{body}");
            assert_eq!((problem.details[0].path.as_str(), problem.details[0].code.as_str()), (path, code), "{body}");
        }
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        let problem = parse::<Layout>(b"{\"sizs\": []}").unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("did you mean `sizes`?"));
        let problem = shape::<Layout>(serde_json::json!({"sizs": []}), "/layout").unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("did you mean `sizes`?"));
        let problem = shape::<Layout>(serde_json::json!({"sizes": ["x"]}), "/layout").unwrap_err();
        assert_eq!(problem.details[0].path, "/layout/sizes/0");
        assert_eq!(parse::<Layout>(b"{\"colour\": 1}").unwrap_err().hint, None);
    }

    #[test]
    fn json_is_what_is_declared_as_json() {
        for (declared, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("text/json+json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, declared.parse().unwrap());
            assert_eq!(is_json(&headers), expected, "{declared}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
