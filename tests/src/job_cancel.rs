//! Jobs that an operator ends: the machine is off afterwards, whatever it was doing.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::wait;

use crate::scripted::bmc::{Bmc, SYSTEMS};
use crate::scripted::floor::{Floor, expect, maintenance_iso};
use crate::scripted::guest::Guest;
use crate::scripted::{LIMIT, LOOK};

/// Programs that this scenario needs.
pub(crate) const NEEDS: &[&str] = crate::scripted::NEEDS;

/// While the machine works, and while it is being switched on.
pub(crate) fn at_work(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let floor = Floor::start(work, &iso, &[])?;
    floor.add_server("W-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    floor.add_server("O-1", &bmc.url(), SYSTEMS[2], &json!({}))?;
    let (working, starting) = (floor.order("W-1")?, floor.order("O-1")?);

    // The BMC has taken the order, and the machine still reads Off.
    let ordered = || Ok((bmc.switched_on(SYSTEMS[2])? == 1).then_some(()));
    wait::until("the order to switch on", LIMIT, LOOK, ordered)?;
    ensure!(floor.cancel(&starting)?.status == 202, "cancel");

    let guest = Guest::boot(&floor, &working, &bmc, SYSTEMS[1])?;
    ensure!(floor.cancel(&working)?.status == 202, "cancel");
    let done = floor.wait_complete(&working)?;
    ensure!(done["outcome"] == "cancelled" && done["failed_code"] == "cancelled", "{done:#}");
    ensure!(done["failed_step"] == "webhook.wait", "{done:#}");
    bmc.check_clean(SYSTEMS[1])?;
    ensure!(bmc.power(SYSTEMS[1])? == "Off", "a cancelled machine is on");
    ensure!(bmc.resets(SYSTEMS[1])? == ["On", "ForceOff"], "{:?}", bmc.resets(SYSTEMS[1])?);
    let late = guest.report(&guest.success("too-late"))?;
    ensure!(late.status == 200 && late.json()?["idempotent"] == true, "{} {}", late.status, late.text());
    ensure!(floor.job(&working)?["outcome"] == "cancelled", "a late report changed the outcome");
    ensure!(floor.metric("webhook_auth_failures_total", &[])? == 0.0, "a late report was not believed");
    expect(&floor.cancel(&working)?, 409, "wrong_state")?;

    let done = floor.wait_complete(&starting)?;
    ensure!(done["outcome"] == "cancelled" && done["failed_step"] == "redfish.reset", "{done:#}");
    bmc.check_clean(SYSTEMS[2])?;
    // The order to switch on cannot be taken back: it has to have come true before the other one means anything.
    ensure!(bmc.resets(SYSTEMS[2])? == ["On", "ForceOff"], "{:?}", bmc.resets(SYSTEMS[2])?);
    ensure!(bmc.power(SYSTEMS[2])? == "Off", "a machine that was being switched on is on");
    ensure!(floor.metric("job_failures_total", &[])? == 0.0, "a cancelled job is counted as failed");
    Ok(())
}
