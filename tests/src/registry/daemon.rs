//! The registry that clients talk to, and the clients' commands. How it is started is told here and nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use testkit::controller::Controller;
use testkit::http::{self, Response};
use testkit::process::run;
use testkit::{environment, peers, sushy};

use crate::runner::CannotRun;
use crate::scripted::floor::basic;

/// What the clients log in with.
pub(crate) const USER: &str = "pusher";
pub(crate) const PASSWORD: &str = "pusher/Pa55-word";

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody who reaches it.
    Anonymous,
    /// Whoever has [`PASSWORD`], by HTTP Basic.
    Basic,
    /// Whoever has a bearer token, which the registry gives for that password.
    Token,
}

impl Access {
    /// Value of `REGISTRY_AUTH_MODE`.
    fn mode(self) -> &'static str {
        match self {
            Self::Anonymous => "none",
            Self::Basic => "htpasswd",
            Self::Token => "token",
        }
    }
}

/// A registry on 127.0.0.1 that holds nothing.
#[derive(Debug)]
pub(crate) struct Registry {
    pub access: Access,
    controller: Controller,
    work: PathBuf,
}

impl Registry {
    /// Starts it and waits until it is ready. Everything lies in `work`.
    pub(crate) fn start(work: &Path, access: Access) -> Result<Self> {
        for folder in [work.to_owned(), work.join("home"), work.join("run")] {
            std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let users = work.join("users");
        std::fs::write(&users, sushy::password_line(USER, PASSWORD)? + "\n").context("write the users file")?;
        let users = users.display().to_string();
        // A share of a large disk that others fill has nothing to do with what is tested.
        let mut settings =
            vec![("REGISTRY_AUTH_MODE", access.mode()), ("REGISTRY_MIN_FREE", "64MiB"), ("LOG_FORMAT", "json")];
        if access != Access::Anonymous {
            settings.push(("REGISTRY_HTPASSWD_FILE", &users));
        }
        let controller = Controller::start_registry(work, &settings)?;
        Ok(Self { access, controller, work: work.to_owned() })
    }

    /// The directory for what a test writes.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        self.controller.url().trim_start_matches("http://").to_owned()
    }

    /// `host:port/name`, as most clients name it.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.authority())
    }

    /// Process id.
    pub(crate) fn process(&self) -> Result<u32> {
        self.controller.process().context("the registry is not running")
    }

    /// A client's command with a home directory of its own, so that it finds and leaves nothing in the user's.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(peers::find(program).unwrap_or_else(|| PathBuf::from(program)));
        command.current_dir(&self.work).env("HOME", self.work.join("home"));
        command.env("XDG_RUNTIME_DIR", self.work.join("run")).env_remove("DOCKER_CONFIG");
        command
    }

    /// Runs a client that must end well.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.client(program).args(arguments))
    }

    /// Runs a client that must fail, and gives back what it said.
    pub(crate) fn refused(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.client(program).args(arguments).stdin(std::process::Stdio::null()).output();
        let output = output.with_context(|| format!("start {program}"))?;
        ensure!(!output.status.success(), "{program} {} ended well", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where a login is asked for, tries a wrong one and then logs in. `words` are the client's command without user and
    /// password, which go between them and the last one.
    pub(crate) fn log_in(&self, program: &str, words: &[&str], last: &str) -> Result<()> {
        if self.access == Access::Anonymous {
            return Ok(());
        }
        let with = |password| [words, &["-u", USER, "-p", password, last]].concat();
        let told = self.refused(program, &with("wrong")).context("a wrong password")?.to_lowercase();
        ensure!(
            told.contains("unauthorized") || told.contains("invalid username/password"),
            "a wrong password: {told}"
        );
        self.run(program, &with(PASSWORD)).map(drop)
    }

    /// A request that no client makes for us, with the login if there is one.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        let url = format!("{}{path}", self.controller.url());
        let answer = http::request(method, &url, headers, b"")?;
        if self.access == Access::Anonymous {
            return Ok(answer);
        }
        let challenge = answer.header("www-authenticate").context("nobody was asked for a login")?;
        let proof = match self.access {
            Access::Token => format!("Bearer {}", token(challenge)?),
            _ => basic(USER, PASSWORD),
        };
        http::request(method, &url, &[headers, &[("Authorization", &proof)]].concat(), b"")
    }

    /// A manifest that must be there: its media type and its bytes.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Result<(String, Vec<u8>)> {
        let answer = self.request("GET", &format!("/v2/{repository}/manifests/{reference}"), &[("Accept", "*/*")])?;
        ensure!(answer.status == 200, "{repository} {reference}: {} {}", answer.status, answer.text());
        Ok((answer.header("content-type").unwrap_or_default().to_owned(), answer.body))
    }

    /// Status of a HEAD.
    pub(crate) fn status(&self, path: &str) -> Result<u16> {
        Ok(self.request("HEAD", path, &[("Accept", "*/*")])?.status)
    }
}

/// Asks where the challenge says for a token.
fn token(challenge: &str) -> Result<String> {
    let parameter = |name: &str| Some(challenge.split_once(&format!("{name}=\""))?.1.split_once('"')?.0);
    let all = (parameter("realm"), parameter("service"), parameter("scope"));
    let (Some(realm), Some(service), Some(scope)) = all else { bail!("not a challenge for a token: {challenge}") };
    let proof = basic(USER, PASSWORD);
    let answer =
        http::request("GET", &format!("{realm}?service={service}&scope={scope}"), &[("Authorization", &proof)], b"")?;
    let told = answer.json()?;
    Ok(told["token"].as_str().with_context(|| format!("no token: {} {told}", answer.status))?.to_owned())
}

/// podman and buildah unpack layers in a chroot of their own, for which `/` has to be a mount point.
pub(crate) fn root_is_mounted() -> Result<()> {
    if environment::root_is_mounted() {
        return Ok(());
    }
    Err(CannotRun("/ is no mount point, and layers cannot be unpacked".to_owned()).into())
}

/// Runs a test against a registry for everybody and against those that ask for a login.
pub(crate) fn with_each_access(work: &Path, test: fn(&Registry) -> Result<()>) -> Result<()> {
    for access in [Access::Anonymous, Access::Basic, Access::Token] {
        let registry = Registry::start(&work.join(format!("{access:?}").to_lowercase()), access)?;
        test(&registry).with_context(|| format!("access {access:?}"))?;
    }
    Ok(())
}
