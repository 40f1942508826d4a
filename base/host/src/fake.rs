//! A host that only remembers, beside the real one: for faults that the real one cannot be made to have.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mount::{Mount, MountError, Mounted, Mounts};
use crate::process::{Command, Feed, Output, ProcessError, Processes};

/// What the fake answers to a command.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Ends well with this on standard output.
    Stdout(String),
    /// Ends with this exit status and this on standard error.
    Exit(i32, String),
    /// The program is not installed.
    Missing,
}

/// Remembers every command and mount on one line each, in order, and answers as told; otherwise everything ends well
/// and says nothing.
#[derive(Debug, Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<(Vec<String>, Reply)>,
    lines: Vec<String>,
    inputs: Vec<(String, Vec<u8>)>,
    mounted: Vec<Mounted>,
}

impl Fake {
    /// A fake without rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers commands that begin with these words. The latest rule that fits counts.
    pub fn on(self, words: &[&str], reply: Reply) -> Self {
        self.state().rules.push((words.iter().map(|word| (*word).to_owned()).collect(), reply));
        self
    }

    /// Everything that was asked for so far: argument vectors joined by spaces, and mounts.
    pub fn lines(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// What the first command with this program read from standard input.
    pub fn input_of(&self, program: &str) -> Option<Vec<u8>> {
        self.state().inputs.iter().find(|(name, _)| name == program).map(|(_, input)| input.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processes for Fake {
    fn run_fed(&self, command: &Command, feed: &mut Feed<'_>) -> Result<Output, ProcessError> {
        let program = command.program().to_owned();
        let reply = {
            let mut state = self.state();
            state.lines.push(command.argv().join(" "));
            let fits = |rule: &&(Vec<String>, Reply)| command.argv().starts_with(&rule.0);
            state.rules.iter().rev().find(fits).map(|(_, reply)| reply.clone())
        };
        if let Some(Reply::Missing) = reply {
            return Err(ProcessError::Start { program, source: io::ErrorKind::NotFound.into() });
        }
        let mut input = Vec::new();
        let writer: &mut dyn Write = &mut input;
        feed(writer).map_err(|source| ProcessError::Input { program: program.clone(), source })?;
        self.state().inputs.push((program.clone(), input));
        match reply {
            Some(Reply::Stdout(text)) => Ok(Output { stdout: text.into_bytes(), stderr: Vec::new() }),
            Some(Reply::Exit(code, stderr)) => {
                Err(ProcessError::Exit { program, status: format!("exit status {code}"), code: Some(code), stderr })
            }
            Some(Reply::Missing) | None => Ok(Output::default()),
        }
    }
}

impl Mounts for Fake {
    fn mount(&self, mount: &Mount) -> Result<(), MountError> {
        let mut state = self.state();
        state.lines.push(mount.line());
        state.mounted.push(Mounted {
            source: mount.source.clone(),
            target: mount.target.clone(),
            filesystem: mount.filesystem.clone(),
        });
        Ok(())
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError> {
        let mut state = self.state();
        state.lines.push(format!("bind {} {}", source.display(), target.display()));
        state.mounted.push(Mounted { source: source.into(), target: target.into(), filesystem: "bind".into() });
        Ok(())
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let mut state = self.state();
        state.lines.push(format!("unmount {}", target.display()));
        match state.mounted.iter().rposition(|mounted| mounted.target == target) {
            Some(index) => drop(state.mounted.remove(index)),
            None => {
                return Err(MountError::Unmount { target: target.into(), source: io::ErrorKind::InvalidInput.into() });
            }
        }
        Ok(())
    }

    fn mounts(&self) -> Result<Vec<Mounted>, MountError> {
        Ok(self.state().mounted.clone())
    }
}
