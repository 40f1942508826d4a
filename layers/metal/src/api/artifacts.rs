//! `/api/v1/artifacts`: what the controller's registry holds, by name.

use axum::extract::State;
use oci_registry::Selector;
use serde::{Deserialize, Serialize};
use web::{Json, Problem};

use super::Shared;

/// What the registry holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArtifactList {
    /// In order of their names.
    pub artifacts: Vec<ArtifactView>,
}

/// A tag and what it points to.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Repository and tag.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Media type of its manifest.
    pub media_type: String,
    /// Size of its manifest in bytes.
    pub size: u64,
}

pub(super) async fn list(State(metal): Shared) -> Result<Json<ArtifactList>, Problem> {
    let mut artifacts = Vec::new();
    if let Some(registry) = &metal.registry {
        for repository in registry.repositories().await.map_err(|error| Problem::internal(&error))? {
            for tag in registry.tags(&repository).await.map_err(|error| Problem::internal(&error))? {
                let name = format!("{repository}:{tag}");
                let found = registry.resolve(&repository, &Selector::Tag(tag)).await;
                if let Some(found) = found.map_err(|error| Problem::internal(&error))? {
                    let digest = found.digest.to_string();
                    artifacts.push(ArtifactView { name, digest, media_type: found.media_type, size: found.size });
                }
            }
        }
    }
    Ok(Json(ArtifactList { artifacts }))
}
