//! Which endpoint a path means. Names contain slashes, so the path is read from its end.

use uuid::Uuid;

use super::error::{Code, Failure};
use crate::{Digest, InvalidDigest, RepositoryName, Selector};

/// Label of a request in metrics; one of a fixed few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/v2/`
    Ping,
    /// `…/blobs/<digest>`
    Blob,
    /// `…/blobs/uploads/…`
    Uploads,
    /// `…/manifests/<tag or digest>`
    Manifest,
    /// `…/tags/list`
    Tags,
    /// `…/referrers/<digest>`
    Referrers,
    /// `/v2/_catalog`
    Catalog,
    /// Anything else.
    Other,
}

impl Route {
    /// Every label.
    pub const ALL: [Self; 8] = [
        Self::Ping,
        Self::Blob,
        Self::Uploads,
        Self::Manifest,
        Self::Tags,
        Self::Referrers,
        Self::Catalog,
        Self::Other,
    ];

    /// The label's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Blob => "blob",
            Self::Uploads => "uploads",
            Self::Manifest => "manifest",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Other => "other",
        }
    }
}

/// An endpoint with what its path says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Ping,
    Blob(RepositoryName, Result<Digest, Failure>),
    StartUpload(RepositoryName),
    Upload(RepositoryName, Result<Uuid, Failure>),
    Manifest(RepositoryName, Result<Selector, Failure>),
    Tags(RepositoryName),
    /// `None` for a digest of an unknown algorithm.
    Referrers(RepositoryName, Result<Option<Digest>, Failure>),
    Catalog,
}

impl Endpoint {
    pub(super) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping | Self::Catalog => None,
            Self::Blob(name, _)
            | Self::StartUpload(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Tags(name)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

/// Reads the path after `/v2`, not percent-decoded except for `%3A`, which some clients write for the `:` of a digest.
/// Nothing else in a valid path is ever encoded, so that whatever hides in an encoding fails the grammars.
pub(super) fn parse(path: &str) -> (Route, Result<Endpoint, Failure>) {
    let path = path.replace("%3A", ":").replace("%3a", ":");
    let rest = path.strip_prefix('/').unwrap_or(&path);
    if rest.is_empty() {
        return (Route::Ping, Ok(Endpoint::Ping));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            (Route::Uploads, named(name, Endpoint::StartUpload))
        }
        [name @ .., "blobs", "uploads", id] => {
            let id = Uuid::try_parse(id).map_err(|_| Failure::new(Code::BlobUploadUnknown, "no such upload"));
            (Route::Uploads, named(name, |name| Endpoint::Upload(name, id)))
        }
        ["_catalog"] => (Route::Catalog, Ok(Endpoint::Catalog)),
        [name @ .., "referrers", digest] => {
            let subject = match digest.parse::<Digest>() {
                Ok(digest) => Ok(Some(digest)),
                Err(InvalidDigest::Algorithm(_)) => Ok(None),
                Err(error) => Err(Failure::new(Code::DigestInvalid, error.to_string())),
            };
            (Route::Referrers, named(name, |name| Endpoint::Referrers(name, subject)))
        }
        [name @ .., "tags", "list"] => (Route::Tags, named(name, Endpoint::Tags)),
        [name @ .., "blobs", digest] => {
            let digest = digest.parse::<Digest>().map_err(|error| Failure::new(Code::DigestInvalid, error.to_string()));
            (Route::Blob, named(name, |name| Endpoint::Blob(name, digest)))
        }
        [name @ .., "manifests", selector] => {
            let selector = selector.parse::<Selector>().map_err(Failure::from);
            (Route::Manifest, named(name, |name| Endpoint::Manifest(name, selector)))
        }
        _ => (Route::Other, Err(Failure::new(Code::Unsupported, "no such endpoint").with_status(404))),
    }
}

fn named(parts: &[&str], endpoint: impl FnOnce(RepositoryName) -> Endpoint) -> Result<Endpoint, Failure> {
    match parts.join("/").parse() {
        Ok(name) => Ok(endpoint(name)),
        Err(error) => Err(Failure::new(Code::NameInvalid, format!("{error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(path: &str) -> (Route, Option<String>) {
        let (route, endpoint) = parse(path);
        (route, endpoint.ok().and_then(|endpoint| endpoint.repository().map(ToString::to_string)))
    }

    #[test]
    fn names_may_contain_the_words_of_endpoints() {
        let digest = Digest::sha256_of(b"");
        for (path, route, name) in [
            ("/a/b/manifests/latest".to_owned(), Route::Manifest, "a/b"),
            ("/a/manifests/manifests/x".to_owned(), Route::Manifest, "a/manifests"),
            (format!("/a/blobs/{digest}"), Route::Blob, "a"),
            (format!("/a/blobs/{}", digest.to_string().replace(':', "%3A")), Route::Blob, "a"),
            ("/blobs/uploads/blobs/uploads/".to_owned(), Route::Uploads, "blobs/uploads"),
            ("/a/blobs/uploads".to_owned(), Route::Uploads, "a"),
            ("/a/blobs/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff".to_owned(), Route::Uploads, "a"),
            ("/a/tags/tags/list".to_owned(), Route::Tags, "a/tags"),
            (format!("/a/referrers/referrers/{digest}"), Route::Referrers, "a/referrers"),
        ] {
            assert_eq!(repository(&path), (route, Some(name.to_owned())), "{path}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_no_names() {
        for path in [
            "/../a/manifests/x",
            "/a/../../etc/manifests/x",
            "/%2e%2e/manifests/x",
            "/a%2Fb/manifests/x",
            "//manifests/x",
            "/manifests/x",
            "/a//b/tags/list",
            "/A/tags/list",
            "/_uploads/tags/list",
            "/a/_refs/tags/list",
            "/a\\b/tags/list",
            "/a%00/tags/list",
        ] {
            let (_, endpoint) = parse(path);
            assert_eq!(endpoint.unwrap_err().code(), Code::NameInvalid, "{path}");
        }
        for path in ["/a/manifests/..", "/a/manifests/%2e%2e", "/a/manifests/.hidden"] {
            let (_, endpoint) = parse(path);
            assert!(matches!(endpoint, Ok(Endpoint::Manifest(_, Err(_)))), "{path}");
        }
        assert!(matches!(parse("/a/blobs/uploads/../../x").1, Err(_) | Ok(Endpoint::Blob(_, Err(_)))));
        assert!(matches!(parse("/a/blobs/sha256:..").1, Ok(Endpoint::Blob(_, Err(_)))));
    }

    #[test]
    fn ping_and_the_unknown() {
        assert_eq!(parse("").0, Route::Ping);
        assert_eq!(parse("/").0, Route::Ping);
        assert_eq!(parse("/_catalog"), (Route::Catalog, Ok(Endpoint::Catalog)));
        assert_eq!(parse("/a").0, Route::Other);
        assert!(matches!(parse("/a/referrers/x"), (Route::Referrers, Ok(Endpoint::Referrers(_, Err(_))))));
        assert!(matches!(parse("/a/referrers/sha384:00"), (_, Ok(Endpoint::Referrers(_, Ok(None))))));
    }
}
