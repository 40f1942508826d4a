//! Where systems are built: here, on the machine, on another machine.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::nix::{Host, Place, System};

use super::fleet::{Fleet, stays, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

/// See the module.
pub(crate) fn where_it_is_wanted(work: &Path) -> Result<()> {
    let (mut fleet, hosts) = Fleet::start(work, &[("web", Place::Near), ("builder", Place::Near)])?;
    let [web, builder] = <[Host; 2]>::try_from(hosts).ok().context("two hosts")?;
    fleet.remove_configuration("builder")?;
    for (version, fields, expected) in [
        ("1", json!({"buildOn": "Target"}), "web"),
        ("2", json!({"buildOn": "Builder", "builderRef": {"name": "builder"}}), "builder"),
    ] {
        fleet.set_configuration("web", &fields)?;
        fleet.flake.set(telling(version))?;
        fleet.ok(&["apply", "web"])?;
        stays(&web, version)?;
        let built = web.read("/run/current-system/built-on")?;
        ensure!(built.trim() == expected, "version {version} was built on {built}");
    }
    let system = web.current_system()?.display().to_string();
    ensure!(builder.exists(&system)?, "the builder has not what it built");
    Ok(())
}

/// A system that says where it was built.
fn telling(version: &str) -> System {
    system("web", version).building("b mkdir -p $out; b hostname > $out/built-on")
}
