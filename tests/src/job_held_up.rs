//! A registry that has no room left: pushes are refused, jobs wait and say why, and nothing else stands still.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::scripted::bmc::{Bmc, SYSTEMS};
use crate::scripted::floor::{Floor, maintenance_iso};
use crate::scripted::guest::Guest;

/// Programs that this scenario needs.
pub(crate) const NEEDS: &[&str] = crate::scripted::NEEDS;

/// More than any disk here has.
const NO_ROOM: &str = "900TiB";

/// The job waits as long as there is no room, over a restart, and is begun once there is some.
pub(crate) fn while_there_is_no_room(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let mut floor = Floor::start(work, &maintenance_iso(work)?, &[])?;
    floor.add_server("H-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    restart(&mut floor, NO_ROOM)?;
    let push = floor.request("POST", "/v2/os-images/new/blobs/uploads/", &[], b"")?;
    ensure!(push.status == 507, "a push: {} {}", push.status, push.text());
    let job = floor.order("H-1")?;
    let waits = |job: &serde_json::Value| job["reason"].as_str().is_some_and(|reason| reason.contains("nearly full"));
    let held = floor.wait_job(&job, "the reason", waits)?;
    ensure!(held["status"] == "queued", "{held:#}");
    restart(&mut floor, NO_ROOM)?;
    ensure!(floor.job(&job)?["status"] == "queued", "a restart has begun the job");
    ensure!(bmc.power(SYSTEMS[1])? == "Off" && bmc.resets(SYSTEMS[1])?.is_empty(), "the machine was touched");
    ensure!(floor.get("/v2/os-images/tiny/tags/list")?.status == 200, "what is there cannot be read");

    restart(&mut floor, "64MiB")?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    guest.pull()?;
    guest.install("d")?;
    guest.power_off(&bmc)?;
    let done = floor.wait_complete(&job)?;
    ensure!(done["outcome"] == "succeeded", "{done:#}");
    Ok(())
}

fn restart(floor: &mut Floor, min_free: &str) -> Result<()> {
    floor.controller.stop(Duration::from_secs(30))?;
    floor.controller.set("REGISTRY_MIN_FREE", min_free);
    floor.controller.resume()
}
