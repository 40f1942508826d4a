//! What manifests say, as far as a registry reads them. Their bytes are kept as they came.

use std::collections::BTreeMap;

use super::StorageError;
use crate::{Descriptor, Index, Manifest, media_type};

/// What a manifest says about other content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Configuration and layers; what an index lists that is no manifest.
    pub(super) blobs: Vec<Descriptor>,
    /// What an index lists.
    pub(super) manifests: Vec<Descriptor>,
    pub(super) subject: Option<Descriptor>,
    /// Of an image manifest that has none of its own: the type of its configuration.
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Reads what a manifest names. Content with `urls` may live elsewhere and is not asked for.
pub(super) fn contents_of(media_type: &str, bytes: &[u8]) -> Result<Contents, StorageError> {
    let invalid = |error: serde_json::Error| StorageError::ManifestInvalid(error.to_string());
    let is_here = |descriptor: &Descriptor| descriptor.urls.is_empty();
    let (declared, version, contents) = match media_type {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            let Manifest { schema_version, media_type, artifact_type, config, layers, subject, annotations } =
                serde_json::from_slice(bytes).map_err(invalid)?;
            let artifact_type = artifact_type.filter(|kind| !kind.is_empty()).or(Some(config.media_type.clone()));
            let blobs = std::iter::once(config).chain(layers).filter(is_here).collect();
            let contents = Contents { blobs, manifests: Vec::new(), subject, artifact_type, annotations };
            (media_type, schema_version, contents)
        }
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
            let Index { schema_version, media_type, artifact_type, manifests, subject, annotations } =
                serde_json::from_slice(bytes).map_err(invalid)?;
            let artifact_type = artifact_type.filter(|kind| !kind.is_empty());
            // Build caches are indexes that list layers.
            let (manifests, blobs) = manifests
                .into_iter()
                .filter(is_here)
                .partition(|listed| media_type::MANIFESTS.contains(&listed.media_type.as_str()));
            (media_type, schema_version, Contents { blobs, manifests, subject, artifact_type, annotations })
        }
        other => return Err(StorageError::ManifestInvalid(format!("media type {other:?} is not known"))),
    };
    if version != 2 {
        return Err(StorageError::ManifestInvalid(format!("schemaVersion is {version}, not 2")));
    }
    match declared {
        Some(declared) if declared != media_type => {
            Err(StorageError::ManifestInvalid(format!("it calls itself {declared:?} but was sent as {media_type:?}")))
        }
        _ => Ok(contents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(media_type: &str, text: &str) -> String {
        match contents_of(media_type, text.as_bytes()) {
            Err(StorageError::ManifestInvalid(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_invalid_manifest_is_refused_with_its_reason() {
        let descriptor = serde_json::to_string(&Descriptor::empty()).unwrap();
        let manifest = |version: u32, kind: &str| {
            format!(r#"{{"schemaVersion":{version},"mediaType":"{kind}","config":{descriptor},"layers":[]}}"#)
        };
        assert!(contents_of(media_type::OCI_MANIFEST, manifest(2, media_type::OCI_MANIFEST).as_bytes()).is_ok());
        let empty = contents_of(media_type::OCI_INDEX, br#"{"schemaVersion":2,"manifests":null,"annotations":null}"#);
        assert!(empty.unwrap().manifests.is_empty());
        assert!(reason(media_type::OCI_MANIFEST, &manifest(1, media_type::OCI_MANIFEST)).contains("schemaVersion"));
        assert!(reason(media_type::OCI_MANIFEST, &manifest(2, media_type::DOCKER_MANIFEST)).contains("calls itself"));
        assert!(reason("text/plain", "{}").contains("not known"));
        assert!(reason(media_type::OCI_INDEX, "{}").contains("schemaVersion"));
        assert!(reason(media_type::OCI_MANIFEST, "not json").contains("expected"));
        assert!(
            reason(
                media_type::OCI_INDEX,
                r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:../..","size":1}]}"#
            )
            .contains("digest")
        );
    }
}
