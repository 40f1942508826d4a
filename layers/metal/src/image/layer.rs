//! The small layer on top of Debian: dispatcher, units, configuration, trust. Made anew for every image.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::base::{Base, squash};
use super::lock::hex;
use super::{BuildOptions, ImageError, Lock, guest_files, tree};

/// Where the maintenance system says which image it is.
const IMAGE_PATH: &str = "usr/lib/cairn/image.json";

const UNITS: &str = "usr/lib/systemd/system";
/// The network has no configuration yet: what the task says goes to `/run/systemd/network`, nothing is assumed before.
const STARTED: [(&str, &str); 3] = [
    ("etc/systemd/system/multi-user.target.wants", "provision-dispatcher.service"),
    ("etc/systemd/system/multi-user.target.wants", "systemd-networkd.service"),
    ("etc/systemd/system/sockets.target.wants", "systemd-networkd.socket"),
];
/// udev rules that start old arrays and volume groups on sight: they would hold the disk that is to be written.
const SILENCED_RULES: [&str; 2] = ["64-md-raid-assembly.rules", "69-lvm.rules"];

/// The layer's tree.
pub(super) struct Layer {
    root: PathBuf,
}

impl Layer {
    /// Writes the tree into the new directory `root`.
    pub(super) fn compose(options: &BuildOptions, lock: &Lock, base: &Base, root: PathBuf) -> Result<Self, ImageError> {
        check_dispatcher(options, lock)?;
        tree::make_directory(&root)?;
        let place = |path: &str| root.join(path);
        tree::copy(&options.dispatcher, &place("usr/sbin/provisioner"), 0o755)?;
        for (name, text) in guest_files::UNITS {
            tree::write(&place(UNITS).join(name), 0o644, text.as_bytes())?;
        }
        for (path, text) in guest_files::CONFIGURATION {
            tree::write(&place(path), 0o644, text.as_bytes())?;
        }
        for (directory, unit) in STARTED {
            tree::link(&place(directory).join(unit), &format!("/{UNITS}/{unit}"))?;
        }
        for unit in tree::entries(guest_files::MASKED) {
            tree::link(&place("etc/systemd/system").join(unit), "/dev/null")?;
        }
        for rules in SILENCED_RULES {
            tree::link(&place("etc/udev/rules.d").join(rules), "/dev/null")?;
        }
        tree::link(&place("etc/systemd/system/default.target"), &format!("/{UNITS}/multi-user.target"))?;
        tree::write(&place("etc/hostname"), 0o644, b"cairn-maintenance\n")?;
        // Empty, not absent: every start gets a new id, and none of them is a "first boot".
        tree::write(&place("etc/machine-id"), 0o444, b"")?;
        tree::write(&place("etc/fstab"), 0o644, b"")?;
        // As old as /usr: systemd then has nothing to bring up to date at start.
        for path in ["etc/.updated", "var/.updated"] {
            tree::write(&place(path), 0o644, b"")?;
        }
        let layer = Self { root };
        layer.trust(&options.authorities, base)?;
        if options.debug_shell {
            let (name, text) = guest_files::DEBUG_SHELL;
            layer.write(&format!("{UNITS}/{name}"), text.as_bytes())?;
            tree::link(
                &layer.root.join("etc/systemd/system/sysinit.target.wants").join(name),
                &format!("/{UNITS}/{name}"),
            )?;
        }
        Ok(layer)
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<(), ImageError> {
        tree::write(&self.root.join(path), 0o644, content)
    }

    /// Adds certificate authorities to Debian's.
    fn trust(&self, authorities: &[PathBuf], base: &Base) -> Result<(), ImageError> {
        if authorities.is_empty() {
            return Ok(());
        }
        let path = base.authorities();
        let mut bundle = std::fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
        for (index, path) in authorities.iter().enumerate() {
            let text = std::fs::read_to_string(path).map_err(ImageError::file("read", path))?;
            if !text.contains("-----BEGIN CERTIFICATE-----") {
                return Err(ImageError::NoCertificate { path: path.clone() });
            }
            self.write(&format!("usr/local/share/ca-certificates/cairn-{index}.crt"), text.as_bytes())?;
            bundle.push_str(text.trim_end());
            bundle.push('\n');
        }
        self.write("etc/ssl/certs/ca-certificates.crt", bundle.as_bytes())
    }

    /// Hash over paths, modes and contents.
    pub(super) fn hash(&self) -> Result<String, ImageError> {
        let mut hasher = Sha256::new();
        for relative in tree::walk(&self.root)? {
            let path = self.root.join(&relative);
            let metadata = path.symlink_metadata().map_err(ImageError::file("read", &path))?;
            let content = if metadata.is_symlink() {
                let target = std::fs::read_link(&path).map_err(ImageError::file("read", &path))?;
                target.to_string_lossy().into_owned().into_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).map_err(ImageError::file("read", &path))?
            } else {
                Vec::new()
            };
            let mode = metadata.permissions().mode();
            hasher.update(format!("{} {mode:o} {}\n", relative.display(), hex(&Sha256::digest(&content))));
        }
        Ok(hex(&hasher.finalize()))
    }

    /// Writes what depends on the build id and packs the layer.
    pub(super) fn finish(self, lock: &Lock, description: &str, output: &Path) -> Result<(), ImageError> {
        self.write(IMAGE_PATH, description.as_bytes())?;
        // Packed for every image, unlike the base: quick rather than small.
        squash(&self.root, lock.epoch, 6, output)
    }
}

/// Refuses a dispatcher that would not even start in the image.
fn check_dispatcher(options: &BuildOptions, lock: &Lock) -> Result<(), ImageError> {
    let path = &options.dispatcher;
    let program = std::fs::read(path).map_err(ImageError::file("read", path))?;
    let Some(libc) = lock.package("libc6") else { return Ok(()) };
    let has = version(libc.version.split('-').next().unwrap_or_default());
    let needs = newest_glibc(&program);
    if needs > has {
        return Err(ImageError::DispatcherTooNew {
            path: path.clone(),
            needs: format!("{}.{}", needs.0, needs.1),
            has: format!("{}.{}", has.0, has.1),
            suite: lock.suite.clone(),
        });
    }
    Ok(())
}

/// The highest `GLIBC_x.y` symbol version that a program names.
fn newest_glibc(program: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_2.";
    let positions = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let versions = positions.map(|(at, _)| {
        let digits = program[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit()).copied().collect();
        (2, String::from_utf8(digits).unwrap_or_default().parse().unwrap_or(0))
    });
    versions.max().unwrap_or((0, 0))
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_version_counts() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0"), (2, 34));
        assert_eq!(newest_glibc(b"static"), (0, 0));
        assert!(version("2.41") > version("2.5"));
    }
}
