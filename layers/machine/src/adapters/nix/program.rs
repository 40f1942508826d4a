//! Every command of Nix in the same surroundings.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{Command, OnLine, Output, ProcessError, Supervision};

use super::{Error, Nix};

/// Lines that are kept of what Nix and builders write.
const TAIL: usize = 60;

/// Whose settings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// Ours: it happens here.
    Here,
    /// Those of the machine behind a bridge. Nix hands on to it what our environment says, so that says little.
    There,
}

/// How a command ended that did not end well.
pub(super) enum Failed {
    /// By itself, or by a signal that is not ours, after these lines.
    Exit { code: Option<i32>, tail: Vec<String> },
    /// Otherwise.
    Error(Error),
}

impl Nix {
    /// A value of a setting is one line; words in a list are one word each.
    pub(super) fn check_settings(&self) -> Result<(), Error> {
        let settings = &self.settings;
        let lists = [("substituters", &settings.substituters), ("trusted-public-keys", &settings.trusted_keys)];
        for (name, words) in lists {
            let is_wrong =
                |word: &&String| word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control());
            if let Some(value) = words.iter().flatten().find(is_wrong) {
                return Err(Error::Setting { name, value: value.clone() });
            }
        }
        Ok(())
    }

    /// The text of `NIX_CONFIG`.
    fn configuration(&self, place: Where) -> String {
        let mut lines = vec![
            "experimental-features = nix-command flakes".to_owned(),
            "accept-flake-config = false".to_owned(),
            "flake-registry =".to_owned(),
            "connect-timeout = 15".to_owned(),
        ];
        let settings = &self.settings;
        if place == Where::Here {
            let list = |name: &str, words: &Option<Vec<String>>| {
                words.as_ref().map(|words| format!("{name} = {}", words.join(" ")))
            };
            lines.extend(list("substituters", &settings.substituters));
            lines.extend(list("trusted-public-keys", &settings.trusted_keys));
            lines.extend(settings.sandbox.map(|sandbox| format!("sandbox = {sandbox}")));
        }
        lines.join("\n")
    }

    /// A program of Nix.
    pub(super) fn command(&self, program: &str, place: Where, limit: Duration) -> Command {
        let home = self.settings.state.join("home").display().to_string();
        let mut command = Command::new(program)
            .timeout(limit)
            .env("PATH", &self.settings.search_path)
            .env("HOME", home)
            .env("NO_COLOR", "1")
            .env("NIX_USER_CONF_FILES", "/dev/null")
            .env("NIX_CONFIG", self.configuration(place))
            // For the git that Nix runs.
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        for (name, value) in &self.settings.environment {
            command = command.env(name, value);
        }
        command
    }

    /// Runs a command; every line on standard error goes to `on_line` as it comes.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        command: Command,
        memory: Option<u64>,
        on_line: Option<&OnLine>,
    ) -> Result<Output, Failed> {
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (sink, forward) = (Arc::clone(&tail), on_line.cloned());
        let collect: OnLine = Arc::new(move |line| {
            let line = clean(line);
            if let Some(forward) = &forward {
                forward(&line);
            }
            let mut tail = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        });
        let mut supervision = Supervision::new().on_line(collect);
        if let Some(bytes) = memory {
            supervision = supervision.memory(bytes);
        }
        match reach::command::run(command, supervision).await {
            Ok(output) => Ok(output),
            Err(ProcessError::Exit { code, .. }) => {
                let tail = tail.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
                Err(Failed::Exit { code, tail })
            }
            Err(ProcessError::Timeout { timeout, .. }) => {
                Err(Failed::Error(Error::Timeout { operation, seconds: timeout.as_secs() }))
            }
            Err(error) => Err(Failed::Error(error.into())),
        }
    }
}

/// A line without what a terminal would obey.
pub(super) fn clean(line: &str) -> String {
    let mut out = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.peek() == Some(&'[') {
            // A control sequence ends with a letter or one of a few signs.
            let _ = characters.by_ref().skip(1).find(|c| ('\u{40}'..='\u{7e}').contains(c));
        } else if character == '\t' || !character.is_control() {
            out.push(character);
        }
    }
    out
}

/// Whether any of the lines holds any of the words.
pub(super) fn says(tail: &[String], words: &[&str]) -> bool {
    tail.iter().any(|line| words.iter().any(|word| line.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::nix::NixSettings;

    #[test]
    fn lines_of_builders_are_harmless() {
        assert_eq!(clean("\u{1b}[31;1merror:\u{1b}[0m a\u{7}b\u{1b}]0;x"), "error: ab]0;x");
    }

    #[test]
    fn settings_are_ours_here_and_the_machines_there() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Some(vec!["https://cache.example.org".to_owned()]);
        let settings = NixSettings { substituters: cache, sandbox: Some(true), ..NixSettings::new(directory.path()) };
        let nix = Nix::new(settings.clone()).unwrap();
        let here = nix.configuration(Where::Here);
        assert!(here.contains("\nsubstituters = https://cache.example.org\nsandbox = true"), "{here}");
        assert!(!nix.configuration(Where::There).contains("sandbox"));
        let split = Some(vec!["https://a\nsandbox = false".to_owned()]);
        let error = Nix::new(NixSettings { substituters: split, ..settings }).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "substituters", .. }), "{error}");
    }
}
