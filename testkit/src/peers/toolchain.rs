//! The Go toolchain: the one on `PATH` if it is new enough, else a pinned one from the Go module proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::digest;
use crate::environment;
use crate::process::run;

/// The oldest Go that builds every module of `peers/`: their `go` lines ask for it.
const NEEDED: (u32, u32) = (1, 26);
/// What is fetched where there is no such Go.
const VERSION: &str = "go1.26.11";
/// SHA-256 of the module zip of [`VERSION`] for linux-amd64.
const SHA256: &str = "e1edb778de0aa08c8e827f5a873b35a46afe680fb241482c531725b2355e470d";

/// A `go` that can be called.
#[derive(Debug, Clone)]
pub(super) struct Toolchain {
    pub program: PathBuf,
    /// As it calls itself, `go1.26.0`.
    pub version: String,
}

impl Toolchain {
    /// The one that is here already.
    pub(super) fn find() -> Option<Self> {
        let known = [Some(PathBuf::from("go")), place().ok().map(|place| place.join("bin/go"))];
        known.into_iter().flatten().find_map(Self::at)
    }

    /// The one that is here, or else a fetched one.
    pub(super) fn get(say: &dyn Fn(&str)) -> Result<Self> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        let (major, minor) = NEEDED;
        ensure!(std::env::consts::ARCH == "x86_64", "there is no Go {major}.{minor}, and none is pinned for this CPU");
        fetch(say).with_context(|| format!("there is no Go {major}.{minor}, and {VERSION} cannot be fetched"))?;
        Self::at(place()?.join("bin/go")).with_context(|| format!("the fetched {VERSION} does not run"))
    }

    fn at(program: PathBuf) -> Option<Self> {
        let version = run(Command::new(&program).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local")).ok()?;
        let version = version.trim().to_owned();
        (number(&version)? >= NEEDED).then_some(Self { program, version })
    }
}

/// Major and minor of `go1.26.8` or `go1.26rc1`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where the fetched toolchain lies: named by what it was unpacked from.
fn place() -> Result<PathBuf> {
    Ok(environment::cache()?.join(format!("peers/{VERSION}-{}", &SHA256[..16])))
}

fn fetch(say: &dyn Fn(&str)) -> Result<()> {
    let place = place()?;
    let parent = place.parent().context("the cache has no directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent).context("make a directory to unpack in")?;
    let archive = work.path().join("go.zip");
    let module = format!("v0.0.1-{VERSION}.linux-amd64");
    let url = format!("{}/golang.org/toolchain/@v/{module}.zip", proxy());
    say(&format!("fetching {url} (83 MB)"));
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "2", "--output"]).arg(&archive);
    let output = curl.arg(&url).output().context("start curl")?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let found = digest(&archive)?;
    ensure!(found == SHA256, "{url} has SHA-256 {found} and not the pinned {SHA256}");
    run(Command::new("unzip").arg("-q").arg(&archive).arg("-d").arg(work.path()))?;
    let root = work.path().join(format!("golang.org/toolchain@{module}"));
    // Module zips carry no modes.
    for folder in ["bin", "pkg/tool/linux_amd64"] {
        make_executable(&root.join(folder))?;
    }
    match fs::rename(&root, &place) {
        // Another run was quicker with the same bytes.
        Err(_) if place.is_dir() => Ok(()),
        other => other.with_context(|| format!("move the toolchain to {}", place.display())),
    }
}

fn make_executable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The first address in `$GOPROXY`.
fn proxy() -> String {
    let list = environment::go_proxy().unwrap_or_default();
    let first = list.split([',', '|']).find(|one| one.starts_with("https://") || one.starts_with("http://"));
    first.unwrap_or("https://proxy.golang.org").trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(number("go1.26.8"), Some((1, 26)));
        assert_eq!(number("go1.27rc1"), Some((1, 27)));
        assert!(number("go1.9.2").unwrap() < NEEDED);
        assert_eq!(number("devel"), None);
        assert!(number(VERSION).unwrap() >= NEEDED);
    }

    #[test]
    fn no_module_asks_for_a_newer_one() {
        for module in super::super::MODULES {
            let text = fs::read_to_string(module.folder().join("go.mod")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap();
            assert!(number(&format!("go{line}")).unwrap() <= NEEDED, "{} asks for Go {line}", module.name);
        }
    }
}
