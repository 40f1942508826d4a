//! What lies between two commits.

use super::mirror::Mirror;
use super::{Commit, Error};

/// Most lines of a history.
const LINES: usize = 1000;
/// Longest subject and name, in characters.
const TEXT: usize = 200;

/// One commit, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The commit.
    pub commit: Commit,
    /// When it was committed, in seconds since 1970.
    pub seconds: i64,
    /// Its author's name.
    pub author: String,
    /// First line of its message.
    pub subject: String,
}

impl Mirror {
    /// The commits that `to` has and `from` has not, the latest first, at most so many and never more than 1000. Names and
    /// subjects are cut after 200 characters and hold no control characters.
    ///
    /// # Errors
    /// [`Error::UnknownCommit`] when one of them is not in the mirror.
    pub async fn log(&self, from: &Commit, to: &Commit, limit: usize) -> Result<Vec<LogLine>, Error> {
        let lock = self.lock().await?;
        let program = self.program(&lock);
        for commit in [from, to] {
            self.expect(&program, commit).await?;
        }
        let (count, range) = (format!("--max-count={}", limit.min(LINES)), format!("{from}..{to}"));
        let format = "--format=%H%x00%ct%x00%an%x00%s";
        let arguments = ["log", "--no-show-signature", "--no-color", &count, format, &range, "--"];
        let output = program.run("read the history of", program.local(&arguments)).await?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(line).collect())
    }

    /// Whether everything that `older` has is in `newer` too: if not, history was written anew.
    ///
    /// # Errors
    /// [`Error::UnknownCommit`] when one of them is not in the mirror.
    pub async fn is_ancestor(&self, older: &Commit, newer: &Commit) -> Result<bool, Error> {
        let lock = self.lock().await?;
        let program = self.program(&lock);
        for commit in [older, newer] {
            self.expect(&program, commit).await?;
        }
        let arguments = ["rev-list", "--max-count=1", older.as_str(), &format!("^{newer}"), "--"];
        Ok(program.run("read the history of", program.local(&arguments)).await?.stdout.is_empty())
    }
}

fn line(line: &str) -> Option<LogLine> {
    let mut parts = line.splitn(4, '\0');
    let commit = Commit::parse(parts.next()?)?;
    let seconds = parts.next()?.parse().ok()?;
    let mut text = || Some(parts.next()?.chars().filter(|c| !c.is_control()).take(TEXT).collect());
    Some(LogLine { commit, seconds, author: text()?, subject: text()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_and_cleaned() {
        let id = "a".repeat(40);
        let read = line(&format!("{id}\0{}\0Ada\u{1b}[1m\0{}", 7, "x".repeat(500))).unwrap();
        assert_eq!((read.seconds, read.author.as_str(), read.subject.len()), (7, "Ada[1m", TEXT));
        assert_eq!(line("not one"), None);
    }
}
