//! The lock: every package of a root with version, hash and place, so that two builds see the same bytes.

use std::fmt;

use sha2::{Digest, Sha256};

use super::ImageError;

/// One package file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Path below the mirror, percent-encoded as it goes into the URL.
    pub path: String,
}

/// A root's packages and the date its files get.
///
/// As text: `suite NAME`, `epoch SECONDS`, then a line `name version sha256 size path` for each package, sorted by
/// name; `#` starts a comment line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Debian suite the packages are of.
    pub suite: String,
    /// Seconds since 1970: the date of the archive state the lock was made from, and of every file in what is built.
    pub epoch: u64,
    /// Sorted by name, each name once.
    pub packages: Vec<LockedPackage>,
}

impl Lock {
    /// Reads a lock; `origin` names it in errors.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ImageError> {
        let syntax = |line: usize, reason: &str| ImageError::LockSyntax {
            lock: origin.to_owned(),
            line,
            reason: reason.to_owned(),
        };
        let (mut suite, mut epoch, mut packages) = (None, None, Vec::<LockedPackage>::new());
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["suite", name] => suite = Some((*name).to_owned()),
                ["epoch", seconds] => {
                    epoch = Some(seconds.parse().map_err(|_| syntax(number, "the epoch is not a number of seconds"))?);
                }
                [name, version, sha256, size, path] => {
                    let package = LockedPackage {
                        name: (*name).to_owned(),
                        version: (*version).to_owned(),
                        sha256: (*sha256).to_owned(),
                        size: size.parse().map_err(|_| syntax(number, "the size is not a number of bytes"))?,
                        path: (*path).to_owned(),
                    };
                    check(&package).map_err(|reason| syntax(number, reason))?;
                    if packages.last().is_some_and(|last| last.name >= package.name) {
                        return Err(syntax(number, "packages have to be sorted by name, each once"));
                    }
                    packages.push(package);
                }
                _ => return Err(syntax(number, "expected: name version sha256 size path")),
            }
        }
        Ok(Self {
            suite: suite.ok_or_else(|| syntax(0, "the line \"suite NAME\" is missing"))?,
            epoch: epoch.ok_or_else(|| syntax(0, "the line \"epoch SECONDS\" is missing"))?,
            packages,
        })
    }

    /// SHA-256 of the text form, lower-case hex.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.to_string()))
    }

    /// The package of this name.
    pub fn package(&self, name: &str) -> Option<&LockedPackage> {
        self.packages.iter().find(|package| package.name == name)
    }
}

/// The checks keep a lock from somewhere else from writing outside the cache.
fn check(package: &LockedPackage) -> Result<(), &'static str> {
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if !package.name.bytes().all(named) || !package.name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err("this is no package name");
    }
    if package.sha256.len() != 64 || !package.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("the hash is not a SHA-256 in lower-case hex");
    }
    if !package.path.ends_with(".deb")
        || package.path.starts_with('/')
        || package.path.split('/').any(|part| part == "..")
    {
        return Err("the path does not name a .deb below the mirror");
    }
    Ok(())
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# name version sha256 size path-below-the-mirror")?;
        writeln!(f, "suite {}", self.suite)?;
        writeln!(f, "epoch {}", self.epoch)?;
        for package in &self.packages {
            let LockedPackage { name, version, sha256, size, path } = package;
            writeln!(f, "{name} {version} {sha256} {size} {path}")?;
        }
        Ok(())
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reason(text: &str) -> String {
        Lock::parse("a.lock", text).unwrap_err().to_string()
    }

    #[test]
    fn a_lock_reads_back_as_it_was_written() {
        let text = format!(
            "# name version sha256 size path-below-the-mirror\nsuite trixie\nepoch 1757663741\n\
             bash 5.2-1 {HASH} 12 pool/main/b/bash.deb\nlibc6 2.41-12+deb13u4 {HASH} 34 pool/main/g/libc6_2.41%2bx.deb\n"
        );
        let lock = Lock::parse("a.lock", &text).unwrap();
        assert_eq!(lock.packages.len(), 2);
        assert_eq!(lock.package("libc6").map(|package| package.size), Some(34));
        assert_eq!(lock.to_string(), text);
    }

    #[test]
    fn every_fault_names_its_line() {
        let head = "suite trixie\nepoch 1\n";
        assert_eq!(reason("suite trixie\nepoch soon\n"), "a.lock, line 2: the epoch is not a number of seconds");
        assert_eq!(reason("suite trixie\n"), "a.lock, line 0: the line \"epoch SECONDS\" is missing");
        assert!(reason(&format!("{head}bash 1 {HASH}\n")).contains("line 3: expected"));
        assert!(reason(&format!("{head}bash 1 {HASH} x pool/b.deb\n")).contains("size"));
        assert!(reason(&format!("{head}bash 1 abc 1 pool/b.deb\n")).contains("SHA-256"));
        assert!(reason(&format!("{head}bash 1 {HASH} 1 ../b.deb\n")).contains("below the mirror"));
        assert!(reason(&format!("{head}../x 1 {HASH} 1 pool/b.deb\n")).contains("no package name"));
        let twice = format!("{head}b 1 {HASH} 1 p/b.deb\na 1 {HASH} 1 p/a.deb\n");
        assert!(reason(&twice).contains("line 4: packages have to be sorted"));
    }
}
