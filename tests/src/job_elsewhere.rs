//! Jobs whose artifact is on a registry of somebody else, which has an account and an authority of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::commands;
use testkit::elsewhere::{Elsewhere, PULLER};
use testkit::http::Response;
use testkit::process::run;
use testkit::sweep::SecretSweep;

use crate::scripted::bmc::{Bmc, SYSTEMS};
use crate::scripted::floor::{Floor, expect, maintenance_iso, tar_of, write_secret};
use crate::scripted::guest::Guest;

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso", "curl", "openssl"];

/// Refused until the record has authority and account; then the machine pulls with what its task medium says.
pub(crate) fn account_and_authority(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let floor = Floor::start(work, &maintenance_iso(work)?, &[])?;
    let elsewhere = Elsewhere::start(&work.join("elsewhere"), "127.0.0.1")?;
    let bytes = vec![7; 300_000];
    let archive = tar_of(work, "other", &bytes)?;
    let digest = elsewhere.push("os-images/other:1", &archive)?;
    floor.add_server("E-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    let order = || order(&floor, &elsewhere);
    let add = |account: Option<(&str, &Path)>| {
        floor.controller.command(&commands::registry_add(elsewhere.host(), account, &elsewhere.authority()))
    };

    let body = expect(&order()?, 502, "registry_unreachable")?;
    ensure!(body["hint"].as_str().is_some_and(|hint| hint.contains("--ca")), "{body}");
    add(None)?;
    expect(&order()?, 400, "registry_login")?;
    let wrong = work.join("wrong-password");
    write_secret(&wrong, "wrong")?;
    add(Some((PULLER.0, &wrong)))?;
    expect(&order()?, 400, "registry_login")?;
    add(Some((PULLER.0, &elsewhere.password_file()?)))?;

    let answer = order()?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.text());
    let job = answer.json()?;
    ensure!(job["artifact"]["digest"] == digest.as_str(), "{job:#}");
    let job = job["job_id"].as_str().context("job_id")?.to_owned();
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    pull(&guest, work, &digest)?;
    guest.install("d")?;
    guest.power_off(&bmc)?;
    floor.wait_complete(&job)?;
    nothing_told(&floor, &elsewhere)
}

fn order(floor: &Floor, elsewhere: &Elsewhere) -> Result<Response> {
    let mut recipe = Floor::recipe();
    recipe["oci_url"] = Value::from(format!("{}/os-images/other:1", elsewhere.host()));
    floor.post_job("E-1", &recipe, &[])
}

/// With nothing but what is on the task medium; and that may not push.
fn pull(guest: &Guest, work: &Path, digest: &str) -> Result<()> {
    let artifact = guest.callback.artifact.as_ref().context("no artifact on the medium")?;
    ensure!(artifact.digest == digest, "the medium names {}", artifact.digest);
    let credentials = artifact.credentials.as_ref().context("no account on the medium")?;
    let (authority, login) = (work.join("medium-ca.pem"), work.join("medium-login"));
    std::fs::write(&authority, artifact.ca_pem.as_ref().context("no authority on the medium")?)?;
    write_secret(&login, &format!("user = \"{}:{}\"\n", credentials.username, credentials.password))?;
    let curl = |more: &[&str], url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--cacert", &authority.display().to_string()]);
        run(curl.args(["--config", &login.display().to_string()]).args(more).arg(url))
    };
    let base = format!("{}v2/{}", artifact.registry, artifact.repository);
    let manifest = curl(&[], &format!("{base}/manifests/{digest}"))?;
    let manifest: Value = serde_json::from_str(&manifest).context("read the manifest")?;
    ensure!(manifest["layers"][0]["digest"].is_string(), "{manifest:#}");
    ensure!(curl(&["--request", "POST"], &format!("{base}/blobs/uploads/")).is_err(), "the account may push");
    Ok(())
}

/// The password is on the task medium, and nowhere else that is written or shown.
fn nothing_told(floor: &Floor, elsewhere: &Elsewhere) -> Result<()> {
    let sweep = SecretSweep::default().secret("password of the registry", PULLER.1);
    sweep.file(floor.controller.log())?.check()?;
    sweep.file(&elsewhere.log())?.check()?;
    for path in ["/api/v1/registries".to_owned(), format!("/api/v1/registries/{}", elsewhere.host())] {
        let answer = floor.get(&path)?;
        ensure!(answer.status == 200 && answer.text().contains(PULLER.0), "GET {path}: {}", answer.text());
        sweep.text(&path, &answer.body).check()?;
    }
    for file in ["data/db/provisioner.db", "data/db/provisioner.db-wal"] {
        let path = floor.work().join(file);
        if path.exists() {
            sweep.file(&path)?.check()?;
        }
    }
    Ok(())
}
