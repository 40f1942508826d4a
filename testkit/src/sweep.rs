//! Planted secrets, searched for wherever they must not be. A finding names the secret, never its value.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::wait;

/// Files larger than this are not read: images and artifacts.
const LARGEST: u64 = 64 << 20;

/// The secrets to look for.
#[derive(Debug, Clone, Default)]
pub struct SecretSweep {
    /// Name of the secret and one of the spellings of its value.
    needles: Vec<(String, Vec<u8>)>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// "secret in place", each once.
    pub found: BTreeSet<String>,
    /// Files that were too large to be read.
    pub unread: Vec<PathBuf>,
}

impl Findings {
    /// Fails naming every finding.
    pub fn check(&self) -> Result<()> {
        let list: Vec<&str> = self.found.iter().map(String::as_str).collect();
        ensure!(list.is_empty(), "secrets where they must not be:\n{}", list.join("\n"));
        Ok(())
    }

    fn join(&mut self, other: Self) {
        self.found.extend(other.found);
        self.unread.extend(other.unread);
    }
}

impl SecretSweep {
    /// Adds a secret of at least 8 bytes, as it is, in JSON, percent-encoded and within base64 at any place.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        assert!(value.len() >= 8, "the secret {name} is too short to be found for sure");
        let json = serde_json::Value::from(value).to_string();
        let mut spellings = vec![value.to_owned(), json[1..json.len() - 1].to_owned(), percent(value)];
        spellings.extend((0..3).map(|shift| base64_core(value.as_bytes(), shift)));
        for needle in spellings.into_iter().map(String::into_bytes) {
            if !self.needles.iter().any(|(_, other)| *other == needle) {
                self.needles.push((name.to_owned(), needle));
            }
        }
        self
    }

    /// Looks into a text, for example a list of events; `place` names it.
    pub fn text(&self, place: &str, text: &[u8]) -> Findings {
        let mut findings = Findings::default();
        for (name, needle) in &self.needles {
            if contains(text, needle) {
                findings.found.insert(format!("{name} in {place}"));
            }
        }
        findings
    }

    /// Looks into a file, whatever its mode, for example a log.
    pub fn file(&self, path: &Path) -> Result<Findings> {
        let length = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.len();
        if length > LARGEST {
            return Ok(Findings { unread: vec![path.to_owned()], ..Findings::default() });
        }
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(self.text(&path.display().to_string(), &bytes))
    }

    /// Looks into every file below `root` that any user of the machine could read, and into the names.
    pub fn readable_by_all(&self, root: &Path) -> Result<Findings> {
        let mut findings = Findings::default();
        let metadata = std::fs::symlink_metadata(root).with_context(|| format!("look at {}", root.display()))?;
        let mode = metadata.permissions().mode();
        findings.join(self.text(&format!("the name {}", root.display()), root.as_os_str().as_encoded_bytes()));
        if metadata.is_file() && mode & 0o004 != 0 {
            findings.join(self.file(root)?);
        }
        // Without search permission nobody gets further.
        if metadata.is_dir() && mode & 0o001 != 0 {
            for entry in std::fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
                findings.join(self.readable_by_all(&entry?.path())?);
            }
        }
        Ok(findings)
    }

    /// Watches the command lines of all processes until [`ArgvWatch::end`]. A process that lives shorter than 10 ms
    /// may be missed.
    pub fn watch_argv(&self) -> ArgvWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sweep, flag, shared) = (self.clone(), Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                sweep.look_at_argv(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
                wait::pause(Duration::from_millis(10));
            }
        });
        ArgvWatch { stop, seen, thread }
    }

    fn look_at_argv(&self, seen: &mut Seen) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            // A process may be gone by now.
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            if line.is_empty() || !seen.lines.insert(line.clone()) {
                continue;
            }
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            seen.findings.join(self.text(&format!("argv of {}", String::from_utf8_lossy(program)), &line));
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    lines: BTreeSet<Vec<u8>>,
    findings: Findings,
}

/// See [`SecretSweep::watch_argv`].
#[derive(Debug)]
pub struct ArgvWatch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl ArgvWatch {
    /// Ends the watch; gives back what was found and how many different command lines were seen.
    pub fn end(self) -> Result<(Findings, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the watch of command lines panicked")?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((seen.findings.clone(), seen.lines.len()))
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = text;
    while let Some(start) = rest.iter().position(|byte| byte == first) {
        rest = &rest[start..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

fn percent(value: &str) -> String {
    let spell = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(spell).collect()
}

/// The base64 letters that depend on `value` alone when it begins `shift` bytes after a multiple of three.
fn base64_core(value: &[u8], shift: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = std::iter::repeat_n(0, shift).chain(value.iter().copied()).collect();
    let bit = |index: usize| bytes[index / 8] >> (7 - index % 8) & 1;
    let whole = bytes.len() * 8 / 6;
    // A letter holds six bits; the first ones may hold bits of what stands before the value.
    let first = (shift * 8).div_ceil(6);
    (first..whole)
        .map(|letter| (0..6).fold(0, |sum, offset| sum << 1 | bit(letter * 6 + offset)))
        .map(|sum| char::from(LETTERS[usize::from(sum)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2/\"very\"";

    fn sweep() -> SecretSweep {
        SecretSweep::default().secret("password", SECRET)
    }

    #[test]
    fn every_spelling_is_found_and_never_shown() {
        // The last two are `admin:SECRET` and `x:SECRET` in base64.
        for text in [
            SECRET,
            r#"{"password":"hunter2/\"very\""}"#,
            "https://admin:hunter2%2F%22very%22@bmc/",
            "Basic YWRtaW46aHVudGVyMi8idmVyeSI=",
            "Basic eDpodW50ZXIyLyJ2ZXJ5Ig==",
        ] {
            let findings = sweep().text("the log", text.as_bytes());
            assert_eq!(findings.found.iter().collect::<Vec<_>>(), ["password in the log"], "{text}");
            assert!(!findings.check().unwrap_err().to_string().contains("hunter2"));
        }
        assert!(sweep().text("the log", b"hunter3").check().is_ok());
    }

    #[test]
    fn only_what_others_can_read_counts() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(root.path(), 0o755);
        let (open, closed, hidden) =
            (root.path().join("open"), root.path().join("closed"), root.path().join("private/open"));
        std::fs::create_dir(hidden.parent().unwrap()).unwrap();
        for (path, bits) in [(&open, 0o644), (&closed, 0o640), (&hidden, 0o644)] {
            std::fs::write(path, SECRET).unwrap();
            mode(path, bits);
        }
        mode(hidden.parent().unwrap(), 0o750);
        let found = sweep().readable_by_all(root.path()).unwrap().found;
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [format!("password in {}", open.display())]);
    }

    #[test]
    fn a_secret_on_a_command_line_is_seen() {
        let planted = "planted-on-argv-5d1f";
        let watch = SecretSweep::default().secret("token", planted).watch_argv();
        let mut tail = std::process::Command::new("tail");
        let mut tail =
            tail.args(["-q", "-f", "/dev/null", planted]).stderr(std::process::Stdio::null()).spawn().unwrap();
        let seen = wait::until("the command line", Duration::from_secs(60), Duration::from_millis(10), || {
            let seen = watch.seen.lock().unwrap();
            Ok(seen.findings.found.iter().any(|line| line == "token in argv of tail").then_some(()))
        });
        tail.kill().unwrap();
        tail.wait().unwrap();
        seen.unwrap();
        assert!(watch.end().unwrap().0.check().is_err());
    }
}
