//! OS images as OCI artifacts: one layer, a root file system as a tar archive.

use std::collections::BTreeMap;

use crate::{Descriptor, Digest, Manifest, media_type};

/// `artifactType` of an OS image. A puller may insist on it, so that a container image is not installed by mistake.
pub const OS_IMAGE: &str = "application/vnd.cairn.os-image.v1";

/// How the layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// Media type of a layer with this compression (image-spec, layer.md).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The compression that a layer's media type names; `None` for what is no tar layer.
    pub fn of_media_type(text: &str) -> Option<Self> {
        match text {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
            _ => [Self::None, Self::Gzip, Self::Zstd].into_iter().find(|known| known.media_type() == text),
        }
    }
}

/// What goes into the manifest of an OS image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsImage {
    /// Digest of the layer as stored, that is, compressed.
    pub layer: Digest,
    /// Size of the layer as stored, in bytes.
    pub size: u64,
    /// Compression of the layer.
    pub compression: Compression,
    /// `org.opencontainers.image.title`: the name of the file.
    pub title: Option<String>,
    /// `org.opencontainers.image.created`: RFC 3339.
    pub created: Option<String>,
}

impl OsImage {
    /// The manifest: config is the empty descriptor, whose content `{}` must be pushed beside the layer.
    pub fn manifest(&self) -> Manifest {
        let mut layer = Descriptor::new(self.compression.media_type(), self.layer.clone(), self.size);
        layer.annotations = annotations([("org.opencontainers.image.title", &self.title)]);
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(OS_IMAGE.to_owned()),
            config: Descriptor::empty(),
            layers: vec![layer],
            subject: None,
            annotations: annotations([("org.opencontainers.image.created", &self.created)]),
        }
    }

    /// The manifest's bytes: the same fields give the same bytes, and so the same digest.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.manifest()).expect("strings and numbers can always be written as JSON")
    }
}

fn annotations<const N: usize>(entries: [(&str, &Option<String>); N]) -> BTreeMap<String, String> {
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_what_the_specification_says() {
        let image = OsImage {
            layer: Digest::sha256_of(b"layer"),
            size: 5,
            compression: Compression::Zstd,
            title: Some("rootfs.tar.zst".to_owned()),
            created: None,
        };
        let json: serde_json::Value = serde_json::from_slice(&image.manifest_bytes()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.cairn.os-image.v1",
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                    "size": 2
                },
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
                    "digest": Digest::sha256_of(b"layer").to_string(),
                    "size": 5,
                    "annotations": {"org.opencontainers.image.title": "rootfs.tar.zst"}
                }]
            })
        );
        assert_eq!(
            Compression::of_media_type(json["layers"][0]["mediaType"].as_str().unwrap()),
            Some(Compression::Zstd)
        );
        assert_eq!(Compression::of_media_type("text/plain"), None);
    }
}
