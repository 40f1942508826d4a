//! What can go wrong while an image is made.

use std::path::{Path, PathBuf};

use cairn_core::ErrorKind;

/// Why no image came out. Nothing was written to the output path in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Package scripts run in a changed root, which only root may do.
    #[error("building an image needs root: packages are unpacked with their owners and configured in a changed root")]
    NotRoot,
    /// Programs of the build host that are not there.
    #[error("the build host lacks: {}", .programs.join(", "))]
    MissingPrograms {
        /// Names of the programs.
        programs: Vec<String>,
        /// Debian packages that bring them.
        packages: Vec<String>,
    },
    /// Another build uses the same cache.
    #[error("{} is in use by another build", .path.display())]
    CacheBusy {
        /// The lock file inside the cache.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("stopped before the image was finished")]
    Interrupted,
    /// No archive to fetch from.
    #[error("no Debian archive is configured in this host's apt sources")]
    NoMirror,
    /// A lock that cannot be read.
    #[error("{lock}, line {line}: {reason}")]
    LockSyntax {
        /// Where the lock came from.
        lock: String,
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive answered something that no lock can be made of.
    #[error("the package archive's answer cannot be used: {reason}")]
    ArchiveAnswer {
        /// What was missing or odd.
        reason: String,
    },
    /// A package of the lock that the mirror no longer has.
    #[error("{name} {version} is no longer in the archive")]
    PackageGone {
        /// Package name.
        name: String,
        /// The locked version.
        version: String,
    },
    /// A package whose content is not what the lock says.
    #[error("{} is not the file the lock names: SHA-256 {found}, not {wanted}", .path.display())]
    PackageAltered {
        /// The downloaded or cached file.
        path: PathBuf,
        /// The hash of the lock.
        wanted: String,
        /// The hash of the file.
        found: String,
    },
    /// The downloads did not finish.
    #[error("packages could not be downloaded: {output}")]
    Download {
        /// The last lines of the downloader.
        output: String,
    },
    /// The dispatcher was linked against a newer C library than the image has.
    #[error("{} needs glibc {needs}, the image has {has}: build it on Debian {suite} or older, or link it statically", .path.display())]
    DispatcherTooNew {
        /// The program.
        path: PathBuf,
        /// Highest version the program asks for.
        needs: String,
        /// Version in the image.
        has: String,
        /// The image's Debian suite.
        suite: String,
    },
    /// A certificate file that holds none.
    #[error("{} holds no PEM certificate", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory operation.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program of the build host failed; the source says which and what it wrote.
    #[error("a program of the build host failed")]
    Program(#[from] host::ProcessError),
    /// The finished file is not what it has to be.
    #[error("the finished image does not hold what it must: {reason}")]
    Check {
        /// What was missing or in the wrong place.
        reason: String,
    },
}

impl ImageError {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// How the error is sorted at the edge.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRoot => ErrorKind::Forbidden,
            Self::CacheBusy { .. } => ErrorKind::Conflict,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::MissingPrograms { .. }
            | Self::NoMirror
            | Self::LockSyntax { .. }
            | Self::DispatcherTooNew { .. }
            | Self::NoCertificate { .. } => ErrorKind::Invalid,
            Self::PackageGone { .. } => ErrorKind::NotFound,
            Self::Download { .. } => ErrorKind::Unreachable,
            _ => ErrorKind::Failed,
        }
    }

    /// Stable code; names a page in docs/errors/.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PackageGone { .. } => crate::errors::IMAGE_PACKAGE_GONE,
            _ => crate::errors::IMAGE_BUILD,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotRoot => "run it as root, or in a container that is".to_owned(),
            Self::MissingPrograms { packages, .. } => {
                format!("apt-get install --no-install-recommends {}", packages.join(" "))
            }
            Self::CacheBusy { .. } => "wait for it, or give this build another --cache-dir".to_owned(),
            Self::NoMirror => "name a Debian archive with --mirror URL".to_owned(),
            Self::PackageGone { .. } => {
                "a newer version replaced it: renew the lock with --refresh --lock FILE, or name a mirror that keeps old packages"
                    .to_owned()
            }
            Self::PackageAltered { .. } => "remove the file and build again; if it returns, distrust the mirror".to_owned(),
            Self::Download { .. } => "check the mirror (--mirror URL) and the proxy in apt's configuration".to_owned(),
            _ => return None,
        })
    }
}
