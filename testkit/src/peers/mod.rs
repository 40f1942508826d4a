//! Programs of other projects to test the registry against, which no Debian package has: built from Go modules.
//!
//! `testkit/peers/NAME` holds a `go.mod` that names the programs and a `go.sum` with the checksum of every module that goes
//! into them: nothing else is taken, from wherever it comes. A program that is built stays in the cache under the hash of
//! both files and the version of Go. [`build`] is called by `cargo xtask test`; [`find`] only looks.

mod toolchain;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::environment;
use crate::process::run;
use toolchain::Toolchain;

/// The newest OCI conformance programme, of the commit in `peers/conformance/go.mod`.
pub const CONFORMANCE: &str = "conformance";
/// The last one that was a Ginkgo suite.
pub const CONFORMANCE_1_0: &str = "conformance-1.0";

/// A folder of `testkit/peers`.
struct Module {
    name: &'static str,
    /// Program and the package that it is built from.
    programs: &'static [(&'static str, &'static str)],
    /// Whether the package has no `main` but tests.
    is_test: bool,
}

const MODULES: &[Module] = &[
    Module {
        name: "clients",
        programs: &[
            ("oras", "oras.land/oras/cmd/oras"),
            ("crane", "github.com/google/go-containerregistry/cmd/crane"),
            ("regctl", "github.com/regclient/regclient/cmd/regctl"),
        ],
        is_test: false,
    },
    Module {
        name: CONFORMANCE,
        programs: &[(CONFORMANCE, "github.com/opencontainers/distribution-spec/conformance")],
        is_test: false,
    },
    Module {
        name: CONFORMANCE_1_0,
        programs: &[(CONFORMANCE_1_0, "github.com/opencontainers/distribution-spec/conformance")],
        is_test: true,
    },
];

impl Module {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.name)
    }

    /// Where the build runs: the folder, or the checkout that takes the place of the conformance programme's module.
    fn source(&self) -> Option<PathBuf> {
        if self.name == CONFORMANCE { environment::conformance_source() } else { None }
    }

    /// Directory of the programs that this Go builds from what is there now.
    fn place(&self, go: &Toolchain) -> Result<PathBuf> {
        let mut inputs = go.version.clone().into_bytes();
        for file in self.inputs()? {
            inputs.extend(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
        }
        Ok(cache()?.join(format!("{}-{}", self.name, &digest_of(&inputs)?[..16])))
    }

    fn inputs(&self) -> Result<Vec<PathBuf>> {
        let Some(source) = self.source() else {
            return Ok(["go.mod", "go.sum"].map(|name| self.folder().join(name)).to_vec());
        };
        let entries = fs::read_dir(&source).with_context(|| format!("list {}", source.display()))?;
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        Ok(files)
    }

    /// Builds one program into `place`, with the build's own files in `work`.
    fn build(&self, go: &Toolchain, package: &str, to: &Path, work: &Path) -> Result<()> {
        let mut command = Command::new(&go.program);
        match self.source() {
            Some(source) => command.current_dir(source).arg("build"),
            None if self.is_test => command.current_dir(self.folder()).args(["test", "-c"]),
            None => command.current_dir(self.folder()).arg("build"),
        };
        let package = if self.source().is_some() { "." } else { package };
        let part = work.join("program");
        command.args(["-mod=readonly", "-trimpath", "-buildvcs=false", "-o"]).arg(&part).arg(package);
        // Only what the checksums name, only as module zips, and nothing left in the user's own Go directories.
        command.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOVCS", "*:off").env("CGO_ENABLED", "0");
        command.env("GOFLAGS", "-modcacherw").env("GOPATH", work.join("go")).env("GOCACHE", work.join("cache"));
        command.env_remove("GOMODCACHE").env("GOROOT", "");
        let output = command.stdin(Stdio::null()).output().context("start go")?;
        ensure!(output.status.success(), "{}", complaint(&String::from_utf8_lossy(&output.stderr)));
        fs::rename(&part, to).with_context(|| format!("move the program to {}", to.display()))
    }
}

/// Where everything lies.
fn cache() -> Result<PathBuf> {
    Ok(environment::cache()?.join("peers"))
}

/// File that tells why a program could not be built.
fn reason_file(program: &str) -> Result<PathBuf> {
    Ok(cache()?.join(format!("{program}.not-built")))
}

/// Builds what is missing and says so through `say`. Whoever needs a program that could not be built finds out from
/// [`find`] and [`reason`]: a machine without network fails nothing here.
pub fn build(say: impl Fn(&str)) -> Result<()> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    // One for all, so that modules that two programs share are fetched and compiled once.
    let work = tempfile::tempdir_in(&cache).context("make a directory to build in")?;
    let go = Toolchain::get(&say);
    for module in MODULES {
        for (program, package) in module.programs {
            let built = go.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).and_then(|go| {
                let place = module.place(go)?;
                if place.join(program).is_file() {
                    return Ok(format!("{program} is there"));
                }
                say(&format!("building {program} with {}", go.version));
                fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
                module.build(go, package, &place.join(program), work.path())?;
                Ok(format!("{program} is built"))
            });
            match built {
                Ok(text) => say(&text),
                Err(error) => {
                    let reason = format!("{error:#}");
                    say(&format!("{program} cannot be built: {reason}"));
                    fs::write(reason_file(program)?, reason).context("keep the reason")?;
                }
            }
        }
    }
    Ok(())
}

/// A program that was built.
pub fn find(program: &str) -> Option<PathBuf> {
    let module = MODULES.iter().find(|module| module.programs.iter().any(|(name, _)| *name == program))?;
    let path = module.place(&Toolchain::find()?).ok()?.join(program);
    path.is_file().then_some(path)
}

/// Why [`find`] does not find a program of this name; nothing if it is none of these.
pub fn reason(program: &str) -> Option<String> {
    MODULES.iter().flat_map(|module| module.programs).find(|(name, _)| *name == program)?;
    let told = reason_file(program).and_then(|file| Ok(fs::read_to_string(file)?));
    Some(told.unwrap_or_else(|_| "it is built by `cargo xtask test --only peers`".to_owned()))
}

/// What Go complains of, in one line and without what it did before.
fn complaint(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("go: downloading "));
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(2)..].join(" ")
}

/// SHA-256 of a file in hexadecimal.
fn digest(file: &Path) -> Result<String> {
    let text = run(Command::new("sha256sum").arg(file))?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// SHA-256 of bytes in hexadecimal.
fn digest_of(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // It reads everything before it writes, and the pipe is closed after this line.
    child.stdin.take().context("stdin")?.write_all(bytes)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sha256sum ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_pins_what_it_names() {
        for module in MODULES {
            let read = |name: &str| fs::read_to_string(module.folder().join(name)).unwrap();
            let (wanted, sums) = (read("go.mod"), read("go.sum"));
            for line in wanted.lines().filter_map(|line| line.strip_suffix(" // indirect")) {
                assert!(sums.contains(&format!("{} h1:", line.trim())), "{}: no checksum of {line}", module.name);
            }
            for (_, package) in module.programs {
                assert!(wanted.contains(package), "{}: {package}", module.name);
            }
        }
    }

    #[test]
    fn a_hash_is_that_of_the_bytes() {
        assert_eq!(&digest_of(b"abc").unwrap()[..16], "ba7816bf8f01cfea");
        assert_eq!(complaint("go: downloading x v1\n# a\n\tb\nc\n"), "b c");
        assert_eq!(reason("no-such-program"), None);
    }
}
