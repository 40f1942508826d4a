//! Who may do what: a hook.

use std::time::Duration;

use axum::http::{Extensions, HeaderMap};
use futures::future::BoxFuture;

use crate::RepositoryName;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ask whether this is a registry.
    Ping,
    /// Read blobs, manifests and tags.
    Pull,
    /// Write blobs, manifests and tags.
    Push,
    /// Remove manifests and tags.
    Delete,
}

/// The answer of [`Access`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on; the name goes into the log.
    Allow {
        /// Who it is.
        user: String,
    },
    /// 401 with this value of `WWW-Authenticate`: nobody has said who they are, or not credibly.
    Challenge(String),
    /// 403: known, but not allowed.
    Deny,
    /// 429 with `Retry-After`: nobody is asked for a password from there for so long. That is no denial.
    Wait(Duration),
}

/// Who asks: what a request brings to prove it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Headers of the request.
    pub headers: &'a HeaderMap,
    /// What the layers in front of the registry have put beside the request, such as the client's address.
    pub extensions: &'a Extensions,
    /// For a mount: the repository that the content comes from. Whether it may be read is asked on its own; this is for
    /// a challenge that names all of what the client needs.
    pub from: Option<&'a RepositoryName>,
}

/// Decides over every request before anything else is looked at.
pub trait Access: Send + Sync {
    /// Decides; `repository` is `None` for a ping, and for a pull of the list of all repositories.
    fn check<'a>(
        &'a self,
        asker: Asker<'a>,
        repository: Option<&'a RepositoryName>,
        action: Action,
    ) -> BoxFuture<'a, Decision>;

    /// Whether a list of all repositories tells this one to somebody who may see the list; unless said otherwise, those
    /// that may be pulled. A token for the list need not be one for what is on it.
    fn lists<'a>(&'a self, asker: Asker<'a>, repository: &'a RepositoryName) -> BoxFuture<'a, bool> {
        Box::pin(
            async move { matches!(self.check(asker, Some(repository), Action::Pull).await, Decision::Allow { .. }) },
        )
    }
}

/// Everybody may do everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl Access for Anonymous {
    fn check<'a>(&'a self, _: Asker<'a>, _: Option<&'a RepositoryName>, _: Action) -> BoxFuture<'a, Decision> {
        Box::pin(async { Decision::Allow { user: "anonymous".to_owned() } })
    }
}
