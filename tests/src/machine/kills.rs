//! The controller killed in each phase: the host is never left without a way back, and the next apply ends it.

use std::path::Path;

use anyhow::{Context, Result};
use testkit::nix::{Host, Place};

use super::fleet::{Fleet, settled, stays, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

/// The phases in which most can go wrong.
pub(crate) fn in_a_few_phases(work: &Path) -> Result<()> {
    killed(work, &["build", "activate", "check"])
}

/// Every phase that is entered on the way to a new system.
pub(crate) fn in_every_phase(work: &Path) -> Result<()> {
    let phases = [
        "connect", "resolve", "evaluate", "inspect", "build", "copy", "preview", "deliver", "activate", "check",
        "confirm", "verify",
    ];
    killed(work, &phases)
}

fn killed(work: &Path, phases: &[&str]) -> Result<()> {
    let (mut fleet, hosts) = Fleet::start(work, &[("web", Place::Near)])?;
    let [web] = <[Host; 1]>::try_from(hosts).ok().context("one host")?;
    fleet.flake.set(system("web", "0"))?;
    fleet.ok(&["apply", "web"])?;
    for phase in phases {
        fleet.flake.set(system("web", phase))?;
        let mut cairn = fleet.started(&["apply", "web"])?;
        fleet.wait_said(&mut cairn, &format!("web: {phase}\n"))?;
        cairn.kill()?;
        println!("killed in {phase}");
        let ended = fleet.ok(&["apply", "web"]).with_context(|| format!("killed in {phase}"))?;
        stays(&web, phase).with_context(|| format!("killed in {phase}: {ended}"))?;
        settled(&web).with_context(|| format!("killed in {phase}"))?;
    }
    Ok(())
}
