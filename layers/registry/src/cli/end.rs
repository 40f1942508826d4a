//! Where `copy` and `inspect` find or put things: a repository of a registry, or an image layout.

use std::path::PathBuf;

use bytes::Bytes;
use cairn_core::{ErrorKind, chain};
use cli::{Daemon, usage};
use oci_registry::client::{Client as Remote, ClientError, Credentials};
use oci_registry::{Descriptor, Digest, Reference, RepositoryName, Selector, Tag};
use url::Url;
use web::Problem;

use super::layout::Layout;
use crate::errors;
use crate::upstream::AuthFile;

/// A place of images.
pub(super) enum End {
    /// A repository.
    Registry(Repository),
    /// A layout on disk.
    Layout(Layout),
}

/// A repository of a registry.
pub(super) struct Repository {
    pub(super) remote: Remote,
    pub(super) name: RepositoryName,
    pub(super) selector: Selector,
    shown: String,
}

/// What reaching registries needs.
pub(super) struct Reach<'a> {
    pub(super) client: &'a Daemon,
    pub(super) logins: Option<&'a AuthFile>,
    pub(super) plain_http: bool,
}

impl End {
    /// Reads `[HOST/]REPOSITORY[:TAG][@DIGEST]` or `oci:DIR[:TAG]`.
    pub(super) fn parse(text: &str, reach: &Reach<'_>) -> Result<Self, Problem> {
        match text.strip_prefix("oci:").filter(|rest| !rest.starts_with("//")) {
            Some(rest) => layout(rest).map(Self::Layout),
            None => repository(text, reach).map(Self::Registry),
        }
    }

    /// How people call it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Registry(repository) => repository.shown.clone(),
            Self::Layout(layout) => layout.shown(),
        }
    }

    /// The image that is meant.
    pub(super) async fn root(&self) -> Result<(Descriptor, Bytes), Problem> {
        match self {
            Self::Registry(repository) => self.manifest(&repository.selector).await,
            Self::Layout(layout) => self.manifest(&Selector::Digest(layout.root()?.digest)).await,
        }
    }

    /// A manifest, checked against its digest.
    pub(super) async fn manifest(&self, selector: &Selector) -> Result<(Descriptor, Bytes), Problem> {
        match (self, selector) {
            (Self::Registry(repository), selector) => {
                let found = repository.remote.manifest(&repository.name, selector).await;
                found.map_err(|error| remote_problem(&repository.shown, &error))
            }
            (Self::Layout(layout), Selector::Digest(digest)) => {
                layout.manifest(digest).map(|(descriptor, bytes)| (descriptor, bytes.into()))
            }
            (Self::Layout(layout), Selector::Tag(tag)) => Err(missing(format!("{} has no {tag}", layout.shown()))),
        }
    }

    /// Manifests whose subject is this digest; none where a registry cannot tell.
    pub(super) async fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Problem> {
        match self {
            Self::Registry(repository) => match repository.remote.referrers(&repository.name, digest, None).await {
                Err(error) if error.status() == Some(404) => Ok(Vec::new()),
                found => found.map_err(|error| remote_problem(&repository.shown, &error)),
            },
            Self::Layout(layout) => layout.referrers(digest),
        }
    }
}

fn layout(text: &str) -> Result<Layout, Problem> {
    let (directory, tag) = match text.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => {
            let tag: Tag = tag.parse().map_err(|error| usage(format!("oci:{text}: {error}")))?;
            (directory, Some(tag))
        }
        _ => (text, None),
    };
    if directory.is_empty() {
        return Err(usage(format!("oci:{text} names no directory")).hint("for example oci:./layout:v1"));
    }
    Ok(Layout::new(PathBuf::from(directory), tag))
}

fn repository(text: &str, reach: &Reach<'_>) -> Result<Repository, Problem> {
    let reference = Reference::parse(text).map_err(|error| usage(error.to_string()))?;
    let (selector, name) = (reference.selector(), reference.repository);
    let own = reach.client.base().clone();
    let own_credentials = || reach.client.user().map(|(username, password)| Credentials { username, password });
    let (url, credentials) = match &reference.registry {
        None => (own, own_credentials()),
        Some(host) => {
            let url = address(host, reach.plain_http)?;
            let credentials = if url.origin() == own.origin() { own_credentials() } else { None };
            (url, credentials.or_else(|| login(reach.logins, host)))
        }
    };
    let remote = Remote::new(reach.client.http().clone(), url, credentials);
    Ok(Repository { remote, name, selector, shown: text.to_owned() })
}

fn login(logins: Option<&AuthFile>, host: &str) -> Option<Credentials> {
    logins.and_then(|logins| logins.login(host))
}

fn address(host: &str, plain_http: bool) -> Result<Url, Problem> {
    let url: Url = format!("https://{host}").parse().map_err(|error| usage(format!("{host} is no host: {error}")))?;
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if plain_http || is_here {
        return format!("http://{host}").parse().map_err(|error| usage(format!("{host} is no host: {error}")));
    }
    Ok(url)
}

/// Something could not be copied or read.
pub(super) fn failed(detail: String) -> Problem {
    Problem::new(ErrorKind::Failed, errors::REGISTRY_COPY, detail)
}

/// What was named is not there.
pub(super) fn missing(detail: String) -> Problem {
    Problem::new(ErrorKind::NotFound, errors::ARTIFACT_MISSING, detail)
}

/// A registry said no, or nothing.
pub(super) fn remote_problem(shown: &str, error: &ClientError) -> Problem {
    let detail = format!("{shown}: {}", chain(error));
    match error.status() {
        Some(404) => Problem::new(ErrorKind::NotFound, errors::ARTIFACT_MISSING, detail),
        Some(status @ (401 | 403)) => {
            let kind = ErrorKind::of_http_status(status).unwrap_or(ErrorKind::Failed);
            Problem::new(kind, errors::REGISTRY_COPY, detail)
                .hint("logins come from --authfile for other registries, and from --user for the daemon's own")
        }
        Some(status) => {
            Problem::new(ErrorKind::of_http_status(status).unwrap_or(ErrorKind::Failed), errors::REGISTRY_COPY, detail)
        }
        None if matches!(error, ClientError::Login { .. }) => {
            Problem::new(ErrorKind::Unauthorized, errors::REGISTRY_COPY, detail)
                .hint("logins come from --authfile for other registries, and from --user for the daemon's own")
        }
        None if error.is_transient() || matches!(error, ClientError::GaveUp { .. }) => {
            Problem::new(ErrorKind::Unreachable, errors::REGISTRY_COPY, detail)
        }
        None => Problem::new(ErrorKind::Failed, errors::REGISTRY_COPY, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_a_directory_and_maybe_a_tag() {
        let parsed = |text: &str| layout(text).map(|layout| layout.shown()).ok();
        assert_eq!(parsed("./x:v1").as_deref(), Some("oci:./x:v1"));
        assert_eq!(parsed("/a:b/c").as_deref(), Some("oci:/a:b/c"));
        assert_eq!(parsed("x").as_deref(), Some("oci:x"));
        assert_eq!((parsed(""), parsed(":v1"), parsed("x:-")), (None, None, None));
    }

    #[test]
    fn plain_http_is_for_this_machine_or_on_demand() {
        let url = |host: &str, plain| address(host, plain).unwrap().to_string();
        assert_eq!(url("127.0.0.1:5000", false), "http://127.0.0.1:5000/");
        assert_eq!(url("[::1]:5000", false), "http://[::1]:5000/");
        assert_eq!(url("localhost", false), "http://localhost/");
        assert_eq!(url("registry.example", false), "https://registry.example/");
        assert_eq!(url("registry.example", true), "http://registry.example/");
    }
}
