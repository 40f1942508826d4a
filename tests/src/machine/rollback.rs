//! Systems that are not to stay: the host takes the old one back by itself, and they are not tried again unasked.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::nix::{Host, Place, Unit};

use super::fleet::{Fleet, settled, stays, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

/// A unit that fails, a health check that does not hold, a network that is gone.
pub(crate) fn the_host_goes_back(work: &Path) -> Result<()> {
    let (mut fleet, hosts) = Fleet::start(work, &[("web", Place::Near)])?;
    let [web] = <[Host; 1]>::try_from(hosts).ok().context("one host")?;
    fleet.flake.set(system("web", "1"))?;
    fleet.ok(&["apply", "web"])?;

    fleet.flake.set(system("web", "2").unit(Unit::failing("broken")))?;
    fleet.ended(&["apply", "web"])?.expect(1, &["machine_rolled_back", "ended with 4"])?;
    back(&web)?;
    fleet.ended(&["apply", "web"])?.expect(4, &["machine_quarantined"])?;
    fleet.ended(&["apply", "web", "--retry"])?.expect(1, &["machine_rolled_back"])?;
    back(&web)?;

    let check = json!([{"name": "page", "command": ["test", "-e", "/run/never"], "timeout": "2s"}]);
    fleet.set_configuration("web", &json!({"healthChecks": check}))?;
    fleet.flake.set(system("web", "3"))?;
    fleet.ended(&["apply", "web"])?.expect(1, &["machine_rolled_back", "page"])?;
    back(&web)?;

    fleet.set_configuration("web", &json!({"healthChecks": null, "confirmTimeout": "10s"}))?;
    fleet.flake.set(system("web", "4").unit(Unit::cutting_network("cut")))?;
    fleet.ended(&["apply", "web"])?.expect(1, &["machine_rolled_back"])?;
    ensure!(web.is_linked()?, "it is still cut off");
    back(&web)
}

fn back(web: &Host) -> Result<()> {
    stays(web, "1")?;
    settled(web)
}
