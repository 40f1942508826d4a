//! Programs of the build host: which ones a build needs, and one call of one.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use host::Processes as _;

use super::ImageError;

/// Where [`host::Command`] looks for programs.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Program, or file that stands for it, and the Debian package that brings it.
const NEEDED: [(&str, &str); 14] = [
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("/usr/lib/apt/apt-helper", "apt"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("mksquashfs", "squashfs-tools"),
    ("depmod", "kmod"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("mformat", "mtools"),
    ("xorriso", "xorriso"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/kernel.img", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/kernel.img", "grub-efi-amd64-bin"),
];

/// Debian packages that a build host needs, sorted.
pub fn needed_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDED.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Fails with everything that is missing, not with the first.
pub(super) fn require_all() -> Result<(), ImageError> {
    let missing: Vec<_> = NEEDED.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| (*package).to_owned()).collect();
    packages.dedup();
    Err(ImageError::MissingPrograms {
        programs: missing.iter().map(|(program, _)| (*program).to_owned()).collect(),
        packages,
    })
}

fn is_there(program: &str) -> bool {
    DIRECTORIES.iter().any(|directory| Path::new(directory).join(program).exists())
}

/// One call of a program: a fixed time zone beside the fixed locale and path of [`host::Command`].
pub(super) struct Tool(host::Command);

impl Tool {
    /// `program` is a name in the system's directories or an absolute path.
    pub(super) fn new(program: &str) -> Self {
        // The longest are the package installation and the compression, minutes on a slow host.
        Self(host::Command::new(program).env("TZ", "UTC").timeout(Duration::from_secs(3600)))
    }

    pub(super) fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        Self(self.0.arg(argument.as_ref().to_string_lossy()))
    }

    pub(super) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(self, arguments: I) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub(super) fn env(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        Self(self.0.env(name, value.as_ref().to_string_lossy()))
    }

    /// Runs it to the end; returns standard output.
    pub(super) fn run(self) -> Result<String, ImageError> {
        self.run_both().map(|(output, _)| output)
    }

    /// Runs it to the end; returns standard output and the end of standard error.
    pub(super) fn run_both(self) -> Result<(String, String), ImageError> {
        let output = host::Linux.run(&self.0)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_the_build_host_are_named_once() {
        let packages = needed_packages();
        assert!(packages.contains(&"mmdebstrap") && packages.contains(&"grub-efi-amd64-bin"));
        assert!(packages.is_sorted() && packages.iter().filter(|name| **name == "apt").count() == 1);
    }

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let error = Tool::new("ls").arg("/nowhere/at-all").run().unwrap_err();
        let ImageError::Program(source) = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains("/nowhere/at-all"), "{source}");
    }
}
