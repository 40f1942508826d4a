//! What goes wrong is told with a stable code, and nothing is changed that need not be.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::commands;
use testkit::http::{self, Response};

use crate::scripted::bmc::{self, Bmc, SYSTEMS, System, closed_port};
use crate::scripted::floor::{Floor, SIGNING_SECRET, WEBHOOK_SECRET, count, expect, maintenance_iso, text};
use crate::scripted::guest::{Guest, post};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = crate::scripted::NEEDS;

/// A controller whose codes are collected, so that each can be explained at the end.
struct Bad {
    floor: Floor,
    codes: RefCell<BTreeSet<String>>,
}

impl Bad {
    fn new(floor: Floor) -> Self {
        Self { floor, codes: RefCell::default() }
    }

    fn expect(&self, answer: &Response, status: u16, code: &str) -> Result<Value> {
        self.codes.borrow_mut().insert(code.to_owned());
        expect(answer, status, code).with_context(|| format!("{code} was expected"))
    }

    /// A job that is complete and failed at `step` with `code`.
    fn failed(&self, id: &str, step: &str, code: &str) -> Result<Value> {
        let job = self.floor.wait_complete(id)?;
        let right = job["outcome"] == "failed" && job["failed_step"] == step && job["failed_code"] == code;
        ensure!(right, "failed at {step} with {code} was expected: {job:#}");
        ensure!(job["failed_detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{job:#}");
        self.codes.borrow_mut().insert(code.to_owned());
        let metric = [("step", step), ("task_target", "install-linux.target")];
        ensure!(self.floor.metric("job_failures_total", &metric)? >= 1.0, "job_failures_total has no {step}");
        Ok(job)
    }

    /// Every code that was seen has its page.
    fn explain(&self, least: usize) -> Result<()> {
        let codes = self.codes.borrow();
        ensure!(codes.len() >= least, "only {codes:?}");
        for code in codes.iter() {
            let page = self.floor.controller.command(&commands::explain(code))?;
            ensure!(page.starts_with(&format!("# {code}\n")) && page.len() > 100, "the page of {code}: {page}");
        }
        println!("  {} codes, each with its page: {codes:?}", codes.len());
        Ok(())
    }
}

/// Requests that are refused at the door: no job comes of them.
pub(crate) fn refused(work: &Path) -> Result<()> {
    let bad = Bad::new(Floor::bare(work, &[])?);
    let nobody = format!("http://127.0.0.1:{}", closed_port()?);
    bad.floor.add_server("R-1", &nobody, SYSTEMS[0], &json!({}))?;
    let twin = json!({"bmc": {"address": nobody, "username": bmc::USER, "password": bmc::PASSWORD}});
    bad.expect(&bad.floor.put("/api/v1/servers/R-2", &twin)?, 409, "bmc_in_use")?;
    let post = |recipe: &Value| bad.floor.post_job("R-1", recipe, &[]);
    let missing = bad.expect(&post(&Floor::recipe())?, 409, "maintenance_image_missing")?;
    ensure!(missing["hint"].as_str().is_some_and(|hint| hint.contains("image build")), "{missing}");
    bad.floor.add_maintenance_iso(&maintenance_iso(work)?)?;
    let missing = bad.expect(&post(&Floor::recipe())?, 400, "artifact_missing")?;
    ensure!(missing["hint"].as_str().is_some_and(|hint| hint.contains("artifact push")), "{missing}");
    bad.floor.push_artifact()?;
    let unknown = bad.floor.post_job("NOBODY", &Floor::recipe(), &[])?;
    bad.expect(&unknown, 404, "not_found")?;
    recipes(&bad)?;
    for (body, code) in [("{", "invalid_json"), ("{\"recipe\": {}}", "invalid_request"), ("[]", "invalid_request")] {
        bad.expect(&bad.floor.request("POST", "/api/v1/jobs", &[], body.as_bytes())?, 400, code)?;
    }
    let list = bad.floor.get("/api/v1/jobs")?.json()?;
    ensure!(list["jobs"] == json!([]), "a refused request made a job: {list}");
    ensure!(std::fs::read_dir(bad.floor.controller.data().join("tasks"))?.count() == 0, "a task was written");
    ensure!(bad.floor.metric("job_transitions_total", &[])? == 0.0, "a job changed its state");
    bad.explain(7)
}

fn recipes(bad: &Bad) -> Result<()> {
    let with = |key: &str, value: Value| {
        let mut recipe = Floor::recipe();
        recipe[key] = value;
        recipe
    };
    let fault = |recipe: &Value, path: &str| {
        let body = bad.expect(&bad.floor.post_job("R-1", recipe, &[])?, 400, "validation_error")?;
        let details = body["details"].as_array().context("details")?.clone();
        let found = details.into_iter().find(|detail| detail["path"] == path);
        let detail = found.with_context(|| format!("no fault at {path}: {body}"))?;
        for key in ["field", "code", "message"] {
            ensure!(detail[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing: {detail}");
        }
        Ok::<_, anyhow::Error>(detail)
    };
    let unknown = fault(&with("target_disc", json!("/dev/sda")), "/target_disc")?;
    ensure!(unknown["message"].as_str().is_some_and(|text| text.contains("target_disk")), "no did-you-mean: {unknown}");
    ensure!(unknown["code"] == "unknown_key", "{unknown}");
    let parts = |list: Value| with("partition_layout", list);
    let size = fault(&parts(json!([{"size": "lots", "type_guid": "8300"}])), "/partition_layout/0/size")?;
    ensure!(size["field"] == "partition_layout[0].size", "{size}");
    fault(&parts(json!([])), "/partition_layout")?;
    let rest = json!([{"size": "100%", "type_guid": "8300"}, {"size": "100%", "type_guid": "8300"}]);
    fault(&parts(rest), "/partition_layout/1/size")?;
    fault(&parts(json!([{"size": "1G", "type_guid": "8300", "format": "zfs"}])), "/partition_layout/0/format")?;
    let long = with("user_data", json!("#".repeat((1 << 20) + 1)));
    let long = fault(&long, "/user_data")?;
    ensure!(!long.to_string().contains("####"), "the user-data is repeated");
    let huge = with("user_data", json!("#".repeat(5 << 20)));
    bad.expect(&bad.floor.post_job("R-1", &huge, &[])?, 413, "body_too_large")?;
    let mut windows = Floor::recipe();
    windows["task_target"] = json!("install-windows.target");
    windows["unattend_xml"] = json!("<unattend/>");
    bad.expect(&bad.floor.post_job("R-1", &windows, &[])?, 400, "target_not_supported").map(drop)
}

/// BMCs that cannot be reached, refuse, or cannot fetch the media: the machine stays as it was.
pub(crate) fn bmcs(work: &Path) -> Result<()> {
    let emulator = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let bad = Bad::new(Floor::start(work, &iso, &[("WORKER_CONCURRENCY", "8")])?);
    let nowhere = format!("http://127.0.0.1:{}", closed_port()?);
    let wrong = json!({"bmc": {"address": emulator.url(), "username": bmc::USER, "password": "not-the-password",
                               "system": SYSTEMS[0].uuid}});
    bad.floor.add_server("UNREACHABLE", &nowhere, SYSTEMS[0], &json!({}))?;
    bad.floor.add_server("PASSWORD", &emulator.url(), SYSTEMS[0], &wrong)?;
    let closed = json!({"overrides": {"media_url": nowhere}});
    bad.floor.add_server("MEDIA", &emulator.url(), SYSTEMS[1], &closed)?;
    let stranger = System { uuid: "00000000-0000-4000-8000-0000000000ff", on: false };
    bad.floor.add_server("SYSTEM", &emulator.url(), stranger, &json!({}))?;
    let tls = emulator.url().replace("http://", "https://");
    bad.floor.add_server("TLS", &tls, SYSTEMS[0], &json!({}))?;
    let mut jobs = Vec::new();
    for (serial, step, code) in [
        ("UNREACHABLE", "redfish.discover", "bmc_unreachable"),
        ("PASSWORD", "redfish.discover", "bmc_auth"),
        ("MEDIA", "redfish.mount.maintenance", "bmc_media_unreachable"),
        ("SYSTEM", "redfish.discover", "bmc_system"),
        ("TLS", "redfish.discover", "bmc_tls"),
    ] {
        jobs.push((bad.floor.order(serial)?, step, code));
    }
    for (job, step, code) in &jobs {
        let job = bad.failed(job, step, code)?;
        ensure!(job["conditions"][0]["reason"] == "not-started", "{job:#}");
        ensure!(count(&job, step) >= 1, "no event of {step}: {job:#}");
        let told = job.to_string();
        ensure!(!told.contains(bmc::PASSWORD) && !told.contains("not-the-password"), "a password is shown: {told}");
    }
    ensure!(emulator.resets(SYSTEMS[0])?.is_empty(), "the machine was switched: {:?}", emulator.resets(SYSTEMS[0])?);
    ensure!(emulator.power(SYSTEMS[0])? == "On", "the machine is off");
    emulator.check_clean(SYSTEMS[0])?;
    emulator.check_clean(SYSTEMS[1])?;
    ensure!(emulator.system(SYSTEMS[0])?["Boot"]["BootSourceOverrideTarget"] == "Hdd", "the override was set");
    bad.explain(5)
}

/// Guests that fail, that say nothing, and reports that are not theirs.
pub(crate) fn guests(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let settings = [("WORKER_CONCURRENCY", "8"), ("JOB_REPORT_TIMEOUT", "40s")];
    let bad = Bad::new(Floor::start(work, &iso, &settings)?);
    for (serial, system) in [("FAILS", SYSTEMS[1]), ("SILENT", SYSTEMS[2])] {
        bad.floor.add_server(serial, &bmc.url(), system, &json!({}))?;
    }
    let (fails, silent) = (bad.floor.order("FAILS")?, bad.floor.order("SILENT")?);
    let guest = Guest::boot(&bad.floor, &fails, &bmc, SYSTEMS[1])?;
    strangers(&bad, &guest, &bmc)?;
    let unnamed = guest.report(&json!({"status": "failed"}))?;
    bad.expect(&unnamed, 400, "invalid_request")?;
    bad.expect(&guest.report(&json!({"status": "perhaps"}))?, 400, "invalid_request")?;
    ensure!(bad.floor.job(&fails)?["status"] == "provisioning", "a report that was refused ended the job");
    let report = json!({"status": " Failed ", "failed_step": "bootloader-linux.service", "delivery_id": "f-1",
                        "code": "bootloader_missing", "message": "no loader for this firmware"});
    let answer = guest.report(&report)?;
    ensure!(answer.status == 200 && answer.json()? == json!({"ok": true}), "{} {}", answer.status, answer.text());
    guest.power_off(&bmc)?;
    let job = bad.failed(&fails, "workflow.bootloader-linux", "bootloader_missing")?;
    ensure!(count(&job, "bootloader-linux.service") == 1, "{job:#}");
    ensure!(job["failed_detail"] == "no loader for this firmware", "{job:#}");
    ensure!(job.to_string().contains("left switched off"), "nothing says that the machine is off: {job:#}");
    bmc.check_clean(SYSTEMS[1])?;
    ensure!(bmc.power(SYSTEMS[1])? == "Off", "a machine that failed was started from its disk");
    ensure!(bmc.switched_on(SYSTEMS[1])? == 1, "{:?}", bmc.resets(SYSTEMS[1])?);
    ensure!(guest.first_boot()?.status == 204, "a first boot of a failed job is answered");
    ensure!(bad.floor.job(&fails)?["conditions"][0]["status"] != "True", "a failed job has booted");

    let job = bad.failed(&silent, "webhook.wait", "webhook_timeout")?;
    ensure!(job["failed_detail"].as_str().is_some_and(|detail| detail.contains("never heard of")), "{job:#}");
    bmc.check_clean(SYSTEMS[2])?;
    ensure!(bmc.power(SYSTEMS[2])? == "Off", "a machine that said nothing is left on");
    ensure!(bmc.resets(SYSTEMS[2])? == ["On", "ForceOff"], "{:?}", bmc.resets(SYSTEMS[2])?);
    bad.explain(5)
}

/// Reports with a wrong secret, and with the right one for another job.
fn strangers(bad: &Bad, guest: &Guest, bmc: &Bmc) -> Result<()> {
    let url = guest.callback.webhook_url.as_str();
    let success = json!({"status": "success"});
    let before = bad.floor.metric("webhook_auth_failures_total", &[])?;
    for secret in ["", "wrong", &guest.callback.first_boot_token] {
        bad.expect(&post(url, secret, &success)?, 401, "unauthorized")?;
    }
    ensure!(bad.floor.metric("webhook_auth_failures_total", &[])? == before + 3.0, "webhook_auth_failures_total");
    for url in [guest.callback.progress_url.as_str(), guest.callback.first_boot_url.as_str()] {
        bad.expect(&post(url, "wrong", &json!({"unit": "x.service", "event": "started"}))?, 401, "unauthorized")?;
    }
    // The job's own token does for its own webhook only.
    let silent = bad.floor.get("/api/v1/jobs?serial=SILENT")?.json()?["jobs"][0].clone();
    let silent = text(&silent, "job_id")?;
    let other = Guest::boot(&bad.floor, &silent, bmc, SYSTEMS[2])?;
    let elsewhere = post(url, &other.callback.webhook_token, &success)?;
    bad.expect(&elsewhere, 401, "unauthorized")?;
    let named = json!({"status": "success", "job_id": other.callback.job_id});
    bad.expect(&post(url, &other.callback.webhook_token, &named)?, 409, "webhook_other_job")?;
    bad.expect(&post(url, WEBHOOK_SECRET, &named)?, 409, "webhook_other_job")?;
    let unknown = url.replace("/FAILS", "/NOBODY");
    bad.expect(&post(&unknown, WEBHOOK_SECRET, &success)?, 404, "not_found")?;
    for (id, system) in [(guest.callback.job_id, SYSTEMS[1]), (other.callback.job_id, SYSTEMS[2])] {
        let job = bad.floor.job(&id.to_string())?;
        ensure!(job["status"] == "provisioning" && bmc.power(system)? == "On", "{job:#}");
    }
    media(bad, &other)
}

/// Media URLs that have expired or were changed, in both forms.
fn media(bad: &Bad, guest: &Guest) -> Result<()> {
    let url = &guest.images[0];
    let base = bad.floor.controller.url();
    let parts: Vec<&str> = url.split("/media/s/").nth(1).context("path form")?.split('/').collect();
    let [expires, signature, job, file] = parts.as_slice() else { anyhow::bail!("{url} has another form") };
    let view = bad.floor.job(job)?;
    let content = view["task_iso_sha256"].as_str().context("task_iso_sha256")?;
    let sign = |expires: i64| {
        let mut mac = Hmac::<Sha256>::new_from_slice(SIGNING_SECRET.as_bytes()).context("key")?;
        mac.update(format!("GET\n/media/tasks/{job}/{file}\n{expires}\n{content}").as_bytes());
        Ok::<_, anyhow::Error>(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let time: i64 = expires.parse()?;
    ensure!(sign(time)? == *signature, "the signature is not as documented");
    let path = |expires: i64, signature: &str, file: &str| format!("{base}/media/s/{expires}/{signature}/{job}/{file}");
    let query = |expires: i64, signature: &str, file: &str| {
        format!("{base}/media/tasks/{job}/{file}?expires={expires}&sig={signature}")
    };
    for good in [path(time, signature, file), query(time, signature, file)] {
        let answer = http::request("HEAD", &good, &[], b"")?;
        ensure!(answer.status == 200, "{good}: {}", answer.status);
    }
    // An expiry of 2001, long past the minute that clocks may differ.
    let past = 1_000_000_000;
    let old = sign(past)?;
    let refused = "media_signed_url_validation_failures_total";
    let before = bad.floor.metric(refused, &[])?;
    for url in [path(past, &old, file), query(past, &old, file)] {
        bad.expect(&http::get(&url)?, 403, "media_url_expired")?;
    }
    let mut flipped = signature.to_string();
    flipped.replace_range(0..1, if flipped.starts_with('A') { "B" } else { "A" });
    let tampered = [
        path(time, &flipped, file),
        path(time + 1, signature, file),
        path(time, signature, "task.iso"),
        query(time, &flipped, file),
        query(time + 1, signature, file),
        query(time, "", file),
        format!("{base}/media/tasks/{job}/{file}"),
    ];
    for url in &tampered {
        bad.expect(&http::get(url)?, 403, "media_url_tampered")?;
        let head = http::request("HEAD", url, &[], b"")?;
        ensure!(head.status == 403, "HEAD {url}: {}", head.status);
    }
    ensure!(bad.floor.metric(refused, &[])? == before + 2.0 + 2.0 * tampered.len() as f64, "{refused}");
    for path in ["/static/isos/..%2f..%2finstance.key", "/static/isos/none.iso", "/static/isos/.hidden"] {
        bad.expect(&bad.floor.get(path)?, 404, "not_found")?;
    }
    Ok(())
}
