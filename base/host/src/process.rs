//! Commands: what to run, and what came of it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How much of a command's output is kept, in bytes. More on standard output is an error; of standard error the end
/// is kept.
pub const OUTPUT_LIMIT: usize = 4 << 20;

/// How many of the last lines on standard error an error repeats.
const ERROR_LINES: usize = 5;

/// A command: argument vector, never a shell line. The environment is empty but for `PATH`, `LC_ALL=C` and what is
/// added here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) output: Option<PathBuf>,
    pub(crate) directory: Option<PathBuf>,
}

impl Command {
    /// A program, looked for in `/usr/sbin:/usr/bin:/sbin:/bin`, that may run for a minute.
    pub fn new(program: impl Into<String>) -> Self {
        let argv = vec![program.into()];
        let timeout = Duration::from_secs(60);
        Self { argv, input: Vec::new(), environment: Vec::new(), timeout, output: None, directory: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// What the program reads from standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A file that takes standard output, of any size, in the place of what it held. It is there also when the command
    /// did not end well; [`Output::stdout`] stays empty.
    pub fn output_to(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Working directory, in the place of the caller's.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// How long the program may run before it is killed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// The first word.
    pub fn program(&self) -> &str {
        &self.argv[0]
    }
}

/// What a command that ended well wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// The end of standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// A command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// First word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("{program} ended with {status}{}", tail(.stderr))]
    Exit {
        /// First word of the command.
        program: String,
        /// `exit status 1` or `signal 9`.
        status: String,
        /// Exit status, unless a signal ended it.
        code: Option<i32>,
        /// The last lines on standard error.
        stderr: String,
    },
    /// It ran too long and was killed.
    #[error("{program} was killed after {} s{}", .timeout.as_secs(), tail(.stderr))]
    Timeout {
        /// First word of the command.
        program: String,
        /// How long it was allowed to run.
        timeout: Duration,
        /// The last lines on standard error.
        stderr: String,
    },
    /// Whoever asked for it wanted it no more.
    #[error("{program} was stopped")]
    Stopped {
        /// First word of the command.
        program: String,
    },
    /// What it should have read could not be had; it was killed.
    #[error("the input of {program} ended early")]
    Input {
        /// First word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It wrote more than is kept.
    #[error("{program} wrote more than {OUTPUT_LIMIT} bytes")]
    TooMuchOutput {
        /// First word of the command.
        program: String,
    },
    /// The kernel refused to say how it ended.
    #[error("cannot wait for {program}")]
    Wait {
        /// First word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProcessError {
    /// Exit status, when the command ended by itself with a failure.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exit { code, .. } => *code,
            _ => None,
        }
    }

    /// Whether the program is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn tail(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// The last lines of standard error as one line.
pub(crate) fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(ERROR_LINES)..].join("; ")
}

/// Writes the input of a running command.
pub type Feed<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// Runs commands.
pub trait Processes: Send + Sync {
    /// Runs a command to its end.
    fn run(&self, command: &Command) -> Result<Output, ProcessError> {
        let mut input = command.input.as_slice();
        self.run_fed(command, &mut |writer| io::copy(&mut input, writer).map(|_| ()))
    }

    /// Runs a command to its end while `feed` writes its standard input, which ends when `feed` returns. When `feed`
    /// fails, the command is killed. A command that stops reading and still ends well swallows the rest.
    fn run_fed(&self, command: &Command, feed: &mut Feed<'_>) -> Result<Output, ProcessError>;
}
