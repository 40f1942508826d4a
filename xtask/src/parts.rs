//! `cargo xtask test`: every part runs, whatever the others came to, and the account comes at the end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::summary::{Counts, Ended, account};
use crate::{arrows, cargo, deny, setup};

const PARTS: &[&str] = &["setup", "fmt", "clippy", "arrows", "deny", "tests", "peers", "scenarios"];

/// Options of `cargo xtask test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    all: bool,
    only: Option<String>,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--all" => options.all = true,
                "--only" => options.only = Some((*words.next().context("--only needs a name")?).to_owned()),
                other => bail!("unknown option {other}: cargo xtask test [--all] [--only NAME]"),
            }
        }
        Ok(options)
    }

    /// What runs: all parts, the one named, or the scenarios whose name contains `--only`.
    fn parts(&self) -> Vec<&'static str> {
        match self.only.as_deref() {
            None => PARTS.to_vec(),
            Some(only) => match PARTS.iter().find(|part| **part == only) {
                Some(&"scenarios") | None => vec!["setup", "peers", "scenarios"],
                Some(part) => vec![*part],
            },
        }
    }

    fn scenario(&self) -> Option<&str> {
        self.only.as_deref().filter(|only| !PARTS.contains(only))
    }
}

/// Runs the parts and prints the account; the exit code says whether all is well.
pub(crate) fn test(options: &Options) -> Result<u8> {
    let mut ended = Vec::new();
    for name in options.parts() {
        println!("\n== {name}");
        let start = Instant::now();
        let mut counts = Counts::default();
        let error = part(name, options, &mut counts).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("{name} failed: {error}");
        }
        ended.push(Ended { name, time: start.elapsed(), counts, error });
    }
    let (text, good) = account(&ended);
    println!("{text}");
    Ok(u8::from(!good))
}

fn part(name: &str, options: &Options, counts: &mut Counts) -> Result<()> {
    match name {
        "setup" => setup::setup(),
        "fmt" => observed(cargo::cargo(&["fmt", "--all", "--check"])?, counts),
        "clippy" => {
            observed(cargo::cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?, counts)
        }
        "arrows" => arrows::check().map(|count| println!("{count} arrows, all allowed")),
        "deny" => deny::command(counts)?.map_or(Ok(()), |command| observed(command, counts)),
        "tests" => {
            let words = ["test", "--workspace", "--exclude", "tests", "--no-fail-fast", "--", "--show-output"];
            let mut command = cargo::cargo(&words)?;
            if options.all {
                // Races for a minute instead of seconds, kills at every step instead of a sample.
                command.env("CAIRN_LONG", "1");
            }
            observed(command, counts).or_else(|error| again(counts).context(error))
        }
        "peers" => testkit::peers::build(|text| println!("peers: {text}")),
        "scenarios" => {
            cargo::build()?;
            let mut command = cargo::cargo(&["test", "--package", "tests", "--test", "all"])?;
            command.env("CAIRN_SCENARIOS", if options.all || options.scenario().is_some() { "all" } else { "quick" });
            command.env("CAIRN_SCENARIO_ONLY", options.scenario().unwrap_or_default());
            observed(command, counts)
        }
        other => bail!("no part {other}"),
    }
}

/// Runs what failed once more, alone: a busy machine can make a race of a test's own; what is wrong in Cairn fails twice.
/// The account names it either way.
fn again(counts: &mut Counts) -> Result<()> {
    let (names, targets) = (std::mem::take(&mut counts.failures), std::mem::take(&mut counts.targets));
    // A target that did not build, or ended without a word about its tests, has nothing to run again.
    if names.is_empty() || names.len() > 5 {
        bail!("{} tests failed", names.len());
    }
    let mut passed = 0;
    for target in targets {
        println!("SECOND TRY: {target}: {}", names.join(", "));
        counts.retried.push(format!("{target}: {}", names.join(", ")));
        let mut command = cargo::cargo(&["test"])?;
        command.args(target.split(' ')).args(["--", "--exact", "--test-threads=1"]).args(&names);
        let mut second = Counts::default();
        observed(command, &mut second)?;
        if second.passed == 0 {
            bail!("none of them is in {target}");
        }
        passed += second.passed;
    }
    if usize::try_from(passed)? < names.len() {
        bail!("{passed} of {} ran again", names.len());
    }
    counts.failed -= u32::try_from(names.len())?.min(counts.failed);
    counts.passed += u32::try_from(names.len())?;
    Ok(())
}

/// Runs a program, shows its output as it comes and counts what it says.
fn observed(mut command: Command, counts: &mut Counts) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start cargo")?;
    let out = reader(child.stdout.take().context("stdout")?, |line| println!("{line}"));
    let err = reader(child.stderr.take().context("stderr")?, |line| eprintln!("{line}"));
    for thread in [out, err] {
        counts.join(thread.join().ok().context("reading the output panicked")??);
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

fn reader(input: impl Read + Send + 'static, show: fn(&str)) -> JoinHandle<Result<Counts>> {
    std::thread::spawn(move || {
        let mut counts = Counts::default();
        for line in BufReader::new(input).split(b'\n') {
            let line = line.context("read the output")?;
            let line = String::from_utf8_lossy(&line);
            show(&line);
            counts.line(&line);
        }
        Ok(counts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_a_part_or_a_scenario() {
        let all = Options::parse(&["--all"]).unwrap();
        assert!(all.all && all.parts() == PARTS && all.scenario().is_none());
        let part = Options::parse(&["--only", "clippy"]).unwrap();
        assert_eq!((part.parts(), part.scenario()), (vec!["clippy"], None));
        let scenario = Options::parse(&["--only", "rack"]).unwrap();
        assert_eq!((scenario.parts(), scenario.scenario()), (vec!["setup", "peers", "scenarios"], Some("rack")));
        assert!(Options::parse(&["--only"]).is_err());
        assert!(Options::parse(&["--fast"]).is_err());
    }

    #[test]
    fn output_is_counted_and_a_failure_stays_one() {
        // Not shown: whoever runs these tests counts what they show.
        let output: &[u8] = b"test result: ok. 3 passed; 0 failed\nNOT RUN: a: b is missing\n";
        let mut counts = reader(output, |_| {}).join().unwrap().unwrap();
        assert_eq!((counts.passed, counts.not_run.len()), (3, 1));
        assert!(observed(Command::new("false"), &mut counts).is_err());
    }
}
