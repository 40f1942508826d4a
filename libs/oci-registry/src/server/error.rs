//! Answers that say no, in the form of distribution-spec 1.1 ("Error Codes").

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::storage::StorageError;
use crate::{Digest, InvalidSelector};

/// Codes of the specification, and two that it leaves to the registry: `INSUFFICIENT_STORAGE` and `INTERNAL_ERROR`.
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
    InsufficientStorage,
    Internal,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::InsufficientStorage => "INSUFFICIENT_STORAGE",
            Self::Internal => "INTERNAL_ERROR",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestBlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => 404,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => 400,
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::Unsupported => 405,
            Self::InsufficientStorage => 507,
            Self::Internal => 500,
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
        Self { code, status: code.status(), message: message.into(), digests: Vec::new(), headers: Vec::new() }
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        Self::new(Code::Unsupported, "the operation is unsupported").with_header(header::ALLOW, allowed)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        if error.is_full() {
            tracing::error!(error = &error as &dyn std::error::Error, "the registry's disk is full");
            return Self::new(Code::InsufficientStorage, "no space left on the registry's disk");
        }
        let message = error.to_string();
        match error {
            StorageError::UploadUnknown => Self::new(Code::BlobUploadUnknown, message),
            StorageError::UploadOffset { .. } => Self::new(Code::BlobUploadInvalid, message).with_status(416),
            StorageError::UploadSuperseded => Self::new(Code::BlobUploadInvalid, message).with_status(409),
            StorageError::Interrupted(_) => Self::new(Code::BlobUploadInvalid, message),
            StorageError::ChunkLength { .. } => Self::new(Code::SizeInvalid, message),
            StorageError::TooLarge { .. } => Self::new(Code::SizeInvalid, message).with_status(413),
            StorageError::DigestMismatch { .. } => Self::new(Code::DigestInvalid, message),
            StorageError::ManifestInvalid(_) => Self::new(Code::ManifestInvalid, message),
            StorageError::ReferencesUnknown(digests) => {
                let mut failure = Self::new(Code::ManifestBlobUnknown, message);
                failure.digests = digests;
                failure
            }
            other => {
                // Paths and system errors are for the operator's log, not for the client.
                tracing::error!(error = &other as &dyn std::error::Error, "registry storage failed");
                Self::new(Code::Internal, "the registry's storage failed")
            }
        }
    }
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
        let body = json!({"errors": [{"code": self.code.text(), "message": self.message, "detail": detail}]});
        let mut response = (status, Json(body)).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
