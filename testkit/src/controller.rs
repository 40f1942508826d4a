//! The real `cairn`: its server, which can be killed and started again, and its command line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Daemon, free_port};
use crate::{commands, environment, http, wait};

/// `cairn serve` with a data directory and a port that stay the same over restarts.
#[derive(Debug)]
pub struct Controller {
    program: PathBuf,
    serve: fn(&Path, &str) -> commands::Words,
    data: PathBuf,
    port: u16,
    address: String,
    variables: Vec<(String, String)>,
    client: Vec<(String, String)>,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl Controller {
    /// Starts it on 127.0.0.1 and waits until it is ready. `more` overrides the settings of
    /// [`commands::controller_environment`].
    pub fn start(work: &Path, webhook_secret: &str, more: &[(&str, &str)]) -> Result<Self> {
        Self::start_at(work, "127.0.0.1", webhook_secret, more)
    }

    /// The same on another address of this machine.
    pub fn start_at(work: &Path, address: &str, webhook_secret: &str, more: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let mut variables = commands::controller_environment(port, webhook_secret);
        for (name, value) in more {
            variables.retain(|(other, _)| other != name);
            variables.push(((*name).to_owned(), (*value).to_owned()));
        }
        Self::new(commands::serve, work, (address, port), variables)
    }

    /// Starts `cairn registry serve` in its place, with these settings and no others.
    pub fn start_registry(work: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let variables = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::new(commands::registry_serve, work, ("127.0.0.1", free_port()?), variables)
    }

    fn new(
        serve: fn(&Path, &str) -> commands::Words,
        work: &Path,
        (address, port): (&str, u16),
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut controller = Self {
            program: environment::cairn()?,
            serve,
            data: work.join("data"),
            port,
            address: address.to_owned(),
            variables,
            client: Vec::new(),
            log: work.join("cairn.log"),
            daemon: None,
        };
        controller.resume()?;
        Ok(controller)
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`] and waits until it is ready.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args((self.serve)(&self.data, &format!("{}:{}", self.address, self.port)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut daemon = Daemon::start("cairn serve", &mut command, &self.log)?;
        let ready = format!("{}/readyz", self.url());
        wait::until("cairn serve to be ready", Duration::from_secs(60), Duration::from_millis(100), || {
            daemon.check()?;
            Ok(http::get(&ready).ok().filter(|answer| answer.status == 200))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Sets a variable of the server from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("cairn serve is not running")?.kill()?;
        Ok(())
    }

    /// SIGSTOP: connections are still taken, but nobody answers, until [`Self::go_on`].
    pub fn pause(&self) -> Result<()> {
        self.daemon.as_ref().context("cairn serve is not running")?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<()> {
        self.daemon.as_ref().context("cairn serve is not running")?.signal(Signal::CONT)
    }

    /// SIGTERM; gives back how it ended, by SIGKILL if it took longer than `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.daemon.take().context("cairn serve is not running")?.stop(limit)
    }

    /// Address of the server.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// File with its log, over all starts.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The lines of its log that are JSON objects.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect())
    }

    /// Waits for a line of the log for which `found` is true.
    pub fn wait_event(&self, what: &str, limit: Duration, found: impl Fn(&Value) -> bool) -> Result<Value> {
        let look = || Ok(self.events()?.into_iter().find(|event| found(event)));
        wait::until(what, limit, Duration::from_millis(200), look)
    }

    /// Process id of the server; nothing while it is not running.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// Adds to the environment of commands, not of the server.
    pub fn set_client(&mut self, more: &[(&str, &str)]) {
        self.client.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    /// Runs a command of `cairn` against this server, as it ends.
    pub fn try_command(&self, words: &[String]) -> Result<Output> {
        self.client_command(words)?.output().with_context(|| format!("start cairn {}", words.join(" ")))
    }

    /// Starts a command of `cairn` against this server and lets it run; its output goes to `log`.
    pub fn spawn(&self, words: &[String], log: &Path) -> Result<Daemon> {
        Daemon::start(&format!("cairn {}", words.join(" ")), &mut self.client_command(words)?, log)
    }

    /// Tries to start a second server on the same data directory, as it ends; on a port of its own.
    pub fn second(&self) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args((self.serve)(&self.data, &format!("{}:0", self.address))).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.output().context("start a second cairn serve")
    }

    fn client_command(&self, words: &[String]) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(words).envs(commands::client_environment(&self.url())?).stdin(Stdio::null());
        command.envs(self.client.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs a command of `cairn` that must end well; gives back its stdout.
    pub fn command(&self, words: &[String]) -> Result<String> {
        let output = self.try_command(words)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("cairn {} ended with {}: {}", words.join(" "), output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A job with its history, as JSON.
    pub fn job_document(&self, id: &str) -> Result<Value> {
        let text = self.command(&commands::job_show(id))?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// A job as it is now.
    pub fn job(&self, id: &str) -> Result<commands::Job> {
        commands::Job::parse(&self.command(&commands::job_show(id))?)
    }
}
