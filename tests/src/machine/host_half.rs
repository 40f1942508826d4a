//! The half of an activation that runs on the host, with a real systemd: whoever began it is gone, and the host goes on.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::nix::{Host, Place, Unit};
use testkit::wait;

use super::fleet::{Fleet, LOOK, PATIENCE, settled, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

const SCRIPT: &str = "../layers/machine/src/activation/host.sh";

/// Confirmed, failed, never confirmed, cut off, hanging, restarted.
pub(crate) fn goes_on_alone(work: &Path) -> Result<()> {
    let (mut fleet, hosts) = Fleet::start(work, &[("web", Place::Near)])?;
    let [mut web] = <[Host; 1]>::try_from(hosts).ok().context("one host")?;
    let first = bring(&mut fleet, &web, system("web", "1"))?;
    let good = Trial::begin(&web, 1, &first, 600)?;
    let status = good.wait("on-trial")?;
    ensure!(status["holder"] == good.id.as_str(), "{status}");
    let other = Trial::begin(&web, 2, &first, 600)?;
    ensure!(other.status()?["holder"] == good.id.as_str(), "two have the host");
    ensure!(good.say(&["confirm"])?["phase"] == "confirmed", "not confirmed");
    runs(&web, &first)?;
    ensure!(web.profile()? == first && web.boot_default()? == first, "not the system that stays");
    settled(&web)?;

    let broken = bring(&mut fleet, &web, system("web", "2").unit(Unit::failing("broken")))?;
    let trial = Trial::begin(&web, 3, &broken, 600)?;
    let status = trial.wait("rolled-back")?;
    ensure!(status["reason"].as_str().is_some_and(|reason| reason.contains("ended with 4")), "{status}");
    back(&web, &first)?;

    let cut = bring(&mut fleet, &web, system("web", "3").unit(Unit::cutting_network("cut")))?;
    let trial = Trial::begin(&web, 4, &cut, 3)?;
    let status = trial.wait("rolled-back")?;
    ensure!(status["reason"].as_str().is_some_and(|reason| reason.contains("not confirmed")), "{status}");
    ensure!(web.is_linked()?, "still cut off");
    back(&web, &first)?;

    let slow = bring(&mut fleet, &web, system("web", "4").unit(Unit::held("slow")))?;
    let trial = Trial::begin(&web, 5, &slow, 3)?;
    trial.wait("rolled-back")?;
    back(&web, &first)?;

    let next = bring(&mut fleet, &web, system("web", "5"))?;
    let trial = Trial::begin(&web, 6, &next, 600)?;
    trial.wait("on-trial")?;
    web.reboot()?;
    ensure!(!web.exists("/run/cairn")?, "something of the trial is left");
    runs(&web, &first)
}

/// A system in the store of the host.
fn bring(fleet: &mut Fleet, host: &Host, system: testkit::nix::System) -> Result<PathBuf> {
    let name = system.name().to_owned();
    let commit = fleet.flake.set(system)?;
    let path = fleet.rack.build(&fleet.flake.reference(&commit, &name))?;
    fleet.rack.copy(host, &path)?;
    Ok(path)
}

fn runs(host: &Host, system: &Path) -> Result<()> {
    ensure!(host.current_system()? == system, "it runs {}", host.current_system()?.display());
    ensure!(host.unit_state("web.service")? == "active", "web is not active");
    Ok(())
}

/// Everything is as before the trial.
fn back(host: &Host, system: &Path) -> Result<()> {
    runs(host, system)?;
    ensure!(host.profile()? == system && host.boot_default()? == system, "another one would start");
    for unit in ["broken", "cut", "slow"] {
        let unit = format!("{unit}.service");
        ensure!(!host.exists(&format!("/etc/systemd/system/{unit}"))?, "{unit} is left");
        ensure!(host.unit_state(&unit)? == "inactive", "{unit} is {}", host.unit_state(&unit)?);
    }
    settled(host)
}

struct Trial<'a> {
    host: &'a Host,
    id: String,
}

impl<'a> Trial<'a> {
    /// Installs the script and begins.
    fn begin(host: &'a Host, number: u32, system: &Path, seconds: u32) -> Result<Self> {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let directory = format!("/run/cairn/{id}");
        let script = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT)).context("read the script")?;
        let install = format!("umask 077; mkdir -p {directory}; cat > {directory}/host.sh");
        let mut shell = host.command("sh").args(["-c", &install]).stdin(Stdio::piped()).spawn()?;
        shell.stdin.take().context("no standard input")?.write_all(&script)?;
        ensure!(shell.wait()?.success(), "the script is not there");
        let trial = Self { host, id };
        let seconds = seconds.to_string();
        trial.say(&["begin", &system.display().to_string(), &seconds])?;
        Ok(trial)
    }

    /// Says something to the script; gives back what it answers of the activation.
    fn say(&self, words: &[&str]) -> Result<Value> {
        let (verb, rest) = words.split_first().context("no verb")?;
        let script = format!("/run/cairn/{}/host.sh", self.id);
        let said = self.host.run(&[&["sh", &script, verb, &self.id], rest].concat())?;
        let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["kind"] == "activation").with_context(|| said.clone())
    }

    fn status(&self) -> Result<Value> {
        self.say(&["status"])
    }

    fn wait(&self, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait::until(&format!("the phase {phase}"), PATIENCE, LOOK, || {
            last = self.status()?;
            Ok((last["phase"] == phase).then(|| last.clone()))
        });
        found.with_context(|| {
            let log = self.host.read(&format!("/run/cairn/{}/log", self.id)).unwrap_or_default();
            format!("it is {last}:\n{log}\n{}", self.host.journal(None).unwrap_or_default())
        })
    }
}
