//! The directory of one VM.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Identity, Lock, Order, Owner, Totals};

/// The process of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// Directories of its control group, one for each hierarchy.
    pub control_groups: Vec<PathBuf>,
    /// Limits of the order that this host cannot set: `memory`, `cpu`, `tasks`.
    #[serde(default)]
    pub unlimited: Vec<String>,
}

/// A keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Which process it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// The process that it keeps has become its program, and its output is kept.
    pub at_work: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody was there to see it.
    Unknown,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// When the keeper saw it.
    pub time: Timestamp,
    /// Why it was never begun; then `exit` is 126.
    #[serde(default)]
    pub not_begun: Option<String>,
}

/// The directory of one VM. Its files belong to whom it belongs to.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// At this place, whether it is there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// FIFO that takes the output of the process.
    pub fn output(&self) -> PathBuf {
        self.path.join("console.fifo")
    }

    /// FIFO that the process reads.
    pub fn input(&self) -> PathBuf {
        self.path.join("console.in")
    }

    /// Takes the right to work here.
    pub fn lock(&self) -> Result<Lock, Error> {
        Lock::acquire(&self.path)
    }

    /// Whom the directory belongs to.
    pub fn owner(&self) -> Result<Owner, Error> {
        let metadata = std::fs::metadata(&self.path).map_err(Error::at("look at", &self.path))?;
        Ok(Owner { uid: metadata.uid(), gid: metadata.gid() })
    }

    /// What is to be run; nothing when nobody has said yet.
    pub fn order(&self) -> Result<Option<Order>, Error> {
        self.read("order.json")
    }

    /// Says what is to be run.
    pub fn write_order(&self, order: &Order) -> Result<(), Error> {
        self.write("order.json", order)
    }

    /// The last keeper that was here.
    pub fn keeper(&self) -> Result<Option<Keeper>, Error> {
        self.read("keeper.json")
    }

    /// Says which keeper there is.
    pub fn write_keeper(&self, keeper: &Keeper) -> Result<(), Error> {
        self.write("keeper.json", keeper)
    }

    /// The process; nothing when none may ever have done anything.
    pub fn process(&self) -> Result<Option<Process>, Error> {
        self.read("process.json")
    }

    /// Says which process it is.
    pub fn write_process(&self, process: &Process) -> Result<(), Error> {
        self.write("process.json", process)
    }

    /// The end; nothing when it has not come.
    pub fn ended(&self) -> Result<Option<Ended>, Error> {
        self.read("ended.json")
    }

    /// Says how it ended.
    pub fn write_ended(&self, ended: &Ended) -> Result<(), Error> {
        self.write("ended.json", ended)
    }

    /// Metrics so far; none when there never were any.
    pub fn metrics(&self) -> Result<Totals, Error> {
        Ok(self.read("metrics.json")?.unwrap_or_default())
    }

    /// Keeps the metrics.
    pub fn write_metrics(&self, totals: &Totals) -> Result<(), Error> {
        self.write("metrics.json", totals)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::at("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Content { path, source })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.path.join(name);
        let bytes = serde_json::to_vec(value).map_err(|source| Error::Content { path: path.clone(), source })?;
        let new = self.path.join(format!("{name}.new"));
        self.write_new(&new, &bytes).map_err(Error::at("write", &new))?;
        std::fs::rename(&new, &path).map_err(Error::at("rename", &new))?;
        let directory = File::open(&self.path).and_then(|directory| directory.sync_all());
        directory.map_err(Error::at("sync", &self.path))
    }

    /// What an earlier process of ours began and did not end is overwritten.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        self.owner_of_directory(&file);
        file.sync_all()
    }

    /// Only root can give files away, and nobody else needs to.
    fn owner_of_directory(&self, file: &File) {
        if let Ok(owner) = self.owner() {
            let _ = std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_is_nothing() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path());
        assert_eq!(directory.process().unwrap(), None);
        let identity = Identity::of(std::process::id()).unwrap().unwrap();
        let process = Process {
            identity: identity.clone(),
            control_groups: vec!["/a".into()],
            unlimited: vec!["cpu".to_owned()],
        };
        directory.write_process(&process).unwrap();
        let keeper = Keeper { identity, at_work: true };
        directory.write_keeper(&keeper).unwrap();
        assert_eq!(directory.process().unwrap(), Some(process));
        assert_eq!(directory.keeper().unwrap(), Some(keeper));
        for exit in [Exit::Code(3), Exit::Signal(9), Exit::Unknown] {
            let ended = Ended { exit, time: Timestamp::UNIX_EPOCH, not_begun: None };
            directory.write_ended(&ended).unwrap();
            assert_eq!(directory.ended().unwrap(), Some(ended));
        }
        let names = std::fs::read_dir(place.path()).unwrap().count();
        assert_eq!(names, 3, "no part of a file is left");
    }

    #[test]
    fn what_is_no_json_is_an_error_with_its_path() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("ended.json"), b"{").unwrap();
        let error = Directory::new(place.path()).ended().unwrap_err();
        assert!(error.to_string().contains("ended.json"), "{error}");
        let nowhere = Directory::new(place.path().join("no"));
        assert_eq!(nowhere.ended().unwrap(), None);
        assert!(nowhere.lock().is_err());
    }
}
