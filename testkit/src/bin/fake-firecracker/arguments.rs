//! Firecracker's command line, and three options by which the fake jailer hands its jail over.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{Gid, Uid};

/// Bytes of a body that are taken without an option.
const PAYLOAD_LIMIT: usize = 51_200;

/// Options of the real one that need a value and change nothing here.
const WITH_VALUE: &[&str] = &[
    "seccomp-filter",
    "start-time-us",
    "start-time-cpu-us",
    "parent-cpu-time-us",
    "metadata",
    "log-path",
    "level",
    "module",
    "metrics-path",
];

/// Flags of the real one that change nothing here.
const FLAGS: &[&str] = &["no-seccomp", "show-level", "show-log-origin", "boot-timer", "enable-pci"];

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wanted {
    Version,
    Run(Arguments),
}

/// A run.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) id: String,
    pub(crate) socket: PathBuf,
    pub(crate) payload_limit: usize,
    pub(crate) metadata_limit: usize,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) no_api: bool,
    pub(crate) jail: Option<Jail>,
}

/// A jail that the fake jailer has prepared. The real jailer enters it itself; a program with shared libraries can do so
/// only once it runs.
#[derive(Debug, Default)]
pub(crate) struct Jail {
    root: PathBuf,
    uid: u32,
    gid: u32,
}

impl Jail {
    /// Changes the root, then gives up root's rights. The only thread is this one.
    pub(crate) fn enter(&self) -> Result<()> {
        rustix::process::chroot(&self.root).with_context(|| format!("chroot to {}", self.root.display()))?;
        rustix::process::chdir("/").context("chdir to the jail")?;
        rustix::thread::set_thread_groups(&[]).context("give up groups")?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).context("become the jail's group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).context("become the jail's user")
    }
}

impl Arguments {
    /// Err is what is wrong with the words.
    pub(crate) fn parse(words: &[String]) -> Result<Wanted, String> {
        let mut arguments = Self {
            id: "anonymous-instance".to_owned(),
            socket: "/run/firecracker.socket".into(),
            payload_limit: PAYLOAD_LIMIT,
            metadata_limit: 0,
            config_file: None,
            no_api: false,
            jail: None,
        };
        let mut metadata_limit = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let option = word.strip_prefix("--").ok_or_else(|| format!("UnexpectedArgument({word:?})"))?;
            let (name, inline) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            let mut value =
                || inline.clone().or_else(|| words.next().cloned()).ok_or(format!("MissingValue({name:?})"));
            match name {
                "version" => return Ok(Wanted::Version),
                "no-api" => arguments.no_api = true,
                "id" => arguments.id = instance_id(value()?)?,
                "api-sock" => arguments.socket = value()?.into(),
                "config-file" => arguments.config_file = Some(value()?.into()),
                "http-api-max-payload-size" => arguments.payload_limit = number(name, &value()?)?,
                "mmds-size-limit" => metadata_limit = Some(number(name, &value()?)?),
                "fake-root" => arguments.jail.get_or_insert_default().root = value()?.into(),
                "fake-uid" => arguments.jail.get_or_insert_default().uid = number(name, &value()?)?,
                "fake-gid" => arguments.jail.get_or_insert_default().gid = number(name, &value()?)?,
                name if FLAGS.contains(&name) => {}
                name if WITH_VALUE.contains(&name) => drop(value()?),
                name => return Err(format!("UnexpectedArgument({name:?})")),
            }
        }
        arguments.metadata_limit = metadata_limit.unwrap_or(arguments.payload_limit);
        if arguments.no_api && arguments.config_file.is_none() {
            return Err("MissingArgument(\"config-file\")".to_owned());
        }
        Ok(Wanted::Run(arguments))
    }
}

fn instance_id(id: String) -> Result<String, String> {
    let allowed = id.chars().all(|letter| letter == '-' || letter.is_alphanumeric());
    if allowed && (1..=64).contains(&id.len()) { Ok(id) } else { Err(format!("Invalid instance ID {id:?}")) }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Wanted, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn the_command_line_of_the_real_one() {
        let line = "--id=vm-1 --start-time-us=5 --api-sock /run/a.sock --http-api-max-payload-size 9 --no-seccomp";
        let Ok(Wanted::Run(arguments)) = parse(line) else { panic!("not run") };
        assert_eq!((arguments.id.as_str(), arguments.payload_limit, arguments.metadata_limit), ("vm-1", 9, 9));
        assert!(matches!(parse("--version"), Ok(Wanted::Version)));
        for bad in ["--nope", "id", "--id", "--id a_b", "--no-api"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
