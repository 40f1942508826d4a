//! From Git to a running system, and what is seen of it: applied, changed, compared, drifted, gone back, started anew.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::nix::{Host, Place};

use super::fleet::{Fleet, runs, stays, switch_by_hand, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

/// See the module.
pub(crate) fn applies_changes_and_goes_back(work: &Path) -> Result<()> {
    let (mut fleet, hosts) = Fleet::start(work, &[("web", Place::Near)])?;
    let [mut web] = <[Host; 1]>::try_from(hosts).ok().context("one host")?;
    let installed = web.current_system()?;
    fleet.flake.set(system("web", "1"))?;
    let shown = fleet.ok(&["diff", "web", "--json"])?.outcome()?;
    ensure!(shown["outcome"] == "previewed" && web.current_system()? == installed, "diff changed something: {shown}");

    let first = fleet.ok(&["apply", "web", "--json"])?.outcome()?;
    ensure!(first["outcome"] == "applied", "{first}");
    stays(&web, "1")?;
    let first = web.current_system()?;
    let running = web.invocation("web.service")?;
    let again = fleet.ok(&["apply", "web", "--json"])?.outcome()?;
    ensure!(again["outcome"] == "unchanged" && web.invocation("web.service")? == running, "applied twice: {again}");

    changed(&mut fleet, &web)?;
    fleet.ok(&["rollback", "web"])?;
    stays(&web, "1")?;
    web.reboot()?;
    runs(&web, "1")?;
    fleet.ok(&["apply", "web"])?;
    drifted(&fleet, &web, &first)?;
    let history: Value = fleet.ok(&["history", "web", "--json"])?.json()?;
    ensure!(history.as_array().is_some_and(|all| all.len() >= 4), "{history}");
    Ok(())
}

/// Only what changed is touched, and that is told before.
fn changed(fleet: &mut Fleet, web: &Host) -> Result<()> {
    let commit = fleet.flake.set(system("web", "2").kernel("6.12.9"))?;
    let same = web.invocation("same.service")?;
    let shown = fleet.ok(&["diff", "web", "--json"])?.outcome()?;
    let preview = &shown["preview"];
    for list in ["stop", "start"] {
        ensure!(preview[list] == serde_json::json!(["web.service"]), "{list}: {shown}");
    }
    ensure!(shown["rebootRequired"] == true, "another kernel needs a restart: {shown}");
    runs(web, "1")?;
    let applied = fleet.ok(&["apply", "web", "--json"])?.outcome()?;
    ensure!(applied["commit"] == commit.as_str() && applied["rebootRequired"] == true, "{applied}");
    stays(web, "2")?;
    ensure!(web.invocation("same.service")? == same, "what did not change was restarted");
    Ok(())
}

/// What somebody did by hand is seen, and taken back by the next apply.
fn drifted(fleet: &Fleet, web: &Host, other: &Path) -> Result<()> {
    switch_by_hand(web, other)?;
    let probed = fleet.ok(&["probe", "web", "--json"])?.outcome()?;
    ensure!(probed["drifted"] == true, "{probed}");
    fleet.ok(&["apply", "web"])?;
    stays(web, "2")?;
    let probed = fleet.ok(&["probe", "web", "--json"])?.outcome()?;
    ensure!(probed["drifted"] == false, "{probed}");
    Ok(())
}
