//! The task ISO of a job: what the maintenance OS needs to know, on a medium that any machine can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use iso9660::Image;
use jiff::Timestamp;
use recipe::callback::Callback;
use recipe::network::Network;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::media::Room;
use crate::model::{JobId, TaskIso};

/// Largest task ISO; also the room that the maintenance ISO keeps for it.
pub const LIMIT: u64 = 10 * 1024 * 1024;

/// Everything that goes onto the medium.
pub struct Contents<'a> {
    /// The job.
    pub job: JobId,
    /// The recipe as JSON, normalised.
    pub recipe: &'a recipe::Recipe,
    /// Where to report and what to pull.
    pub callback: &'a Callback,
    /// The server's network, if its record has one.
    pub network: Option<&'a Network>,
    /// All dates on the medium.
    pub created_at: Timestamp,
}

/// The medium could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part is no JSON.
    #[error("cannot write {file} of the task ISO")]
    Json {
        /// Name on the medium.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The image could not be laid out.
    #[error("cannot lay the task ISO out")]
    Image(#[source] iso9660::Error),
    /// It would not fit into the room that the maintenance ISO keeps.
    #[error("the task ISO has {size} bytes, {LIMIT} are allowed")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// Its folder could not be made.
    #[error("cannot create {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It could not be stored.
    #[error("cannot store the task ISO")]
    Write(#[source] host::FileError),
}

/// `task.iso.meta.json` beside the medium (design 023).
#[derive(Debug, Serialize)]
struct Sidecar<'a> {
    job_id: JobId,
    path: &'a Path,
    sha256: &'a str,
    size_bytes: u64,
    volume_id: &'a str,
    tool: &'static str,
    tool_version: &'static str,
    source_date_epoch: i64,
    created_at: Timestamp,
}

/// Volume id of a job's medium: `TASK_` and the job id, cut to the 32 characters that ISO 9660 has.
pub fn volume_id(job: JobId) -> String {
    let mut id = format!("TASK_{}", job.as_uuid().simple().to_string().to_uppercase());
    id.truncate(32);
    id
}

/// The bytes of the medium: the same for the same contents, wherever they are made.
pub fn image(contents: &Contents<'_>) -> Result<Vec<u8>, Error> {
    let mut image = Image::builder(&volume_id(contents.job), contents.created_at.as_second()).map_err(Error::Image)?;
    let mut add = |name: &str, bytes: Vec<u8>| image.file(name, bytes).map(|_| ()).map_err(Error::Image);
    add("recipe.json", json("recipe.json", contents.recipe)?)?;
    add("recipe.schema.json", recipe::SCHEMA.as_bytes().to_vec())?;
    add("callback.json", json("callback.json", contents.callback)?)?;
    if let Some(network) = contents.network {
        add("network.json", json("network.json", network)?)?;
    }
    for (name, payload) in [
        ("user-data", &contents.recipe.user_data),
        ("unattend.xml", &contents.recipe.unattend_xml),
        ("ks.cfg", &contents.recipe.ks_cfg),
    ] {
        if let Some(payload) = payload {
            add(name, payload.as_str().as_bytes().to_vec())?;
        }
    }
    let bytes = image.build().map_err(Error::Image)?;
    let size = bytes.len() as u64;
    if size > LIMIT { Err(Error::TooLarge { size }) } else { Ok(bytes) }
}

/// Writes `<directory>/<job>/task.iso` (0640: it holds tokens) and its sidecar.
pub fn store(directory: &Path, contents: &Contents<'_>, url_expires: i64) -> Result<TaskIso, Error> {
    let bytes = image(contents)?;
    let folder = directory.join(contents.job.to_string());
    create_folder(&folder)?;
    let path = folder.join("task.iso");
    let sha256 = hex(&Sha256::digest(&bytes));
    let sidecar = Sidecar {
        job_id: contents.job,
        path: &path,
        sha256: &sha256,
        size_bytes: bytes.len() as u64,
        volume_id: &volume_id(contents.job),
        tool: "cairn",
        tool_version: env!("CARGO_PKG_VERSION"),
        source_date_epoch: contents.created_at.as_second(),
        created_at: contents.created_at,
    };
    let text = json("task.iso.meta.json", &sidecar)?;
    host::write_atomic(&path, &bytes, 0o640).map_err(Error::Write)?;
    host::write_atomic(&sidecar_path(&path), &text, 0o640).map_err(Error::Write)?;
    Ok(TaskIso { path: path.display().to_string(), size_bytes: bytes.len() as u64, sha256, url_expires })
}

/// Where a maintenance ISO keeps room for a task.
pub fn room(maintenance: &Path) -> Result<Room, RoomError> {
    let file = File::open(maintenance).map_err(|source| RoomError::Open { path: maintenance.to_owned(), source })?;
    let unusable = |source| RoomError::Read { path: maintenance.to_owned(), source };
    let extent = iso9660::Reader::open(file).map_err(unusable)?.find("/TASK.IMG").map_err(unusable)?;
    Ok(Room { offset: extent.offset, length: extent.length })
}

/// A maintenance ISO cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It has no room for a task, or is no ISO 9660 image.
    #[error("{path} is no maintenance image")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: iso9660::ReadError,
    },
}

fn sidecar_path(iso: &Path) -> PathBuf {
    iso.with_file_name("task.iso.meta.json")
}

fn create_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(|source| Error::Folder { path: path.to_owned(), source })
}

fn json<T: Serialize>(file: &'static str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value).map_err(|source| Error::Json { file, source })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Purpose, Secrets};

    fn contents(recipe: &recipe::Recipe, job: &str, second: i64) -> Vec<u8> {
        let job: JobId = job.parse().unwrap();
        let secrets = Secrets::new("a fixed secret".to_owned().into(), None);
        let url = |path: &str| format!("http://192.0.2.1:8080{path}").parse().unwrap();
        let callback = Callback {
            job_id: job.as_uuid(),
            attempt: 1,
            server_serial: "ABC123".to_owned(),
            webhook_url: url("/api/v1/status-webhook/ABC123"),
            progress_url: url(&format!("/api/v1/jobs/{job}/progress")),
            first_boot_url: url(&format!("/api/v1/jobs/{job}/first-boot")),
            webhook_token: secrets.token(Purpose::Webhook, job, 1),
            first_boot_token: secrets.token(Purpose::FirstBoot, job, 1),
            artifact: None,
        };
        let created_at = Timestamp::from_second(second).unwrap();
        image(&Contents { job, recipe, callback: &callback, network: None, created_at }).unwrap()
    }

    fn recipe() -> recipe::Recipe {
        let document = serde_json::json!({
            "task_target": "install-linux.target",
            "target_disk": {"serial": "S3Z8NB0K"},
            "oci_url": "os-images/debian:trixie",
            "partition_layout": [
                {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "EFI"},
                {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root", "mountpoint": "/"}
            ],
            "user_data": "#cloud-config\nhostname: web-1\n"
        });
        recipe::parse(&document).unwrap()
    }

    const JOB: &str = "0198a0e4-1f00-7000-8000-000000000001";

    /// Changed by hand only: media of running jobs change with it.
    const GOLDEN: &str = "36622881fd9c9943c6665b43c99d86c41c7c16df8589f86425d3034016320304";

    #[test]
    fn a_recipe_a_job_and_a_time_make_one_medium() {
        let one = contents(&recipe(), JOB, 1_760_000_000);
        assert_eq!(one, contents(&recipe(), JOB, 1_760_000_000));
        assert_eq!(hex(&Sha256::digest(&one)), GOLDEN);
        assert_ne!(one, contents(&recipe(), JOB, 1_760_000_001));
    }

    #[test]
    fn the_medium_reads_back_with_the_jobs_label() {
        let bytes = contents(&recipe(), JOB, 0);
        let mut reader = iso9660::Reader::open(std::io::Cursor::new(&bytes)).unwrap();
        assert_eq!(reader.volume_id(), volume_id(JOB.parse().unwrap()));
        assert_eq!(reader.volume_id(), "TASK_0198A0E41F00700080000000000");
        let names: Vec<_> = reader.list("/").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["callback.json", "recipe.json", "recipe.schema.json", "user-data"]);
    }

    #[test]
    fn a_medium_has_to_fit_into_its_room() {
        let mut recipe = recipe();
        recipe.notes = Some("x".repeat(usize::try_from(LIMIT).unwrap()));
        let job: JobId = JOB.parse().unwrap();
        let url: url::Url = "http://192.0.2.1/".parse().unwrap();
        let callback = Callback {
            job_id: job.as_uuid(),
            attempt: 1,
            server_serial: "A".to_owned(),
            webhook_url: url.clone(),
            progress_url: url.clone(),
            first_boot_url: url,
            webhook_token: String::new(),
            first_boot_token: String::new(),
            artifact: None,
        };
        let created_at = Timestamp::UNIX_EPOCH;
        let made = image(&Contents { job, recipe: &recipe, callback: &callback, network: None, created_at });
        assert!(matches!(made, Err(Error::TooLarge { .. } | Error::Image(_))));
    }
}
