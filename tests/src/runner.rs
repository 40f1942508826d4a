//! Runs scenarios one after the other, each as a process tree of its own, and says how they went.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use testkit::enclosure::{self, Inside, Network, Stage};
use testkit::{bridge, environment, peers, process};

use crate::SCENARIOS;

/// When a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// With every `cargo xtask test`.
    Quick,
    /// With `cargo xtask test --all` too.
    All,
}

/// One scenario.
pub(crate) struct Scenario {
    /// Name in output and for `--only`.
    pub name: &'static str,
    /// When it runs.
    pub tier: Tier,
    /// Network of its enclosure.
    pub network: Network,
    /// Programs without which it cannot run.
    pub needs: &'static [&'static str],
    /// What it does, in the enclosure's directory.
    pub run: fn(&Path) -> Result<()>,
}

impl Scenario {
    /// Whether a whole machine is emulated in it.
    fn is_emulated(&self) -> bool {
        self.needs.contains(&"qemu-system-x86_64")
    }
}

/// What a scenario ends with when it finds that it cannot run here.
#[derive(Debug)]
pub(crate) struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// Exit code of the worker for [`CannotRun`], which it has told by then.
const CANNOT_RUN: u8 = 77;

enum Verdict {
    Passed,
    Failed,
    NotRun(String),
    /// The scenario itself has told why not.
    ToldWhyNot,
}

/// Entry of the test binary; arguments of the usual test harness are ignored.
pub fn main() -> ExitCode {
    match enclosure::stage() {
        Stage::Init(init) => init.run(),
        Stage::Inside(inside) => work(&inside),
        Stage::Outside => match environment::scenarios().as_deref() {
            Some("all") => run_all(&[Tier::Quick, Tier::All]),
            Some("quick") => run_all(&[Tier::Quick]),
            Some(other) => {
                eprintln!("error: CAIRN_SCENARIOS is quick or all, not {other}");
                ExitCode::from(2)
            }
            None => {
                for scenario in SCENARIOS {
                    eprintln!("NOT RUN: scenario {}: scenarios are run by `cargo xtask test`", scenario.name);
                }
                println!("test result: ok. 0 passed; 0 failed; {} ignored", SCENARIOS.len());
                ExitCode::SUCCESS
            }
        },
    }
}

fn work(inside: &Inside) -> ExitCode {
    let name = inside.arguments.first().map(String::as_str).unwrap_or_default();
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        eprintln!("error: no scenario {name}");
        return ExitCode::FAILURE;
    };
    let prepared = if scenario.network == Network::Own { bridge::loopback_up() } else { Ok(()) };
    match prepared.and_then(|()| (scenario.run)(&inside.work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<CannotRun>() => {
            eprintln!("NOT RUN: scenario {name}: {error}");
            ExitCode::from(CANNOT_RUN)
        }
        Err(error) => {
            eprintln!("error: scenario {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(tiers: &[Tier]) -> ExitCode {
    let only = environment::only_scenario().unwrap_or_default();
    if !SCENARIOS.iter().any(|scenario| scenario.name.contains(&only)) {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("error: no part or scenario {only}; scenarios: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let obstacle = enclosure::obstacle();
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
        let verdict = match (&obstacle, tiers.contains(&scenario.tier)) {
            (_, false) => Verdict::NotRun("only with --all".to_owned()),
            (Some(obstacle), true) => Verdict::NotRun(obstacle.clone()),
            (None, true) => match run(scenario) {
                Verdict::Failed if scenario.is_emulated() => again(scenario),
                verdict => verdict,
            },
        };
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Failed => failed += 1,
            Verdict::ToldWhyNot => not_run += 1,
            Verdict::NotRun(reason) => {
                eprintln!("NOT RUN: scenario {}: {reason}", scenario.name);
                not_run += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {not_run} ignored");
    ExitCode::from(u8::from(failed > 0))
}

/// An emulated processor is not a real one: kernels die in it now and then of what no machine does. Such a scenario gets a
/// second try, which is told in the account; what is wrong in Cairn fails twice.
fn again(scenario: &Scenario) -> Verdict {
    println!("SECOND TRY: scenario {}: see above why the first one failed", scenario.name);
    run(scenario)
}

/// Why a program cannot be called, if so.
fn missing(program: &str) -> Option<String> {
    if process::exists(program) || peers::find(program).is_some() {
        return None;
    }
    let why = peers::reason(program).map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(format!("{program} is missing{why}"))
}

fn run(scenario: &Scenario) -> Verdict {
    if let Some(missing) = scenario.needs.iter().find_map(|program| missing(program)) {
        return Verdict::NotRun(missing);
    }
    println!("scenario {} ...", scenario.name);
    let start = Instant::now();
    let ended = enclosure::run(&[scenario.name], scenario.network);
    let seconds = start.elapsed().as_secs_f64();
    match ended {
        Ok(0) => {
            println!("scenario {} ... ok ({seconds:.1} s)", scenario.name);
            Verdict::Passed
        }
        Ok(CANNOT_RUN) => Verdict::ToldWhyNot,
        // The user's interrupt ends the whole run, not one scenario.
        Ok(130) => std::process::exit(130),
        other => {
            let reason = other.map_or_else(|error| format!("{error:#}"), |code| format!("exit code {code}"));
            println!("scenario {} ... FAILED ({seconds:.1} s): {reason}", scenario.name);
            Verdict::Failed
        }
    }
}
