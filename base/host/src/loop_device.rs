//! A file as a block device.

use std::path::{Path, PathBuf};

use crate::process::{Command, ProcessError, Processes};

/// A loop device that is attached to a file until [`LoopDevice::detach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches the first free device to `file`.
    pub fn attach(processes: &dyn Processes, file: &Path, read_only: bool) -> Result<Self, ProcessError> {
        let mut command = Command::new("losetup").args(["--find", "--show"]);
        if read_only {
            command = command.arg("--read-only");
        }
        let output = processes.run(&command.arg("--").arg(file.display().to_string()))?;
        Ok(Self { path: output.text().into() })
    }

    /// The block device, for example `/dev/loop0`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the device back; when it is still in use, the kernel does so after its last user.
    pub fn detach(self, processes: &dyn Processes) -> Result<(), ProcessError> {
        let command = Command::new("losetup").arg("--detach").arg(self.path.display().to_string());
        processes.run(&command).map(|_| ())
    }
}
