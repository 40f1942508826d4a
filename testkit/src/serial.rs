//! What a machine writes on its serial console.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wait;

/// The file that collects the serial console of one machine, over all its boots.
#[derive(Debug, Clone)]
pub struct SerialLog(PathBuf);

/// A place in the log; what was written before it is not looked at again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark(usize);

impl SerialLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Everything so far, without carriage returns and terminal sequences.
    pub fn text(&self) -> String {
        self.since(Mark(0))
    }

    /// The end of the log as it is now.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(&self.0).map_or(0, |metadata| metadata.len() as usize))
    }

    /// What was written after `mark`.
    pub fn since(&self, mark: Mark) -> String {
        // A machine that was never on has no log yet.
        let bytes = std::fs::read(&self.0).unwrap_or_default();
        plain(&String::from_utf8_lossy(bytes.get(mark.0..).unwrap_or_default()))
    }

    /// Waits until `text` is in the log; gives back how long that took.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<Duration> {
        self.wait_since(Mark(0), text, limit)
    }

    /// Waits until `text` is written after `mark`; the failure shows the last lines.
    pub fn wait_since(&self, mark: Mark, text: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let look = || Ok(self.since(mark).contains(text).then_some(()));
        if wait::until(text, limit, Duration::from_millis(200), look).is_err() {
            bail!(
                "no {text:?} on the serial console ({}) within {} s; its last lines:\n{}",
                self.0.display(),
                limit.as_secs(),
                self.tail(20)
            );
        }
        Ok(start.elapsed())
    }

    /// The last lines that are not empty.
    pub fn tail(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Takes out carriage returns and terminal control sequences (ECMA-48 CSI), which firmware writes between letters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\r' => {}
            '\u{1b}' => {
                if rest.next() == Some('[') {
                    rest.by_ref().find(|last| ('@'..='~').contains(last));
                }
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_do_not_hide_text() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01HBds\u{1b}[0mDxe\r\n"), "BdsDxe\n");
    }

    #[test]
    fn only_what_follows_the_mark_counts() {
        let directory = tempfile::tempdir().unwrap();
        let log = SerialLog::new(directory.path().join("serial"));
        assert_eq!(log.text(), "");
        std::fs::write(log.path(), "login:\n").unwrap();
        let mark = log.mark();
        assert!(log.wait_for("login:", Duration::ZERO).is_ok());
        let error = log.wait_since(mark, "login:", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("no \"login:\" on the serial console"), "{error}");
    }
}
