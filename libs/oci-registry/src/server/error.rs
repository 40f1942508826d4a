//! Answers that say no, in the form of distribution-spec 1.1 ("Error Codes").

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::body::BodyFault;
use crate::storage::StorageError;
use crate::{Digest, InvalidSelector};

/// Codes of the specification, and three for its 5xx, whose form is left to the registry: `INSUFFICIENT_STORAGE`,
/// `INTERNAL_ERROR` and `UPSTREAM_FAILED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    InsufficientStorage,
    Internal,
    Upstream,
}

impl Code {
    /// The code's text, and the status that goes with it where nothing else is said.
    fn entry(self) -> (&'static str, u16) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", 404),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", 400),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", 404),
            Self::DigestInvalid => ("DIGEST_INVALID", 400),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", 404),
            Self::ManifestInvalid => ("MANIFEST_INVALID", 400),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", 404),
            Self::NameInvalid => ("NAME_INVALID", 400),
            Self::NameUnknown => ("NAME_UNKNOWN", 404),
            Self::SizeInvalid => ("SIZE_INVALID", 400),
            Self::Unauthorized => ("UNAUTHORIZED", 401),
            Self::Denied => ("DENIED", 403),
            Self::Unsupported => ("UNSUPPORTED", 405),
            Self::TooManyRequests => ("TOOMANYREQUESTS", 429),
            Self::InsufficientStorage => ("INSUFFICIENT_STORAGE", 507),
            Self::Internal => ("INTERNAL_ERROR", 500),
            Self::Upstream => ("UPSTREAM_FAILED", 502),
        }
    }
}

/// An answer that says no.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    code: Code,
    status: u16,
    message: String,
    /// Content that the message is about; goes into `detail`.
    digests: Vec<Digest>,
    headers: Vec<(header::HeaderName, String)>,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, status: code.entry().1, message: message.into(), digests: Vec::new(), headers: Vec::new() }
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What is said of a body that broke off is said of a blob's; this one was a manifest's.
    pub(super) fn of_manifest(mut self) -> Self {
        if self.code == Code::BlobUploadInvalid {
            self.code = Code::ManifestInvalid;
        }
        self
    }

    pub(super) fn is_time_out(&self) -> bool {
        self.status == 408
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// Paths and system errors are for the operator's log, not for the client.
    pub(super) fn of_the_disk(error: &StorageError) -> Self {
        if error.is_full() {
            tracing::error!(error = error as &dyn std::error::Error, "the registry's disk is full");
            return Self::new(Code::InsufficientStorage, "no space left on the registry's disk");
        }
        tracing::error!(error = error as &dyn std::error::Error, "registry storage failed");
        Self::new(Code::Internal, "the registry's storage failed")
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        Self::new(Code::Unsupported, "the operation is unsupported").with_header(header::ALLOW, allowed)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let message = error.to_string();
        let (code, status) = match &error {
            StorageError::UploadUnknown => (Code::BlobUploadUnknown, None),
            StorageError::UploadOffset { .. } => (Code::BlobUploadInvalid, Some(416)),
            StorageError::UploadSuperseded => (Code::BlobUploadInvalid, Some(409)),
            StorageError::Interrupted(fault) => (Code::BlobUploadInvalid, is_time_out(&**fault).then_some(408)),
            StorageError::ChunkLength { .. } => (Code::SizeInvalid, None),
            StorageError::TooLarge { .. } => (Code::SizeInvalid, Some(413)),
            StorageError::TagImmutable { .. } => (Code::Denied, Some(409)),
            StorageError::DigestMismatch { .. } => (Code::DigestInvalid, None),
            StorageError::ManifestInvalid(_) => (Code::ManifestInvalid, None),
            StorageError::ReferencesUnknown(_) => (Code::ManifestBlobUnknown, None),
            StorageError::ConditionFailed => (Code::ManifestInvalid, Some(412)),
            other => return Self::of_the_disk(other),
        };
        let mut failure = Self::new(code, message);
        failure.status = status.unwrap_or(failure.status);
        if let StorageError::ReferencesUnknown(digests) = error {
            failure.digests = digests;
        }
        failure
    }
}

fn is_time_out(fault: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(fault.downcast_ref(), Some(BodyFault::Silent(_) | BodyFault::TooSlow))
}

impl From<InvalidSelector> for Failure {
    fn from(error: InvalidSelector) -> Self {
        match error {
            InvalidSelector::Tag(error) => Self::new(Code::ManifestInvalid, error.to_string()),
            InvalidSelector::Digest(error) => Self::new(Code::DigestInvalid, error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let detail: Value = self.digests.iter().map(|digest| json!({ "digest": digest })).collect();
        let body = json!({"errors": [{"code": self.code.entry().0, "message": self.message, "detail": detail}]});
        let mut response = (status, Json(body)).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
