//! The program `git`: every command with the same, empty surroundings.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{Command, LockFile, Output, ProcessError, Supervision};

use super::Error;
use super::access::Access;
use super::address::Address;
use super::error::understand;

/// Lines that are kept of what git says, to understand a failure.
const LINES: usize = 100;

/// Settings of every command: nothing runs that a repository or a user brings along, nothing goes on in the background.
const SETTINGS: [&str; 11] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "protocol.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
    "advice.detachedHead=false",
];

/// What fetches contents that are not there yet. In no file: whoever else reads the repository, Nix among them, is told
/// that something is missing and does not begin to fetch.
const LAZY: [&str; 2] = ["remote.origin.promisor=true", "remote.origin.partialclonefilter=blob:none"];

/// Runs git in one repository while its lock is held.
pub(super) struct Program<'a> {
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// The bare repository as seen from there; nothing in a tree, which knows its own.
    pub(super) repository: Option<&'a str>,
    pub(super) address: &'a Address,
    pub(super) lock: Arc<LockFile>,
    pub(super) timeout: Duration,
}

impl Program<'_> {
    /// A command that stays on this machine.
    pub(super) fn local(&self, arguments: &[&str]) -> Command {
        self.command(None, arguments)
    }

    /// A command that may talk to the server.
    pub(super) fn remote(&self, access: &Access, arguments: &[&str]) -> Command {
        self.command(Some(access), arguments)
    }

    /// Runs a command; when it fails, its words decide how. `operation` is what the error says was tried.
    pub(super) async fn run(&self, operation: &'static str, command: Command) -> Result<Output, Error> {
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let sink = Arc::clone(&said);
        let on_line: host::OnLine = Arc::new(move |line| {
            let mut said = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() == LINES {
                said.pop_front();
            }
            said.push_back(line.to_owned());
        });
        let supervision = Supervision::new().lock(Arc::clone(&self.lock)).on_line(on_line);
        let url = &self.address.url;
        match crate::command::run(command, supervision).await {
            Err(ProcessError::Exit { code: Some(_), .. }) => {
                let said: Vec<String> = said.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
                Err(understand(operation, url, &said))
            }
            Err(ProcessError::Timeout { timeout, .. }) => {
                Err(Error::Timeout { url: url.clone(), seconds: timeout.as_secs() })
            }
            other => Ok(other?),
        }
    }

    fn command(&self, access: Option<&Access>, arguments: &[&str]) -> Command {
        let mut command = Command::new("git").arg("--no-pager").directory(self.directory).timeout(self.timeout);
        if let Some(repository) = self.repository {
            command = command.arg(format!("--git-dir={repository}"));
        }
        for setting in SETTINGS {
            command = command.args(["-c", setting]);
        }
        if let Some(access) = access {
            let allowed = format!("protocol.{}.allow=always", self.address.protocol.as_str());
            command = command.args(["-c", allowed.as_str()]);
            for setting in LAZY {
                command = command.args(["-c", setting]);
            }
            command = command.args(access.arguments());
            for (name, value) in access.environment() {
                command = command.env(name, value);
            }
        }
        command
            .args(arguments.iter().copied())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            // Nothing of git's or ssh's is in there.
            .env("HOME", "/nonexistent")
    }
}
