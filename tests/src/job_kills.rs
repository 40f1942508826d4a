//! The controller is killed in each phase of a job, started again, and the job ends as if nothing had been.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use testkit::process::run;
use testkit::{http, wait};

use crate::scripted::LIMIT;
use crate::scripted::bmc::{Bmc, SYSTEMS, System};
use crate::scripted::floor::{Floor, count, maintenance_iso, steps};
use crate::scripted::gate::{Gate, Hold, Side};
use crate::scripted::guest::Guest;

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = crate::scripted::NEEDS;

/// When the controller is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// As soon as the job has a folder: its task ISO is being written.
    FolderMade,
    /// While a request to the BMC is held, before the maintenance OS runs.
    Held(Hold),
    /// While the maintenance OS works.
    Working,
    /// After its report, before the machine is off.
    Reported,
    /// While a request to the BMC is held, after the report.
    HeldAfterReport(Hold),
}

struct Kill {
    phase: &'static str,
    moment: Moment,
    /// How often the machine may be told to switch on before the report, and in all.
    on: (usize, usize),
}

const fn after(method: &'static str, path: &'static str, body: &'static str) -> Hold {
    Hold { side: Side::After, method, path, body }
}

const RESET: &str = "ComputerSystem.Reset";

/// The BMC has always acted already when the answer is lost; only looking is cut before.
const KILLS: [Kill; 11] = [
    Kill { phase: "power-off", moment: Moment::Held(after("POST", RESET, "GracefulShutdown")), on: (1, 2) },
    Kill { phase: "build-media", moment: Moment::FolderMade, on: (1, 2) },
    Kill {
        phase: "discover",
        moment: Moment::Held(Hold { side: Side::Before, method: "GET", path: "/redfish/v1", body: "" }),
        on: (1, 2),
    },
    Kill { phase: "mount", moment: Moment::Held(after("POST", "InsertMedia", "boot.iso")), on: (1, 2) },
    Kill { phase: "boot-override", moment: Moment::Held(after("PATCH", "/Systems/", "Cd")), on: (1, 2) },
    // The machine reads Off until it is on, so the order may come once more; to a machine that is on it never does.
    Kill { phase: "power-on", moment: Moment::Held(after("POST", RESET, "\"On\"")), on: (2, 3) },
    Kill { phase: "await-report", moment: Moment::Working, on: (1, 2) },
    Kill { phase: "await-off", moment: Moment::Reported, on: (1, 2) },
    Kill { phase: "eject", moment: Moment::HeldAfterReport(after("POST", "EjectMedia", "")), on: (1, 2) },
    Kill { phase: "clear-override", moment: Moment::HeldAfterReport(after("PATCH", "/Systems/", "")), on: (1, 2) },
    Kill { phase: "restart", moment: Moment::HeldAfterReport(after("POST", RESET, "\"On\"")), on: (1, 3) },
];

/// All kills at once, each with a controller and a machine of its own.
pub(crate) fn every_phase(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let (sender, verdicts) = mpsc::channel();
    std::thread::scope(|scope| {
        for (kill, system) in KILLS.iter().zip(SYSTEMS) {
            let (sender, bmc, iso) = (sender.clone(), &bmc, &iso);
            scope.spawn(move || {
                let place = work.join(kill.phase);
                let verdict = Victim::start(&place, iso, bmc, kill, system).and_then(|mut victim| victim.run());
                // Somebody listens until the end of the scope.
                let _ = sender.send((kill.phase, verdict));
            });
        }
    });
    drop(sender);
    let mut failures = Vec::new();
    for (phase, verdict) in verdicts {
        match verdict {
            Ok(line) => println!("  killed in {phase:<15} {line}"),
            Err(error) => failures.push(format!("killed in {phase}: {error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

struct Victim<'a> {
    floor: Floor,
    bmc: &'a Bmc,
    gate: Gate,
    kill: &'a Kill,
    system: System,
}

impl<'a> Victim<'a> {
    fn start(place: &Path, iso: &Path, bmc: &'a Bmc, kill: &'a Kill, system: System) -> Result<Self> {
        let gate = Gate::start(bmc.port())?;
        let floor = Floor::start(place, iso, &[("LOG_LEVEL", "debug")])?;
        floor.add_server("K-1", &gate.url(), system, &json!({}))?;
        Ok(Self { floor, bmc, gate, kill, system })
    }

    fn run(&mut self) -> Result<String> {
        let mut guest = None;
        let (job, tries) = match self.kill.moment {
            Moment::FolderMade => self.kill_in_build()?,
            Moment::Held(hold) => {
                self.gate.hold(hold);
                let job = self.floor.order("K-1")?;
                self.gate.wait_held(LIMIT)?;
                (job, 1)
            }
            Moment::Working => {
                let job = self.floor.order("K-1")?;
                let booted = Guest::boot(&self.floor, &job, self.bmc, self.system)?;
                ensure!(booted.progress("partition.service", "started", "")?.status == 204, "progress");
                guest = Some(booted);
                (job, 1)
            }
            Moment::Reported => {
                let job = self.floor.order("K-1")?;
                guest = Some(self.work(&job, None)?);
                self.floor.wait_phase(&job, "await-off")?;
                (job, 1)
            }
            Moment::HeldAfterReport(hold) => {
                let job = self.floor.order("K-1")?;
                let booted = self.work(&job, None)?;
                self.gate.hold(hold);
                booted.power_off(self.bmc)?;
                guest = Some(booted);
                self.gate.wait_held(LIMIT)?;
                (job, 1)
            }
        };
        let reported = matches!(self.kill.moment, Moment::Reported | Moment::HeldAfterReport(_));
        let times = self.restart(&job)?;
        let guest = if reported { guest.context("guest")? } else { self.work(&job, guest)? };
        if !matches!(self.kill.moment, Moment::HeldAfterReport(_)) {
            guest.power_off(self.bmc)?;
        }
        self.check(&job, &guest)?;
        Ok(format!("try {tries}: {times}"))
    }

    /// Kills the controller, proves from its database where it was, and starts it again.
    fn restart(&mut self, job: &str) -> Result<String> {
        if self.floor.controller.process().is_some() {
            self.floor.controller.kill()?;
        }
        self.gate.drop_held();
        let phase = self.phase_in_database(job)?;
        ensure!(phase == self.kill.phase, "it was killed in {phase}");
        let begin = Instant::now();
        self.floor.controller.resume()?;
        let ready = begin.elapsed();
        let worker = format!("{}-", self.floor.controller.process().context("process")?);
        self.floor.controller.wait_event("the job to be taken over", LIMIT, |line| {
            line["message"] == "job taken over" && line["job_id"] == job && line["phase"] == self.kill.phase
        })?;
        // The first word about the job from the new process: an effect, a phase, or a look at the BMC.
        self.floor.controller.wait_event("the job to move again", LIMIT, |line| {
            let mine = line["worker_id"].as_str().is_some_and(|id| id.starts_with(&worker));
            mine && line["job_id"] == job
        })?;
        Ok(format!("ready after {:.1} s, moving after {:.1} s", ready.as_secs_f64(), begin.elapsed().as_secs_f64()))
    }

    /// The maintenance OS works and reports, for the first time.
    fn work(&self, job: &str, booted: Option<Guest>) -> Result<Guest> {
        let guest = match booted {
            Some(guest) => guest,
            None => Guest::boot(&self.floor, job, self.bmc, self.system)?,
        };
        guest.pull()?;
        guest.install("the-only-report")?;
        let on = self.bmc.switched_on(self.system)?;
        ensure!((1..=self.kill.on.0).contains(&on), "switched on {on} times before the report");
        Ok(guest)
    }

    fn check(&self, job: &str, guest: &Guest) -> Result<()> {
        let done = self.floor.wait_complete(job)?;
        ensure!(done["outcome"] == "succeeded" && done["attempt"] == 1, "{done:#}");
        ensure!(done["failed_step"].is_null() && done["failed_code"].is_null(), "{done:#}");
        ensure!(count(&done, "webhook-success") == 1, "reports that were accepted: {:?}", steps(&done));
        let again = guest.report(&guest.success("the-only-report"))?;
        ensure!(again.status == 200 && again.json()?["idempotent"] == true, "the report again: {}", again.text());
        ensure!(count(&self.floor.job(job)?, "webhook-success") == 1, "a report was accepted twice");
        self.bmc.check_clean(self.system)?;
        self.bmc.wait_power(self.system, "On")?;
        let on = self.bmc.switched_on(self.system)?;
        ensure!((2..=self.kill.on.1).contains(&on), "switched on {on} times in all");
        ensure!(guest.first_boot()?.status == 204, "first boot");
        let settled = self.floor.job(job)?;
        ensure!(settled["conditions"][0]["status"] == "True", "{settled:#}");
        Ok(())
    }

    /// The phase lasts for some milliseconds: the kill follows the first sign of it, and counts when it was in time.
    fn kill_in_build(&mut self) -> Result<(String, usize)> {
        let tasks = self.floor.controller.data().join("tasks");
        for number in 1..=10 {
            // Whatever comes next is held, so that a job that got on can be taken back.
            self.gate.hold(Hold { side: Side::Before, method: "GET", path: "/redfish/v1", body: "" });
            let known = entries(&tasks)?;
            let waiter = std::thread::spawn({
                let tasks = tasks.clone();
                move || appears(&tasks, &known)
            });
            let job = self.floor.order("K-1")?;
            waiter.join().ok().context("the look at the folder panicked")??;
            self.floor.controller.kill()?;
            if self.phase_in_database(&job)? == self.kill.phase {
                return Ok((job, number));
            }
            self.gate.drop_held();
            self.floor.controller.resume()?;
            ensure!(self.floor.cancel(&job)?.status == 202, "cancel");
            self.floor.wait_complete(&job)?;
        }
        bail!("ten kills were too late for {}", self.kill.phase)
    }

    /// What the dead controller left written, read from a copy.
    fn phase_in_database(&self, job: &str) -> Result<String> {
        let copy = self.floor.work().join("database");
        std::fs::create_dir_all(&copy)?;
        for name in ["cairn.db", "cairn.db-wal"] {
            let from = self.floor.controller.data().join("db").join(name);
            if from.exists() {
                std::fs::copy(&from, copy.join(name)).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        let script = "import sqlite3, sys\n\
                      print(sqlite3.connect(sys.argv[1]).execute('SELECT phase FROM jobs WHERE id = ?', sys.argv[2:]).fetchone()[0])";
        let mut python = Command::new("python3");
        let phase = run(python.args(["-c", script]).arg(copy.join("cairn.db")).arg(job))?;
        std::fs::remove_dir_all(&copy)?;
        Ok(phase.trim().to_owned())
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    list.map(|entry| Ok(entry?.path())).collect()
}

/// Returns at once when a directory gets an entry that is not known.
fn appears(directory: &Path, known: &[PathBuf]) -> Result<()> {
    wait::until("the job's folder", LIMIT, Duration::ZERO, || {
        Ok(entries(directory)?.iter().any(|entry| !known.contains(entry)).then_some(()))
    })
}

/// One process has the data directory; another is told which, and changes nothing.
pub(crate) fn one_holder(work: &Path) -> Result<()> {
    let floor = Floor::bare(work, &[])?;
    let holder = floor.controller.process().context("process")?;
    let second = floor.controller.second()?;
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(4), "a second start ended with {}: {told}", second.status);
    let named = told.contains("data_dir") && told.contains(&holder.to_string());
    ensure!(named, "it does not name process {holder}: {told}");
    let answer = http::get(&format!("{}/readyz", floor.controller.url()))?;
    ensure!(answer.status == 200, "the holder does not go on: {} {}", answer.status, answer.text());
    Ok(())
}
