//! The one shape of every error: RFC 9457, plus the keys `error`, `message` and `details` of the Shoal manual.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use observe::redaction::redact_text;
use serde::{Deserialize, Serialize};

use crate::codes;

/// One thing that is wrong in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Where, as a JSON pointer (RFC 6901): `/partition_layout/0/size`.
    #[serde(default)]
    pub path: String,
    /// The same as a person writes it: `partition_layout[0].size`.
    #[serde(default)]
    pub field: String,
    /// What kind of wrong: `required`, `pattern`, `type`, …
    #[serde(default)]
    pub code: String,
    /// What is wrong, in words.
    #[serde(default)]
    pub message: String,
}

impl Detail {
    /// A detail at a JSON pointer; `field` is made from it.
    pub fn at(path: &str, code: &str, message: impl Into<String>) -> Self {
        let mut field = String::new();
        for part in path.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            if !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()) {
                field.push_str(&format!("[{part}]"));
            } else {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(&part);
            }
        }
        Self { path: path.to_owned(), field, code: code.to_owned(), message: message.into() }
    }
}

/// An error as it goes over the wire. The server makes it from an [`ErrorKind`] and a code, the command line reads it.
///
/// It is the error type of every handler, so it is kept small.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Reading")]
pub struct Problem {
    /// Short and the same for every occurrence.
    pub title: Box<str>,
    /// HTTP status.
    pub status: u16,
    /// What happened this time. Also `message`.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<Box<str>>,
    /// Stable name of the error. Also `error`.
    pub code: String,
    /// What exactly is wrong in the request, if it is the request.
    pub details: Box<[Detail]>,
    headers: Box<Headers>,
}

/// What goes into the head of the response instead of its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Headers {
    retry_after: Option<Duration>,
    challenge: Option<String>,
    /// A kind that no status tells, such as that a part was done; a command's exit code does.
    kind: Option<ErrorKind>,
}

/// What is read: the keys of RFC 9457, or where they are missing those of the Shoal manual.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reading {
    title: Box<str>,
    status: u16,
    detail: Option<String>,
    message: Option<String>,
    hint: Option<Box<str>>,
    code: Option<String>,
    error: Option<String>,
    details: Box<[Detail]>,
}

impl From<Reading> for Problem {
    fn from(read: Reading) -> Self {
        Self {
            title: read.title,
            status: read.status,
            detail: read.detail.or(read.message).unwrap_or_default(),
            hint: read.hint,
            code: read.code.or(read.error).unwrap_or_default(),
            details: read.details,
            headers: Box::default(),
        }
    }
}

/// What is written.
#[derive(Serialize)]
struct Wire<'p> {
    #[serde(rename = "type")]
    page: String,
    title: &'p str,
    status: u16,
    detail: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'p str>,
    code: &'p str,
    error: &'p str,
    message: &'p str,
    details: &'p [Detail],
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            page: format!("/errors/{}", self.code),
            title: &self.title,
            status: self.status,
            detail: &self.detail,
            hint: self.hint.as_deref(),
            code: &self.code,
            error: &self.code,
            message: &self.detail,
            details: &self.details,
        }
        .serialize(serializer)
    }
}

impl Problem {
    /// A problem with the status of its kind. Secrets that can be recognised in `detail` are cut out.
    pub fn new(kind: ErrorKind, code: &str, detail: impl Into<String>) -> Self {
        let problem = Self {
            title: Box::default(),
            status: 0,
            detail: redact_text(&detail.into()).into_owned(),
            hint: None,
            code: code.to_owned(),
            details: Box::default(),
            headers: Box::default(),
        };
        let mut problem = problem.status(kind.http_status());
        problem.headers.kind = Some(kind).filter(|kind| ErrorKind::of_http_status(kind.http_status()) != Some(*kind));
        problem
    }

    /// A fault of ours: the whole chain goes to the log, the caller learns nothing of it.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, code = codes::SERVER_ERROR, "request failed");
        Self::new(ErrorKind::Failed, codes::SERVER_ERROR, "the server could not do this")
            .hint("the log of the server says more under the request id")
    }

    /// What a server answered, also when it is no problem document, as from a proxy in between.
    pub fn from_body(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_else(|_| {
            let kind = ErrorKind::of_http_status(status).unwrap_or(ErrorKind::Failed);
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            Self::new(kind, "", format!("the server answered {status}: {}", text.trim()))
        });
        problem.status = status;
        problem
    }

    /// Another title than the reason phrase of the status.
    pub fn title(mut self, title: &str) -> Self {
        self.title = title.into();
        self
    }

    /// What to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// What exactly is wrong.
    pub fn detail_list(mut self, details: Vec<Detail>) -> Self {
        self.details = details.into();
        self
    }

    /// Another status than that of the kind; the title becomes its reason phrase.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self.title = self.status_code().canonical_reason().unwrap_or("Error").into();
        self
    }

    /// Adds `Retry-After`, in whole seconds and at least one.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.headers.retry_after = Some(wait);
        self
    }

    /// Adds `WWW-Authenticate`.
    pub fn authenticate(mut self, challenge: &str) -> Self {
        self.headers.challenge = Some(challenge.to_owned());
        self
    }

    /// How the error is sorted: exit code of a command.
    pub fn kind(&self) -> ErrorKind {
        self.headers.kind.or(ErrorKind::of_http_status(self.status)).unwrap_or(ErrorKind::Failed)
    }

    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for Problem {}

/// The problem itself, as an `Arc`, is an extension of the response.
/// What a database cannot do is no caller's fault.
impl From<store::QueryError> for Problem {
    fn from(error: store::QueryError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status_code(), axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.headers.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(challenge) = self.headers.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        // For layers around the handler, which write records or speak another form of errors.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_has_both_sets_of_keys_and_reads_back() {
        let problem = Problem::new(ErrorKind::Invalid, "invalid_recipe", "the recipe of http://u:p@h is wrong")
            .hint("see /errors/invalid_recipe")
            .detail_list(vec![Detail::at("/partition_layout/0/size", "pattern", "10 apples is no size")]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&problem).unwrap(), @r###"
        {
          "type": "/errors/invalid_recipe",
          "title": "Bad Request",
          "status": 400,
          "detail": "the recipe of http://[redacted]@h is wrong",
          "hint": "see /errors/invalid_recipe",
          "code": "invalid_recipe",
          "error": "invalid_recipe",
          "message": "the recipe of http://[redacted]@h is wrong",
          "details": [
            {
              "path": "/partition_layout/0/size",
              "field": "partition_layout[0].size",
              "code": "pattern",
              "message": "10 apples is no size"
            }
          ]
        }
        "###);
        let read: Problem = serde_json::from_value(serde_json::to_value(&problem).unwrap()).unwrap();
        assert_eq!(read, problem);
        assert_eq!(read.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_field_is_written_as_a_person_writes_it() {
        for (path, field) in [("", ""), ("/a", "a"), ("/a/0/b", "a[0].b"), ("/0", "[0]"), ("/a~1b/~0", "a/b.~")] {
            assert_eq!(Detail::at(path, "c", "m").field, field);
        }
    }

    #[test]
    fn any_answer_can_be_read() {
        let seed = Problem::from_body(409, br#"{"error":"conflict.active_job","message":"busy","details":[]}"#);
        assert_eq!((seed.status, seed.detail.as_str(), seed.kind()), (409, "busy", ErrorKind::Conflict));
        let page = Problem::from_body(502, b"<html>bad gateway</html>");
        assert_eq!(page.to_string(), "the server answered 502: <html>bad gateway</html>");
        assert_eq!(page.kind().exit_code(), 6);
    }

    #[test]
    fn waiting_is_told_in_whole_seconds() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (6_000, "6")] {
            let problem = Problem::new(ErrorKind::RateLimited, "c", "d").retry_after(Duration::from_millis(wait));
            assert_eq!(problem.into_response().headers()["retry-after"], seconds);
        }
    }
}
