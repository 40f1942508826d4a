//! A process that outlives its parent: prepared in full, held, and let go once its parent has written down which it is.

mod child;

pub use child::close_inherited;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::pidfd::PidFd;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// User id; not 0.
    pub uid: u32,
    /// Group id; not 0.
    pub gid: u32,
}

/// A process to be.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Program, as an absolute path, and its arguments.
    pub argv: &'a [String],
    /// Its whole environment.
    pub environment: &'a BTreeMap<String, String>,
    /// Working directory.
    pub directory: &'a Path,
    /// Who it runs as: without other groups and capabilities, and without a way to any. Nothing: as the caller, with the
    /// caller's capabilities.
    pub user: Option<Credentials>,
    /// Network namespace to join.
    pub network_namespace: Option<&'a Path>,
    /// Most files it may have open; fewer where the caller's own limit is lower and cannot be raised.
    pub open_files: Option<u64>,
    /// Standard input. No other file of the caller reaches the process but these three.
    pub input: BorrowedFd<'a>,
    /// Standard output.
    pub output: BorrowedFd<'a>,
    /// Standard error.
    pub error: BorrowedFd<'a>,
}

/// A process was not begun.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A word holds a NUL, or there is none.
    #[error("{what} cannot be given to a process")]
    Word {
        /// Which one.
        what: String,
    },
    /// The namespace cannot be opened.
    #[error("cannot open the network namespace {}", .path.display())]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No process can be made.
    #[error("cannot make a process for {program}")]
    Fork {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process could not be made what it should be, and has ended.
    #[error("cannot {step} {program}")]
    Child {
        /// What was tried: `change the user for`, `execute`, …
        step: &'static str,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A process that exists and waits. It ends without having done anything when this value or its process does.
#[derive(Debug)]
pub struct Held {
    program: String,
    pid: u32,
    pidfd: PidFd,
    go: Option<OwnedFd>,
    report: OwnedFd,
    released: bool,
}

impl Launch<'_> {
    /// Makes the process. It has its own session from the start, and nothing of the caller's but what is said here.
    pub fn hold(&self) -> Result<Held, LaunchError> {
        let program = self.argv.first().cloned().unwrap_or_default();
        let failed = |source: io::Error| LaunchError::Fork { program: program.clone(), source };
        let words = child::Words::of(self)?;
        let namespace = self.network_namespace.map(open_namespace).transpose()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()));
        let ((wait, go), (report, tell)) = (pipe()?, pipe()?);
        let plan = child::Plan {
            words: &words,
            user: self.user,
            open_files: self.open_files,
            standard: [self.input, self.output, self.error],
            wait: wait.as_fd(),
            tell: tell.as_fd(),
            namespace: namespace.as_ref().map(AsFd::as_fd),
        };
        let pid = child::fork(&plan).map_err(failed)?;
        drop((wait, tell));
        // The child is not taken leave of, so its number is its own.
        match PidFd::open(pid) {
            Ok(Some(pidfd)) => Ok(Held { program, pid, pidfd, go: Some(go), report, released: false }),
            Ok(None) => Err(failed(io::ErrorKind::NotFound.into())),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Held {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the process become its program; returns once it has. Whoever gets the handle takes leave of it.
    pub fn release(mut self) -> Result<PidFd, LaunchError> {
        let failed = |source| LaunchError::Fork { program: self.program.clone(), source };
        let go = self.go.take();
        if let Some(go) = &go {
            rustix::io::retry_on_intr(|| rustix::io::write(go, b"!")).map_err(|errno| failed(errno.into()))?;
        }
        drop(go);
        let report = self.report.try_clone().map_err(failed)?;
        let mut told = Vec::new();
        File::from(report).read_to_end(&mut told).map_err(failed)?;
        if let Some((step, source)) = child::understand(&told) {
            return Err(LaunchError::Child { step, program: self.program.clone(), source });
        }
        self.released = true;
        self.pidfd.as_fd().try_clone_to_owned().map(PidFd::from).map_err(failed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without this it would wait for a word of ours, and we for it.
        self.go = None;
        if !self.released {
            // It ends at once, or has said why it cannot begin, and nobody else takes leave of it.
            let _ = self.pidfd.wait(None);
            let _ = self.pidfd.reap();
        }
    }
}

fn open_namespace(path: &Path) -> Result<OwnedFd, LaunchError> {
    let opened = File::open(path).map_err(|source| LaunchError::Namespace { path: path.to_owned(), source })?;
    Ok(opened.into())
}

/// A word for the kernel.
fn word(bytes: &[u8], what: &str) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| LaunchError::Word { what: what.to_owned() })
}

fn path_word(path: &Path) -> Result<CString, LaunchError> {
    word(path.as_os_str().as_bytes(), "the working directory")
}
