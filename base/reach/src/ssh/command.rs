//! A command for a host, and how its words survive the shell there.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Bytes of stdout and of stderr that are kept unless a command says otherwise.
const OUTPUT_LIMIT: usize = 1024 * 1024;

/// A program and its arguments. SSH knows only one line of text, which the login shell of the user reads;
/// [`to_line`](Command::to_line) writes that line so that the program gets exactly these words.
///
/// Nothing secret belongs here: any user of the host can see the words. Secrets go through standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    as_root: bool,
    output_limit: usize,
}

/// Words that no line can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A NUL byte ends a word in the kernel.
    #[error("word {position} contains a NUL byte")]
    Nul {
        /// Place of the word; the program is 0.
        position: usize,
    },
    /// Not a name of an environment variable.
    #[error("{name:?} is not a name of an environment variable")]
    Variable {
        /// What was given.
        name: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u32),
    /// By this signal, without `SIG`: `TERM`, `KILL`.
    Signal(String),
}

impl Exit {
    /// True for status 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "status {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output, from its beginning up to the limit.
    pub stdout: Vec<u8>,
    /// Standard error, the end of it: what went wrong stands there.
    pub stderr: Vec<u8>,
    /// True when there was more standard output than is kept.
    pub stdout_cut: bool,
    /// True when there was more standard error than is kept.
    pub stderr_cut: bool,
}

impl Output {
    /// Standard output as text, without blanks around it; bytes that are no UTF-8 are replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text, without blanks around it; bytes that are no UTF-8 are replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

impl Command {
    /// A program by path, or by name on the PATH of a non-interactive login.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            as_root: false,
            output_limit: OUTPUT_LIMIT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable by `env NAME=VALUE` in front: sshd takes variables of a client only where it is told to.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs it by `sudo -n --`, unless the user who is logged in is root already.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// Bytes of stdout and of stderr that are kept each; 1 MiB unless set.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    pub(super) fn kept_output(&self) -> usize {
        self.output_limit
    }

    pub(super) fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// The line for the shell of `user`.
    ///
    /// # Errors
    /// A word with a NUL byte, or a variable whose name no shell knows.
    pub fn to_line(&self, user: &str) -> Result<Vec<u8>, CommandError> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        if self.as_root && user != "root" {
            words.extend(["sudo", "-n", "--"].map(|word| word.as_bytes().to_vec()));
        }
        if !self.environment.is_empty() {
            words.push(b"env".to_vec());
        }
        for (name, value) in &self.environment {
            if !is_variable(name) {
                return Err(CommandError::Variable { name: name.clone() });
            }
            words.push([name.as_bytes(), b"=", value.as_bytes()].concat());
        }
        let before = words.len();
        words.push(self.program.as_bytes().to_vec());
        words.extend(self.arguments.iter().map(|argument| argument.as_bytes().to_vec()));
        if let Some(position) = words.iter().position(|word| word.contains(&0)) {
            return Err(CommandError::Nul { position: position.saturating_sub(before) });
        }
        Ok(words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(&b' '))
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// One word for a POSIX shell. Quotes and backslashes stand outside of the single quotes, each behind a backslash: fish
/// reads a backslash inside of them, other shells do not, and so all of them read the same.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word {
        if matches!(byte, b'\'' | b'\\') {
            quoted.extend([b'\'', b'\\', byte, b'\'']);
        } else {
            quoted.push(byte);
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &Command, user: &str) -> String {
        String::from_utf8(command.to_line(user).unwrap()).unwrap()
    }

    #[test]
    fn every_word_is_quoted() {
        let command = Command::new("nix-store").arg("--realise").args(["/nix/store/a b", "", "it's", r"\n"]);
        assert_eq!(line(&command, "root"), r"'nix-store' '--realise' '/nix/store/a b' '' 'it'\''s' ''\\'n'");
    }

    #[test]
    fn root_needs_no_sudo() {
        let command = Command::new("id").as_root();
        assert_eq!(line(&command, "root"), "'id'");
        assert_eq!(line(&command, "admin"), "'sudo' '-n' '--' 'id'");
    }

    #[test]
    fn variables_come_after_sudo() {
        let command = Command::new("sh").as_root().environment("NIX_PATH", "a b");
        assert_eq!(line(&command, "admin"), "'sudo' '-n' '--' 'env' 'NIX_PATH=a b' 'sh'");
    }

    #[test]
    fn what_no_line_can_carry_is_refused() {
        let nul = Command::new("echo").environment("A", "b").arg("a").arg("b\0c");
        assert_eq!(nul.to_line("root"), Err(CommandError::Nul { position: 2 }));
        for name in ["", "1A", "A-B", "A=B", "Ä"] {
            let command = Command::new("env").environment(name, "x");
            assert_eq!(command.to_line("root"), Err(CommandError::Variable { name: name.into() }));
        }
    }
}
