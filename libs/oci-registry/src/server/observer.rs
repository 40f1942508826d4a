//! What is counted and recorded: a hook.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::Asker;
use super::route::Route;
use crate::{Digest, RepositoryName};

/// Status of a request whose client went away before there was an answer.
const CLIENT_GONE: u16 = 499;

/// Hears what the registry does. Every method has an empty default. None may block.
pub trait Observer: Send + Sync {
    /// So many bytes of a blob have come in.
    fn uploaded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// So many bytes of a blob have gone out.
    fn downloaded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A request begins to send a blob's bytes.
    fn upload_started(&self) {}

    /// That request is over, well or not.
    fn upload_ended(&self) {}

    /// A request is over, the body of its answer included. Status 499: the client went away before the answer.
    fn request(&self, route: Route, status: u16, duration: Duration) {
        let _ = (route, status, duration);
    }

    /// Somebody has done something that is worth a record: it is done when this is called, or, for what is pulled,
    /// begins to be sent.
    fn event(&self, event: &Event<'_>) {
        let _ = event;
    }
}

/// What somebody did.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The request.
    pub asker: Asker<'a>,
    /// Who, as the access hook named it; empty when it was refused.
    pub user: &'a str,
    /// What.
    pub action: EventAction,
    /// Where.
    pub repository: Option<&'a RepositoryName>,
    /// Tag or digest as asked for; the repository that a blob was mounted from.
    pub reference: Option<&'a str>,
    /// The content.
    pub digest: Option<&'a Digest>,
    /// Its size in bytes; of a part of a blob, the part's.
    pub size: Option<u64>,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventAction {
    /// A manifest was read.
    PullManifest,
    /// A blob, or a part of it, was read.
    PullBlob,
    /// A blob was uploaded.
    PushBlob,
    /// A blob of another repository was taken over.
    MountBlob,
    /// A manifest was stored or a tag set.
    PushManifest,
    /// A manifest and its tags were removed.
    DeleteManifest,
    /// A tag was removed.
    DeleteTag,
    /// A blob was removed from a repository.
    DeleteBlob,
    /// Somebody known may not do this, or the credentials were wrong.
    Denied,
}

impl EventAction {
    /// The action's name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PullManifest => "pull_manifest",
            Self::PullBlob => "pull_blob",
            Self::PushBlob => "push_blob",
            Self::MountBlob => "mount_blob",
            Self::PushManifest => "push_manifest",
            Self::DeleteManifest => "delete_manifest",
            Self::DeleteTag => "delete_tag",
            Self::DeleteBlob => "delete_blob",
            Self::Denied => "denied",
        }
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// Reports a request when it is dropped.
pub(super) struct RequestReport {
    observer: Arc<dyn Observer>,
    route: Route,
    pub(super) status: u16,
    begun: Instant,
}

impl RequestReport {
    pub(super) fn new(observer: Arc<dyn Observer>, route: Route) -> Self {
        Self { observer, route, status: CLIENT_GONE, begun: Instant::now() }
    }
}

impl Drop for RequestReport {
    fn drop(&mut self) {
        self.observer.request(self.route, self.status, self.begun.elapsed());
    }
}
