//! Pulls of the controller's own registry by machines: who they are, what they may pull, and what must stay for them.

use oci_registry::{Digest, RepositoryName};
use secrecy::{ExposeSecret as _, SecretString};

use crate::context::Metal;
use crate::model::{JobId, Status};
use crate::store::{Error, MetalStore};
use crate::tokens::Purpose;

impl Metal {
    /// Whether a user of this name is the maintenance OS of a job: `job-<id>`.
    pub fn is_job_user(user: &str) -> bool {
        job_of(user).is_some()
    }

    /// The repository that the maintenance OS of a running job may pull from: that of its artifact. `None` for a wrong
    /// token, a job that does not run, and an artifact that is elsewhere.
    pub async fn job_may_pull(&self, user: &str, token: &SecretString) -> Result<Option<RepositoryName>, Error> {
        let Some(id) = job_of(user) else { return Ok(None) };
        let Some(job) = self.store.job(id).await? else { return Ok(None) };
        let token = token.expose_secret();
        let proved = self.webhook.check_token(token, Purpose::Registry, job.id, job.attempt).is_some();
        let own = job.artifact.filter(|artifact| artifact.registry.is_none());
        let repository = own.and_then(|artifact| artifact.repository.parse().ok());
        Ok(repository.filter(|_| proved && job.status == Status::Provisioning))
    }
}

impl MetalStore {
    /// Manifests of the controller's own registry that jobs which are not complete install.
    pub async fn manifests_in_use(&self) -> Result<Vec<(RepositoryName, Digest)>, Error> {
        let artifacts = self.artifacts_in_use().await?.into_iter();
        // What does not parse was never in a registry.
        Ok(artifacts
            .filter_map(|artifact| Some((artifact.repository.parse().ok()?, artifact.digest.parse().ok()?)))
            .collect())
    }
}

fn job_of(user: &str) -> Option<JobId> {
    user.strip_prefix("job-")?.parse().ok()
}
