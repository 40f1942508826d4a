//! A machine as [`Host`], over anything that runs programs on it.

use std::future::Future;
use std::time::Duration;

use cairn_core::ErrorKind;
use secrecy::ExposeSecret as _;

use super::{Answer, INSTALL, SCRIPT, preview, script_path};
use crate::adapters::probe;
use crate::errors;
use crate::model::{Activation, Delivery, DeploymentId, File, HealthCheck, Origin, Preview, Probe, Running, StorePath};
use crate::plan::Fault;
use crate::ports::{Host, Order};

/// What a program on the machine wrote, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Exit code; nothing when a signal ended it.
    pub code: Option<u32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Runs programs on a machine.
pub trait Shell: Send + Sync {
    /// Runs a program with this standard input; as root where that is asked for, else as the user of the connection.
    fn run(
        &self,
        argv: &[String],
        input: &[u8],
        as_root: bool,
        limit: Duration,
    ) -> impl Future<Output = Result<Answered, Fault>> + Send;

    /// Everything from here on goes over a new connection.
    fn reconnect(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether the machine reaches a port. The inner error says why it does not.
    fn dial(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> impl Future<Output = Result<Result<(), String>, Fault>> + Send;

    /// The machine's own address, for checks from here.
    fn address(&self) -> String;
}

/// How long a question may take: a host that is restarting its services answers late.
const QUESTION: Duration = Duration::from_secs(60);
/// How long a verdict may take: the other system is activated meanwhile. The host goes on in any case.
const VERDICT: Duration = Duration::from_secs(600);

/// A machine over a [`Shell`].
#[derive(Debug)]
pub struct Remote<S> {
    shell: S,
}

impl<S: Shell> Remote<S> {
    /// A machine.
    pub fn new(shell: S) -> Self {
        Self { shell }
    }

    /// What runs programs on it.
    pub fn shell(&self) -> &S {
        &self.shell
    }

    async fn ask(&self, words: &[&str], limit: Duration) -> Result<Answer, Fault> {
        let argv: Vec<String> = ["sh", "-s", "--"].iter().chain(words).map(|&word| word.to_owned()).collect();
        let answered = self.shell.run(&argv, SCRIPT.as_bytes(), true, limit).await?;
        read(&answered)
    }

    async fn ask_about(&self, words: &[&str], id: DeploymentId) -> Result<(Activation, Running), Fault> {
        let limit = if words[0] == "status" { QUESTION } else { VERDICT };
        let answer = self.ask(words, limit).await?;
        Ok((
            answer.activation(id).map_err(|error| refused(&error))?,
            answer.running().map_err(|error| refused(&error))?,
        ))
    }

    /// Puts the script onto the host, for its units.
    async fn install(&self, deployment: DeploymentId) -> Result<(), Fault> {
        let (id, size) = (deployment.to_string(), SCRIPT.len().to_string());
        let argv = ["sh", "-c", INSTALL, "cairn", &id, &size].map(str::to_owned);
        let answered = self.shell.run(&argv, SCRIPT.as_bytes(), true, QUESTION).await?;
        if answered.code == Some(0) { Ok(()) } else { Err(ended("writing to /run/cairn", &answered)) }
    }
}

/// An answer of the script; anything else, such as sudo's word, is a fault that says what was said.
fn read(answered: &Answered) -> Result<Answer, Fault> {
    match Answer::read(&answered.stdout) {
        Ok(answer) if answered.code == Some(0) => Ok(answer),
        Ok(_) => Err(ended("the host's script", answered)),
        Err(error) if answered.stderr.is_empty() => Err(refused(&error)),
        Err(error) => Err(refused(&error).log(String::from_utf8_lossy(&answered.stderr))),
    }
}

fn refused(error: &super::Unreadable) -> Fault {
    Fault::lasting(ErrorKind::Failed, errors::MACHINE_HOST, error.to_string())
}

fn ended(what: &str, answered: &Answered) -> Fault {
    let how = answered.code.map_or("a signal".to_owned(), |code| code.to_string());
    let stderr = String::from_utf8_lossy(&answered.stderr).trim().to_owned();
    let last = stderr.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    Fault::lasting(ErrorKind::Failed, errors::MACHINE_HOST, format!("{what} ended with {how}{last}")).log(stderr)
}

impl<S: Shell> Host for Remote<S> {
    async fn running(&self) -> Result<Running, Fault> {
        self.ask(&["running"], QUESTION).await?.running().map_err(|error| refused(&error))
    }

    async fn preview(&self, system: &StorePath) -> Result<Preview, Fault> {
        Ok(preview(&self.ask(&["preview", system.as_str()], VERDICT).await?))
    }

    async fn deliver(&self, deployment: DeploymentId, files: &[File]) -> Result<(), Fault> {
        let mut installed = false;
        for file in files {
            let Delivery::Host { owner, group, mode } = &file.delivery else { continue };
            if !installed {
                self.install(deployment).await?;
                installed = true;
            }
            let content = file.content.expose_secret().as_bytes();
            let (script, id, mode) = (script_path(deployment), deployment.to_string(), format!("{mode:04o}"));
            let size = content.len().to_string();
            let argv = ["sh", &script, "deliver", &id, &file.path, owner, group, &mode, &size].map(str::to_owned);
            let answer = read(&self.shell.run(&argv, content, true, QUESTION).await?)?;
            if !answer.delivered {
                return Err(refused(&super::Unreadable::Short));
            }
        }
        Ok(())
    }

    async fn begin(&self, order: &Order<'_>) -> Result<(Activation, Running), Fault> {
        self.install(order.deployment).await?;
        let (id, seconds) = (order.deployment.to_string(), order.confirm.as_secs().max(1).to_string());
        self.ask_about(&["begin", &id, order.system.as_str(), &seconds], order.deployment).await
    }

    async fn activation(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        self.ask_about(&["status", &deployment.to_string()], deployment).await
    }

    async fn confirm(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        self.ask_about(&["confirm", &deployment.to_string()], deployment).await
    }

    async fn roll_back(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        let reason = "its health was not good";
        self.ask_about(&["roll-back", &deployment.to_string(), reason], deployment).await
    }

    async fn forget(&self, deployment: DeploymentId) -> Result<(), Fault> {
        self.ask(&["forget", &deployment.to_string()], QUESTION).await.map(drop)
    }

    async fn reconnect(&self) -> Result<(), Fault> {
        self.shell.reconnect().await
    }

    async fn check(&self, check: &HealthCheck) -> Result<Result<(), String>, Fault> {
        let seconds = check.timeout.as_secs().clamp(1, 3600).to_string();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let argv = match &check.probe {
            Probe::Command(argv) => argv.clone(),
            Probe::Units(units) => words(&["systemctl", "is-active", "--"]).into_iter().chain(units.clone()).collect(),
            Probe::Http { url, from: Origin::Machine, .. } => words(&[
                "curl",
                "--silent",
                "--show-error",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--proto",
                "=http,https",
                "--max-time",
                &seconds,
                "--",
                url,
            ]),
            Probe::Tcp { host, port, from: Origin::Machine } => {
                return self.shell.dial(host.as_deref().unwrap_or("127.0.0.1"), *port, check.timeout).await;
            }
            Probe::Http { url, status, from: Origin::Controller } => {
                return Ok(probe::http(url, *status, check.timeout).await);
            }
            Probe::Tcp { host, port, from: Origin::Controller } => {
                let host = host.clone().unwrap_or_else(|| self.shell.address());
                return Ok(probe::tcp(&host, *port, check.timeout).await);
            }
        };
        let answered = self.shell.run(&argv, b"", false, check.timeout).await?;
        Ok(judge(&check.probe, &answered))
    }
}

fn judge(probe: &Probe, answered: &Answered) -> Result<(), String> {
    let stdout = String::from_utf8_lossy(&answered.stdout);
    let bad = || match ended("it", answered).message {
        message if answered.code == Some(127) => format!("{message} (the machine has no such program)"),
        message => message,
    };
    match probe {
        Probe::Units(units) => {
            // Its exit code is 0 as soon as one of them is active.
            let states: Vec<&str> = stdout.lines().collect();
            if states.len() != units.len() {
                return Err(bad());
            }
            let wrong = states.iter().zip(units).filter(|(state, _)| **state != "active");
            let wrong: Vec<_> = wrong.map(|(state, unit)| format!("{unit} is {state}")).collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
        }
        Probe::Http { status, .. } if answered.code == Some(0) => match (stdout.trim().parse::<u16>(), status) {
            (Ok(seen), Some(wanted)) if seen == *wanted => Ok(()),
            (Ok(200..=299), None) => Ok(()),
            _ => Err(format!("it answers {}", stdout.trim())),
        },
        _ if answered.code == Some(0) => Ok(()),
        _ => Err(bad()),
    }
}
