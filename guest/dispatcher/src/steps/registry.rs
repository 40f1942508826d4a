//! The artifact's registry as a source of layers.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use oci_registry::artifact::{Compression, OS_IMAGE};
use oci_registry::client::{Client, ClientError, Credentials, VerifyingStream};
use oci_registry::{Descriptor, Digest, Manifest, RepositoryName, Selector};
use recipe::callback::Artifact;
use secrecy::SecretString;

use super::image::{ImageSource, Layer, SourceError};
use crate::failure::{Failure, code};
use crate::http::{self, Trust};
use cairn_core::chain;

/// Longest silence of the registry; then the transfer is taken up again.
const SILENCE: Duration = Duration::from_secs(60);

/// A registry that one artifact is pulled from, always by digest.
pub struct Registry {
    client: Client,
    repository: RepositoryName,
    digest: Digest,
    runtime: tokio::runtime::Runtime,
}

impl Registry {
    /// A client for this artifact. Nothing is asked yet.
    pub fn new(artifact: &Artifact) -> Result<Self, Failure> {
        let trust = artifact.ca_pem.as_deref().map_or(Trust::System, Trust::Only);
        let http = http::client(None, SILENCE, trust)?;
        let credentials = artifact.credentials.as_ref().map(|credentials| Credentials {
            username: credentials.username.clone(),
            password: SecretString::from(credentials.password.as_str()),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            client: Client::new(http, artifact.registry.clone(), credentials),
            repository: artifact.repository.parse().map_err(Failure::of(code::ARTIFACT_UNSUPPORTED))?,
            digest: artifact.digest.parse().map_err(Failure::of(code::ARTIFACT_UNSUPPORTED))?,
            runtime: runtime.map_err(Failure::of(code::ARTIFACT_UNREACHABLE))?,
        })
    }
}

impl ImageSource for Registry {
    fn layers(&self) -> Result<Vec<Layer>, SourceError> {
        let selector = Selector::Digest(self.digest.clone());
        let pulled = self.runtime.block_on(self.client.manifest(&self.repository, &selector));
        let (_, bytes) = pulled.map_err(|error| source_error(&error))?;
        let unsupported = |message: String| SourceError::Source { code: code::ARTIFACT_UNSUPPORTED, message };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| unsupported(format!("{} is no image manifest: {error}", self.digest)))?;
        // Later layers of a container image delete files of earlier ones by marks that tar does not know.
        if manifest.layers.is_empty()
            || manifest.layers.len() > 1 && manifest.artifact_type.as_deref() != Some(OS_IMAGE)
        {
            let count = manifest.layers.len();
            return Err(unsupported(format!(
                "{} has {count} layers where one root file system was expected",
                self.digest
            )));
        }
        let layer = |descriptor: &Descriptor| {
            let compression = Compression::of_media_type(&descriptor.media_type)
                .ok_or_else(|| unsupported(format!("a layer of type {} is no tar archive", descriptor.media_type)))?;
            Ok(Layer { digest: descriptor.digest.to_string(), size: descriptor.size, compression })
        };
        manifest.layers.iter().map(layer).collect()
    }

    fn copy(&self, layer: &Layer, to: &mut dyn Write) -> Result<(), SourceError> {
        let digest: Digest = layer.digest.parse().map_err(|error: oci_registry::InvalidDigest| {
            SourceError::Source { code: code::ARTIFACT_UNSUPPORTED, message: error.to_string() }
        })?;
        let descriptor = Descriptor::new(layer.compression.media_type(), digest, layer.size);
        let mut stream = self.client.verified_blob(&self.repository, &descriptor);
        self.runtime.block_on(async {
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(|error| source_error(&error))?;
                // Only this task runs on the runtime: tar's pace is meant to hold the transfer back.
                if let Err(error) = to.write_all(&bytes) {
                    return Err(damage(&mut stream).await.unwrap_or(SourceError::Write(error)));
                }
            }
            Ok(())
        })
    }
}

/// tar stops early when what it gets makes no sense. Whether the registry sent it so is known at the layer's end.
async fn damage(stream: &mut VerifyingStream) -> Option<SourceError> {
    while let Some(bytes) = stream.next().await {
        if let Err(error) = bytes {
            return Some(source_error(&error)).filter(is_mismatch);
        }
    }
    None
}

fn is_mismatch(error: &SourceError) -> bool {
    matches!(error, SourceError::Source { code, .. } if *code == code::ARTIFACT_DIGEST_MISMATCH)
}

fn source_error(error: &ClientError) -> SourceError {
    let code = match error {
        ClientError::DigestMismatch { .. } | ClientError::SizeMismatch { .. } => code::ARTIFACT_DIGEST_MISMATCH,
        ClientError::Login { .. } => code::ARTIFACT_REFUSED,
        _ => match error.status() {
            Some(404) => code::ARTIFACT_MISSING,
            Some(401 | 403) => code::ARTIFACT_REFUSED,
            _ => code::ARTIFACT_UNREACHABLE,
        },
    };
    SourceError::Source { code, message: chain(error) }
}
