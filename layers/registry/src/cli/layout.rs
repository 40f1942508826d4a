//! OCI image layouts on disk (image-spec 1.1, image-layout.md): read and written for `copy` and `inspect`.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use oci_registry::{Algorithm, Descriptor, Digest, Tag, media_type};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempPath};
use web::Problem;

use super::end::{failed, missing};

/// Annotation of an index entry: its tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Held by whoever changes the layout.
const LOCK: &str = ".lock";
/// Largest manifest or index that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// A layout, and which of its images is meant.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
    tag: Option<Tag>,
}

impl Layout {
    pub(super) fn new(root: PathBuf, tag: Option<Tag>) -> Self {
        Self { root, tag }
    }

    pub(super) fn shown(&self) -> String {
        match &self.tag {
            Some(tag) => format!("oci:{}:{tag}", self.root.display()),
            None => format!("oci:{}", self.root.display()),
        }
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// The image that is meant: the tag's, or the only one.
    pub(super) fn root(&self) -> Result<Descriptor, Problem> {
        let entries = self.entries()?;
        let mut fitting = entries.iter().filter(|entry| match &self.tag {
            Some(tag) => entry["annotations"][REF_NAME] == tag.as_str(),
            None => true,
        });
        let (one, another) = (fitting.next(), fitting.next());
        match (one, another) {
            (Some(entry), None) => descriptor(entry, &self.shown()),
            (None, _) => Err(missing(format!("{} has no such image", self.shown()))),
            (Some(_), Some(_)) => {
                Err(missing(format!("{} has several images", self.shown())).hint("say which: oci:DIR:TAG"))
            }
        }
    }

    /// A manifest's bytes, checked against its digest.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<(Descriptor, Vec<u8>), Problem> {
        let path = self.blob_path(digest);
        let bytes = read(&path)?;
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            return Err(failed(format!("{} does not have the content that its name promises", path.display())));
        }
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("{} is no manifest: {error}", path.display())))?;
        let guess = if json["manifests"].is_array() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        let declared = json["mediaType"].as_str().unwrap_or(guess).to_owned();
        Ok((Descriptor::new(declared, digest.clone(), bytes.len() as u64), bytes))
    }

    /// Manifests of the index whose subject is this digest.
    pub(super) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Problem> {
        let mut found = Vec::new();
        for entry in self.entries()? {
            let mut descriptor = descriptor(&entry, &self.shown())?;
            let (_, bytes) = self.manifest(&descriptor.digest)?;
            let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if json["subject"]["digest"] == subject.to_string() {
                let kind = json["artifactType"].as_str().or(json["config"]["mediaType"].as_str());
                descriptor.artifact_type = kind.map(str::to_owned);
                found.push(descriptor);
            }
        }
        Ok(found)
    }

    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.blob_path(digest)).is_ok_and(|metadata| metadata.len() == size)
    }

    /// Whether there is nothing at all where it is to be.
    pub(super) fn is_new(&self) -> bool {
        !self.root.exists()
    }

    /// A file of this copy's own beside where a blob is to be.
    pub(super) fn unfinished(&self, digest: &Digest) -> Result<TempPath, Problem> {
        let _lock = self.lock()?;
        let directory = self.prepare(digest.algorithm())?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(digest.hex()).suffix(".partial").permissions(Permissions::from_mode(0o644));
        let file = builder.tempfile_in(&directory);
        file.map(NamedTempFile::into_temp_path)
            .map_err(|error| failed(format!("cannot create a file in {}: {error}", directory.display())))
    }

    /// Puts a manifest in.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Problem> {
        let _lock = self.lock()?;
        self.prepare(digest.algorithm())?;
        write(&self.blob_path(digest), bytes)
    }

    /// Takes a layout away in which there is nothing yet. What cannot be removed stays, as it is another copy's.
    pub(super) fn abandon(&self) {
        let Ok(_lock) = self.lock() else { return };
        let blobs = self.root.join("blobs");
        for algorithm in Algorithm::ALL {
            let _ = std::fs::remove_dir(blobs.join(algorithm.name()));
        }
        let _ = std::fs::remove_dir(&blobs);
        if blobs.exists() || self.root.join("index.json").exists() {
            return;
        }
        for name in ["oci-layout", LOCK] {
            let _ = std::fs::remove_file(self.root.join(name));
        }
        let _ = std::fs::remove_dir(&self.root);
    }

    /// Makes the version file and the directory of these blobs. The caller holds the lock.
    fn prepare(&self, algorithm: Algorithm) -> Result<PathBuf, Problem> {
        let directory = self.root.join("blobs").join(algorithm.name());
        std::fs::create_dir_all(&directory)
            .map_err(|error| failed(format!("cannot create {}: {error}", directory.display())))?;
        let version = self.root.join("oci-layout");
        if !version.exists() {
            write(&version, VERSION.as_bytes())?;
        }
        Ok(directory)
    }

    /// Keeps other copies out while the layout is changed, until the file is dropped.
    fn lock(&self) -> Result<File, Problem> {
        let path = self.root.join(LOCK);
        let wrong = |error: std::io::Error| failed(format!("cannot lock {}: {error}", path.display()));
        loop {
            std::fs::create_dir_all(&self.root).map_err(wrong)?;
            let file = match File::options().create(true).append(true).open(&path) {
                Ok(file) => file,
                // Another copy has just taken the directory away.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(wrong(error)),
            };
            file.lock().map_err(wrong)?;
            let held = file.metadata().map_err(wrong)?;
            // Who held it before may have removed the file: then the next one locks another.
            if std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
                return Ok(file);
            }
        }
    }

    /// Lists a manifest in the index: under the layout's tag, which leaves what it pointed to, or unnamed.
    pub(super) fn list(&self, descriptor: &Descriptor, named: bool) -> Result<(), Problem> {
        let _lock = self.lock()?;
        let mut entries = if self.root.join("index.json").exists() { self.entries()? } else { Vec::new() };
        let digest = descriptor.digest.to_string();
        let tag = self.tag.as_ref().filter(|_| named).map(Tag::as_str);
        match tag {
            Some(tag) => entries.retain(|entry| entry["annotations"][REF_NAME] != tag),
            None if entries.iter().any(|entry| entry["digest"] == digest) => return Ok(()),
            None => {}
        }
        let mut entry = json!({
            "mediaType": descriptor.media_type, "digest": digest, "size": descriptor.size,
        });
        if let Some(tag) = tag {
            entry["annotations"] = json!({ REF_NAME: tag });
        }
        entries.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
        write(&self.root.join("index.json"), index.to_string().as_bytes())
    }

    fn entries(&self) -> Result<Vec<Value>, Problem> {
        let path = self.root.join("index.json");
        if !path.exists() {
            return Err(missing(format!("{} is no OCI image layout", self.root.display())));
        }
        let index: Value = serde_json::from_slice(&read(&path)?)
            .map_err(|error| failed(format!("{} is no index: {error}", path.display())))?;
        Ok(index["manifests"].as_array().cloned().unwrap_or_default())
    }
}

fn descriptor(entry: &Value, shown: &str) -> Result<Descriptor, Problem> {
    serde_json::from_value(entry.clone())
        .map_err(|error| failed(format!("the index of {shown} has an entry that cannot be read: {error}")))
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    use std::io::Read as _;
    let wrong = |error: std::io::Error| failed(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(wrong)?.take(LARGEST).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    host::write_atomic(path, bytes, 0o644).map_err(|error| failed(cairn_core::chain(&error)))
}
