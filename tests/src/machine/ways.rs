//! Ways to a host: another host key, a password, a jump host.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::nix::{Host, Place};

use super::fleet::{Fleet, stays, system};

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = super::fleet::NEEDS;

/// See the module.
pub(crate) fn are_kept_to(work: &Path) -> Result<()> {
    let wanted = [("gate", Place::Between), ("web", Place::Near), ("deep", Place::Far)];
    let (mut fleet, hosts) = Fleet::start(work, &wanted)?;
    let [gate, web, deep] = <[Host; 3]>::try_from(hosts).ok().context("three hosts")?;
    for name in ["web", "deep"] {
        fleet.flake.set(system(name, "1"))?;
    }
    let installed = web.current_system()?;
    web.change_host_key()?;
    fleet.ended(&["apply", "web"])?.expect(5, &["machine_host_key"])?;
    ensure!(web.current_system()? == installed, "it was changed all the same");

    // The key that was seen first is the only one from then on.
    fleet.set_machine("web", &json!({"hostKeys": null}))?;
    fleet.ok(&["probe", "web"])?;
    let key = web.change_host_key()?;
    fleet.ended(&["apply", "web"])?.expect(5, &["machine_host_key"])?;

    web.add_user("maintainer", "correct horse", true)?;
    fleet.add_secret("password", &json!({"password": "correct horse"}))?;
    fleet.set_machine(
        "web",
        &json!({
            "hostKeys": [key], "sshUser": "maintainer",
            "sshKeySecretRef": null, "sshPasswordSecretRef": {"name": "password"},
        }),
    )?;
    fleet.ok(&["apply", "web"])?;
    stays(&web, "1")?;
    web.set_password("maintainer", "another horse")?;
    fleet.ended(&["probe", "web"])?.expect(5, &["machine_login"])?;

    fleet.ended(&["probe", "deep"])?.expect(6, &["machine_unreachable"])?;
    let jump = json!({"hostname": gate.address().to_string(), "hostKeys": [gate.host_key()?]});
    fleet.set_machine("deep", &json!({"jumpHost": jump}))?;
    fleet.ok(&["apply", "deep"])?;
    stays(&deep, "1")
}
