//! Package files, kept by content below `<cache>/debs/`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::lock::hex;
use super::tool::Tool;
use super::{ImageError, Lock, LockedPackage, Progress};

/// The package files of a lock.
pub(super) struct Packages {
    directory: PathBuf,
}

impl Packages {
    /// The store below `cache`.
    pub(super) fn below(cache: &Path) -> Result<Self, ImageError> {
        let directory = cache.join("debs");
        std::fs::create_dir_all(&directory).map_err(ImageError::file("create", &directory))?;
        Ok(Self { directory })
    }

    /// Where the file of `package` is, or will be.
    pub(super) fn path(&self, package: &LockedPackage) -> PathBuf {
        self.directory.join(format!("{}.deb", package.sha256))
    }

    /// The packages of `lock` that have to be downloaded; size alone decides here.
    pub(super) fn missing<'a>(&self, lock: &'a Lock) -> Vec<&'a LockedPackage> {
        let present = |package: &LockedPackage| {
            std::fs::metadata(self.path(package)).is_ok_and(|metadata| metadata.len() == package.size)
        };
        lock.packages.iter().filter(|package| !present(package)).collect()
    }

    /// Brings every package of `lock` here and checks each one's content.
    pub(super) fn fetch(&self, lock: &Lock, mirror: &str, progress: &dyn Progress) -> Result<(), ImageError> {
        let missing = self.missing(lock);
        if !missing.is_empty() {
            let bytes: u64 = missing.iter().map(|package| package.size).sum();
            progress.step(&format!("downloading {} packages, {} MB", missing.len(), bytes / 1_000_000));
            self.download(&missing, mirror)?;
        }
        progress.step("checking packages");
        lock.packages.iter().try_for_each(|package| self.check(package))
    }

    fn download(&self, missing: &[&LockedPackage], mirror: &str) -> Result<(), ImageError> {
        let part = |package: &LockedPackage| self.directory.join(format!("{}.part", package.sha256));
        let mut call =
            Tool::new("/usr/lib/apt/apt-helper").args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        call = call.arg("download-file");
        for package in missing {
            call = call
                .arg(format!("{mirror}/{}", package.path))
                .arg(part(package))
                .arg(format!("SHA256:{}", package.sha256));
        }
        let outcome = call.run();
        // Whatever did arrive is worth keeping, also when one file did not.
        for package in missing {
            let path = part(package);
            if path.exists() && sha256_of(&path)? == package.sha256 {
                std::fs::rename(&path, self.path(package)).map_err(ImageError::file("move into the cache", &path))?;
            } else {
                let _ = std::fs::remove_file(&path);
            }
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(ImageError::Program(host::ProcessError::Exit { stderr, .. })) => Err(self.reason(missing, stderr)),
            Err(other) => Err(other),
        }
    }

    /// A file that is gone from the archive has another way out than a network that does not work.
    fn reason(&self, missing: &[&LockedPackage], output: String) -> ImageError {
        let gone = missing.iter().find(|package| {
            let named = output.split(';').any(|line| line.contains("404") && line.contains(&package.path));
            named && !self.path(package).exists()
        });
        match gone {
            Some(package) => ImageError::PackageGone { name: package.name.clone(), version: package.version.clone() },
            None => ImageError::Download { output },
        }
    }

    fn check(&self, package: &LockedPackage) -> Result<(), ImageError> {
        let path = self.path(package);
        let found = sha256_of(&path)?;
        if found == package.sha256 {
            return Ok(());
        }
        Err(ImageError::PackageAltered { path, wanted: package.sha256.clone(), found })
    }
}

/// SHA-256 of a file, lower-case hex.
pub(super) fn sha256_of(path: &Path) -> Result<String, ImageError> {
    let mut file = File::open(path).map_err(ImageError::file("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(ImageError::file("read", path))?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(sha256: String) -> LockedPackage {
        LockedPackage { name: "a".into(), version: "1".into(), sha256, size: 3, path: "pool/a_1_all.deb".into() }
    }

    #[test]
    fn a_cached_file_with_other_content_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let packages = Packages::below(cache.path()).unwrap();
        let good = package(hex(&Sha256::digest("abc")));
        std::fs::write(packages.path(&good), "abc").unwrap();
        packages.check(&good).unwrap();
        std::fs::write(packages.path(&good), "abd").unwrap();
        assert!(matches!(packages.check(&good), Err(ImageError::PackageAltered { .. })));
    }

    #[test]
    fn only_a_404_on_the_package_means_gone() {
        let cache = tempfile::tempdir().unwrap();
        let packages = Packages::below(cache.path()).unwrap();
        let one = package("0".repeat(64));
        let gone =
            packages.reason(&[&one], "E: Failed to fetch http://m.example/pool/a_1_all.deb  404  Not Found".into());
        assert_eq!(gone.to_string(), "a 1 is no longer in the archive");
        assert!(gone.hint().unwrap().contains("--refresh"));
        let down = packages.reason(&[&one], "E: Failed to fetch http://m.example/pool/a_1_all.deb  timed out".into());
        assert!(matches!(down, ImageError::Download { .. }));
    }
}
