//! Makes a lock from the archive's present state, with an apt of its own: nothing of the host's apt state is read
//! besides how it reaches the network, and nothing of it is written.

use std::collections::BTreeMap;
use std::path::Path;

use super::tool::Tool;
use super::{ImageError, Lock, LockedPackage};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What a lock is to contain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackageList {
    /// Installed, with everything they depend on.
    pub install: Vec<String>,
    /// Taken without what they depend on. A meta package of a kernel stands for that kernel.
    pub unpack: Vec<String>,
}

impl PackageList {
    /// Reads lines `install NAME` and `unpack NAME`; `#` starts a comment. `origin` names the list in errors.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ImageError> {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["install", name] => list.install.push((*name).to_owned()),
                ["unpack", name] => list.unpack.push((*name).to_owned()),
                _ => {
                    return Err(ImageError::LockSyntax {
                        lock: origin.to_owned(),
                        line: index + 1,
                        reason: "expected: install NAME, or unpack NAME".to_owned(),
                    });
                }
            }
        }
        Ok(list)
    }
}

/// Resolves `list` against `suite` at `mirror`. `scratch` is an empty directory for apt's state.
pub(super) fn resolve(mirror: &str, suite: &str, list: &PackageList, scratch: &Path) -> Result<Lock, ImageError> {
    let apt = Apt::prepare(mirror, suite, scratch)?;
    apt.tool("apt-get").args(["-qq", "update"]).run()?;
    let epoch = apt.date_of_suite(suite)?;
    // `?essential` is what the changed root starts from.
    let mut uris = apt.uris(&["install", "--yes", "?essential"], &list.install)?;
    let mut unpack = Vec::new();
    for name in &list.unpack {
        unpack.push(apt.kernel_of(name)?);
    }
    if !unpack.is_empty() {
        uris.push_str(&apt.uris(&["download"], &unpack)?);
    }
    let packages = locked_packages(&uris, mirror)?;
    Ok(Lock { suite: suite.to_owned(), epoch, packages })
}

struct Apt<'a> {
    scratch: &'a Path,
}

impl<'a> Apt<'a> {
    fn prepare(mirror: &str, suite: &str, scratch: &'a Path) -> Result<Self, ImageError> {
        for directory in ["lists/partial", "cache/archives/partial", "state", "empty"] {
            let path = scratch.join(directory);
            std::fs::create_dir_all(&path).map_err(ImageError::file("create", &path))?;
        }
        let options = format!("[arch=amd64 signed-by={KEYRING}] {mirror}");
        let write = |name: &str, text: String| {
            let path = scratch.join(name);
            std::fs::write(&path, text).map_err(ImageError::file("write", &path))
        };
        write("status", String::new())?;
        write(
            "sources.list",
            format!(
                "deb {options} {suite} main non-free-firmware\ndeb {options} {suite}-updates main non-free-firmware\n"
            ),
        )?;
        let network = Tool::new("apt-config")
            .args([
                "dump",
                "--no-empty",
                "--format",
                "%F \"%v\";%n",
                "Acquire::http",
                "Acquire::https",
                "Acquire::Retries",
            ])
            .run()?;
        let place = scratch.display();
        write(
            "apt.conf",
            format!(
                "{network}\
                 Dir::Etc \"{place}/empty\";\nDir::Etc::main \"none\";\nDir::Etc::parts \"{place}/empty\";\n\
                 Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"{place}/empty\";\n\
                 Dir::State \"{place}/state\";\nDir::State::status \"{place}/status\";\nDir::State::lists \"{place}/lists\";\n\
                 Dir::Cache \"{place}/cache\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::ForceHash \"SHA256\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
                 Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
            ),
        )?;
        Ok(Self { scratch })
    }

    fn tool(&self, program: &str) -> Tool {
        // Read before every other configuration file, it moves the place where apt looks for those.
        Tool::new(program).env("APT_CONFIG", self.scratch.join("apt.conf"))
    }

    fn uris(&self, command: &[&str], names: &[String]) -> Result<String, ImageError> {
        self.tool("apt-get").args(["-qq", "--print-uris"]).args(command).args(names).run()
    }

    /// Seconds since 1970 from the `Date:` of the suite's signed index.
    fn date_of_suite(&self, suite: &str) -> Result<u64, ImageError> {
        let lists = self.scratch.join("lists");
        let ending = format!("_dists_{suite}_InRelease");
        let entries = std::fs::read_dir(&lists).map_err(ImageError::file("read", &lists))?;
        let path = entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(&ending))
            .ok_or_else(|| ImageError::ArchiveAnswer { reason: format!("no signed index of {suite}") })?;
        let text = std::fs::read_to_string(&path).map_err(ImageError::file("read", &path))?;
        release_date(&text)
            .ok_or_else(|| ImageError::ArchiveAnswer { reason: format!("the index of {suite} has no readable date") })
    }

    /// `name`, or the kernel that it stands for.
    fn kernel_of(&self, name: &str) -> Result<String, ImageError> {
        if !name.starts_with("linux-image-") {
            return Ok(name.to_owned());
        }
        let text = self.tool("apt-cache").args(["--no-all-versions", "show", name]).run()?;
        Ok(kernel_in(&text).unwrap_or_else(|| name.to_owned()))
    }
}

fn release_date(text: &str) -> Option<u64> {
    let date = text.lines().find_map(|line| line.strip_prefix("Date: "))?;
    let time = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S UTC", date.trim()).ok()?.to_datetime().ok()?;
    u64::try_from(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second()).ok()
}

fn kernel_in(record: &str) -> Option<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let first = depends.split([',', ' ', '(']).next()?.trim();
    first.starts_with("linux-image-").then(|| first.to_owned())
}

/// Reads lines `'URI' FILE SIZE SHA256:HASH` as apt-get(8) `--print-uris` writes them.
fn locked_packages(text: &str, mirror: &str) -> Result<Vec<LockedPackage>, ImageError> {
    let odd = |line: &str| ImageError::ArchiveAnswer { reason: format!("apt printed {line:?}") };
    let mut packages = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('\'')) {
        let [uri, file, size, hash] = line.split_whitespace().collect::<Vec<_>>()[..] else { return Err(odd(line)) };
        let path = uri.trim_matches('\'').strip_prefix(mirror).map(|path| path.trim_start_matches('/'));
        let mut parts = file.trim_end_matches(".deb").split('_');
        let (Some(path), Some(name), Some(version), Some(sha256), Ok(size)) =
            (path, parts.next(), parts.next(), hash.strip_prefix("SHA256:"), size.parse())
        else {
            return Err(odd(line));
        };
        packages.insert(
            name.to_owned(),
            LockedPackage {
                name: name.to_owned(),
                version: version.replace("%3a", ":"),
                sha256: sha256.to_owned(),
                size,
                path: path.to_owned(),
            },
        );
    }
    if packages.is_empty() {
        return Err(ImageError::ArchiveAnswer { reason: "apt named no package".to_owned() });
    }
    Ok(packages.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_lines_become_sorted_packages() {
        let hash = "0".repeat(64);
        let text = format!(
            "'http://m.example/debian/pool/main/s/shadow/passwd_4.17.4-2_amd64.deb' passwd_1%3a4.17.4-2_amd64.deb 1228860 SHA256:{hash}\n\
             'http://m.example/debian/pool/main/g/glibc/libc6_2.41-12%2bdeb13u4_amd64.deb' libc6_2.41-12+deb13u4_amd64.deb 2846580 SHA256:{hash}\n"
        );
        let packages = locked_packages(&text, "http://m.example/debian").unwrap();
        assert_eq!(packages[0].name, "libc6");
        assert_eq!(packages[0].path, "pool/main/g/glibc/libc6_2.41-12%2bdeb13u4_amd64.deb");
        assert_eq!((packages[1].version.as_str(), packages[1].size), ("1:4.17.4-2", 1_228_860));
    }

    #[test]
    fn a_line_without_a_sha256_is_refused() {
        let text = "'http://m.example/debian/pool/x_1_all.deb' x_1_all.deb 5 MD5Sum:abc\n";
        assert!(locked_packages(text, "http://m.example/debian").unwrap_err().to_string().contains("MD5Sum"));
        assert!(locked_packages("", "http://m.example/debian").is_err());
    }

    #[test]
    fn the_date_and_the_kernel_are_found() {
        assert_eq!(release_date("Origin: Debian\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n"), Some(1_789_199_741));
        assert_eq!(release_date("Date: yesterday\n"), None);
        let record = "Package: linux-image-amd64\nDepends: linux-image-6.12.1-amd64 (= 6.12.1-1)\n";
        assert_eq!(kernel_in(record).as_deref(), Some("linux-image-6.12.1-amd64"));
        assert_eq!(kernel_in("Depends: kmod, linux-base\n"), None);
    }

    #[test]
    fn a_package_list_knows_two_words() {
        let list = PackageList::parse("p.list", "# c\ninstall udev\n\nunpack linux-image-amd64\n").unwrap();
        assert_eq!(list.install, ["udev"]);
        assert_eq!(list.unpack, ["linux-image-amd64"]);
        assert!(PackageList::parse("p.list", "remove udev\n").unwrap_err().to_string().starts_with("p.list, line 1"));
    }
}
