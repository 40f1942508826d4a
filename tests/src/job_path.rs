//! A whole job: from the record of a server to the first boot of what was installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::commands;
use testkit::http::{self, Response};
use testkit::process::Daemon;

use crate::scripted::bmc::{Bmc, PASSWORD, SYSTEMS};
use crate::scripted::floor::{ARTIFACT, Floor, count, expect, maintenance_iso, steps, text};
use crate::scripted::guest::{Guest, hex};
use crate::scripted::{LIMIT, media};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso", "curl"];

/// One machine with one drive, from `queued` to `FirstBoot`; what else can be asked for meanwhile; and a second job.
pub(crate) fn one_drive(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let floor = Floor::start(work, &iso, &[("WORKER_CONCURRENCY", "1")])?;
    servers(&floor, &bmc)?;
    let key = [("Idempotency-Key", "first-try")];
    let posted = floor.post_job("A-1", &Floor::recipe(), &key)?;
    ensure!(posted.status == 202, "POST: {} {}", posted.status, posted.text());
    let posted = posted.json()?;
    let job = text(&posted, "job_id")?;
    for (name, value) in [("status", "queued"), ("server_serial", "A-1")] {
        ensure!(posted[name] == value, "{name} in the answer to POST: {posted}");
    }
    let watch_log = work.join("watch.log");
    let mut watch = floor.controller.spawn(&commands::job_watch(&job), &watch_log)?;
    let mut stream = Stream::open(&floor, &job)?;
    asked_again(&floor, &job)?;
    let waiting = floor.order("B-1")?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[0])?;
    ensure!(bmc.resets(SYSTEMS[0])? == ["GracefulShutdown", "On"], "resets: {:?}", bmc.resets(SYSTEMS[0])?);
    as_a_bmc_reads(&guest.images[0], &std::fs::read(&iso)?)?;
    works(&floor, &guest, &job)?;
    ensure!(floor.job(&waiting)?["status"] == "queued", "a job is taken although all workers are busy");
    cancelled_in_the_queue(&floor, &waiting, &bmc)?;
    ends(&floor, &guest, &job, &bmc)?;
    over(&floor, &guest, &job)?;
    let status = watch.wait_end(LIMIT)?;
    watched(&std::fs::read_to_string(&watch_log)?, status.code())?;
    stream.check(&floor, &job)?;
    listed(&floor, &waiting)?;
    let second = floor.order("A-1")?;
    ensure!(floor.cancel(&second)?.status == 202, "cancel");
    ensure!(floor.wait_complete(&second)?["outcome"] == "cancelled", "the second job");
    Ok(())
}

/// Records come and go, and never show a password.
fn servers(floor: &Floor, bmc: &Bmc) -> Result<()> {
    let made = floor.add_server("A-1", &bmc.url(), SYSTEMS[0], &json!({"labels": {"rack": "r1"}}))?;
    ensure!(made.status == 201, "a new record: {}", made.status);
    let shown = floor.get("/api/v1/servers/A-1")?;
    let list = floor.get("/api/v1/servers")?;
    for answer in [&made, &shown, &list] {
        ensure!(!answer.text().contains(PASSWORD) && !answer.text().contains("sealed"), "{}", answer.text());
    }
    let record = shown.json()?;
    ensure!(record["spec"]["bmc"]["username"] == "admin" && record["labels"]["rack"] == "r1", "{record}");
    // Without a password the stored one stays.
    let spec = json!({"bmc": {"address": bmc.url(), "username": "admin", "system": SYSTEMS[0].uuid}});
    let changed = floor.put("/api/v1/servers/A-1", &spec)?;
    ensure!(changed.status == 200 && changed.json()?["generation"] == 2, "{} {}", changed.status, changed.text());
    expect(&floor.put("/api/v1/servers/X-1", &spec)?, 400, "validation_error")?;
    floor.add_server("B-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    floor.add_server("C-1", &bmc.url(), SYSTEMS[2], &json!({}))?;
    let page = floor.get("/api/v1/servers?limit=2")?.json()?;
    ensure!(serials(&page) == ["A-1", "B-1"] && page["next_cursor"] == "B-1", "{page}");
    let page = floor.get("/api/v1/servers?limit=2&cursor=B-1")?.json()?;
    ensure!(serials(&page) == ["C-1"] && page["next_cursor"].is_null(), "{page}");
    let gone = floor.request("DELETE", "/api/v1/servers/C-1", &[], b"")?;
    ensure!(gone.status == 204, "DELETE: {}", gone.status);
    expect(&floor.get("/api/v1/servers/C-1")?, 404, "not_found").map(drop)
}

fn serials(page: &Value) -> Vec<&str> {
    page["servers"].as_array().into_iter().flatten().filter_map(|server| server["serial"].as_str()).collect()
}

/// One job at a time for a server, and the same key brings the same job.
fn asked_again(floor: &Floor, job: &str) -> Result<()> {
    let again = floor.post_job("A-1", &Floor::recipe(), &[("Idempotency-Key", "first-try")])?;
    ensure!(again.status == 200 && again.json()?["job_id"] == job, "the same key: {} {}", again.status, again.text());
    let mut other = Floor::recipe();
    other["user_data"] = json!("#cloud-config\nhostname: other\n");
    let conflict = floor.post_job("A-1", &other, &[("Idempotency-Key", "first-try")])?;
    expect(&conflict, 409, "idempotency_conflict")?;
    let active = expect(&floor.post_job("A-1", &other, &[])?, 409, "active_job")?;
    ensure!(active["detail"].as_str().is_some_and(|detail| detail.contains(job)), "{active}");
    expect(&floor.request("DELETE", "/api/v1/servers/A-1", &[], b"")?, 409, "active_job")?;
    expect(&floor.get("/api/v1/jobs/nonexistent")?, 404, "not_found").map(drop)
}

/// HEAD, GET, ranges and entity tags, as BMCs and their proxies use them.
fn as_a_bmc_reads(url: &str, maintenance: &[u8]) -> Result<()> {
    ensure!(url.contains("/media/s/") && url.ends_with("/boot.iso"), "one drive gets {url}");
    let ask = |method: &str, headers: &[(&str, &str)]| http::request(method, url, headers, b"");
    let head = ask("HEAD", &[])?;
    let header = |answer: &Response, name: &str| answer.header(name).unwrap_or_default().to_owned();
    let tag = header(&head, "etag");
    ensure!(head.status == 200 && head.body.is_empty() && tag.starts_with("\"sha256:"), "HEAD: {head:?}");
    ensure!(header(&head, "content-length") == maintenance.len().to_string(), "HEAD: {head:?}");
    ensure!(header(&head, "accept-ranges") == "bytes", "HEAD: {head:?}");
    ensure!(header(&head, "content-type") == "application/x-iso9660-image", "HEAD: {head:?}");
    let whole = ask("GET", &[])?;
    ensure!(whole.status == 200 && header(&whole, "etag") == tag, "GET: {}", whole.status);
    let task = media::task_of(&whole.body, maintenance)?;
    let room = whole.body.windows(task.len()).position(|window| window == task).context("the room")?;
    // Over both borders of the task's room, at both ends, and one byte.
    let last = whole.body.len() - 1;
    let ranges = [(0, 2047), (room - 700, room + 900), (room + task.len() - 300, last), (last, last)];
    for (first, last) in ranges {
        let part = ask("GET", &[("Range", &format!("bytes={first}-{last}"))])?;
        ensure!(part.status == 206 && part.body == whole.body[first..=last], "bytes {first}-{last}: {}", part.status);
        let told = format!("bytes {first}-{last}/{}", whole.body.len());
        ensure!(header(&part, "content-range") == told, "{}", header(&part, "content-range"));
    }
    let tail = ask("GET", &[("Range", "bytes=-100")])?;
    ensure!(tail.status == 206 && tail.body == whole.body[last - 99..], "the last 100 bytes: {}", tail.status);
    let same = ask("GET", &[("If-None-Match", &tag)])?;
    ensure!(same.status == 304 && same.body.is_empty(), "If-None-Match: {}", same.status);
    let stale = ask("GET", &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")])?;
    ensure!(stale.status == 200 && stale.body.len() == whole.body.len(), "If-Range: {}", stale.status);
    let beyond = ask("GET", &[("Range", &format!("bytes={}-", whole.body.len()))])?;
    ensure!(beyond.status == 416, "past the end: {}", beyond.status);
    ensure!(header(&beyond, "content-range") == format!("bytes */{}", whole.body.len()), "{beyond:?}");
    Ok(())
}

/// What the maintenance OS finds and does, until its report.
fn works(floor: &Floor, guest: &Guest, job: &str) -> Result<()> {
    let callback = &guest.callback;
    ensure!(callback.job_id.to_string() == job && callback.attempt == 1, "job {}", callback.job_id);
    ensure!(callback.server_serial == "A-1", "server {}", callback.server_serial);
    let names = media::names(&guest.task)?;
    ensure!(names == ["callback.json", "recipe.json", "recipe.schema.json", "user-data"], "the task: {names:?}");
    let shown = floor.job(job)?;
    let artifact = callback.artifact.as_ref().context("artifact")?;
    ensure!(shown["artifact"]["digest"] == artifact.digest.as_str(), "{shown}");
    ensure!(shown["artifact"]["requested"] == ARTIFACT, "{shown}");
    let pulled = guest.pull()?;
    let pushed = std::fs::read(floor.work().join("tiny.tar"))?;
    ensure!(hex(&pulled) == hex(&pushed), "what was pulled is not what was pushed");
    ensure!(guest.progress("partition.service", "started", "")?.status == 204, "progress");
    let told = guest.progress("image-linux.service", "running", "half of it")?;
    ensure!(told.status == 204, "progress: {} {}", told.status, told.text());
    floor.wait_job(job, "a reason from the guest", |job| job["reason"] == "image-linux.service: half of it")?;
    guest.install("delivery-1")
}

fn cancelled_in_the_queue(floor: &Floor, job: &str, bmc: &Bmc) -> Result<()> {
    let answer = floor.cancel(job)?;
    ensure!(answer.status == 202, "cancel: {} {}", answer.status, answer.text());
    let job = floor.wait_complete(job)?;
    ensure!(job["outcome"] == "cancelled" && job["failed_code"] == "cancelled", "{job:#}");
    ensure!(bmc.resets(SYSTEMS[1])?.is_empty(), "a machine was switched for a job that never began");
    expect(&floor.cancel(&text(&job, "job_id")?)?, 409, "wrong_state").map(drop)
}

/// From the report to `complete`.
fn ends(floor: &Floor, guest: &Guest, job: &str, bmc: &Bmc) -> Result<()> {
    let awaiting = floor.wait_phase(job, "await-off")?;
    ensure!(awaiting["status"] == "succeeded" && awaiting["outcome"] == "succeeded", "{awaiting:#}");
    ensure!(bmc.media(SYSTEMS[0])?.len() == 1, "the medium was ejected while the machine was on");
    guest.power_off(bmc)?;
    let done = floor.wait_complete(job)?;
    ensure!(done["outcome"] == "succeeded" && done["failed_step"].is_null(), "{done:#}");
    bmc.check_clean(SYSTEMS[0])?;
    bmc.wait_power(SYSTEMS[0], "On")?;
    let resets = bmc.resets(SYSTEMS[0])?;
    ensure!(resets == ["GracefulShutdown", "On", "GracefulShutdown", "On"], "resets: {resets:?}");
    // The order in which it was done, from the job's own history.
    let wanted = [
        "validation.schema",
        "iso.build",
        "redfish.discover",
        "redfish.mount.maintenance",
        "redfish.boot-override",
        "redfish.reset",
        "partition.service",
        "webhook-success",
        "cleanup.unmount",
        "redfish.reset",
    ];
    let seen = steps(&done);
    let mut rest = seen.iter();
    for step in wanted {
        ensure!(rest.any(|seen| seen == step), "{step} is missing or in the wrong place: {seen:?}");
    }
    for (from, to) in
        [("none", "queued"), ("queued", "provisioning"), ("provisioning", "succeeded"), ("succeeded", "complete")]
    {
        let count = floor.metric("job_transitions_total", &[("from", from), ("to", to)])?;
        let wanted = if from == "none" { 2.0 } else { 1.0 };
        ensure!(count == wanted, "job_transitions_total {from} to {to} is {count}");
    }
    condition(&done, "Unknown", "awaited")
}

fn condition(job: &Value, status: &str, reason: &str) -> Result<()> {
    let condition = &job["conditions"][0];
    let right = condition["type"] == "FirstBoot" && condition["status"] == status && condition["reason"] == reason;
    ensure!(right, "FirstBoot {status} {reason} was expected: {condition}");
    Ok(())
}

/// After `complete`: reports that come again, and the first boot.
fn over(floor: &Floor, guest: &Guest, job: &str) -> Result<()> {
    let before = floor.job(job)?;
    for delivery in ["delivery-1", "delivery-2"] {
        let late = guest.report(&guest.success(delivery))?;
        ensure!(late.status == 200 && late.json()? == json!({"ok": true, "idempotent": true}), "{}", late.text());
    }
    let contrary = guest.report(&json!({"status": "failed", "failed_step": "partition.service"}))?;
    ensure!(contrary.status == 200, "a late contrary report: {}", contrary.text());
    let after = floor.job(job)?;
    for key in ["status", "outcome", "failed_step", "last_update", "phase", "conditions"] {
        ensure!(before[key] == after[key], "{key} changed: {} is now {}", before[key], after[key]);
    }
    ensure!(count(&after, "webhook-success") == 1 && count(&after, "webhook-duplicate") == 3, "{:?}", steps(&after));
    ensure!(floor.metric("webhook_received_total", &[("status", "success")])? == 1.0, "webhook_received_total");
    ensure!(floor.metric("webhook_duplicates_total", &[])? == 3.0, "webhook_duplicates_total");
    ensure!(guest.first_boot()?.status == 204, "the first boot came again");
    condition(&floor.job(job)?, "True", "reported")
}

/// `job watch` waits for the first boot.
fn watched(log: &str, code: Option<i32>) -> Result<()> {
    ensure!(code == Some(0), "job watch ended with {code:?}:\n{log}");
    for text in ["queued", "task ISO built", "the machine is on", "the machine reported success", "media ejected"] {
        ensure!(log.contains(text), "job watch did not tell {text:?}:\n{log}");
    }
    Ok(())
}

/// The server-sent events of a job as curl receives them, from the start to the end that the server makes.
struct Stream {
    curl: Daemon,
    path: PathBuf,
}

impl Stream {
    fn open(floor: &Floor, job: &str) -> Result<Self> {
        let path = floor.work().join("stream");
        let mut command = Command::new("curl");
        command.args(["--silent", "--no-buffer", "--fail"]);
        command.arg(format!("{}/api/v1/jobs/{job}/events", floor.controller.url()));
        Ok(Self { curl: Daemon::start("curl", &mut command, &path)?, path })
    }

    fn check(&mut self, floor: &Floor, job: &str) -> Result<()> {
        let status = self.curl.wait_end(LIMIT)?;
        ensure!(status.success(), "the stream did not end well: {status}");
        let text = std::fs::read_to_string(&self.path)?;
        let mut states: Vec<String> = Vec::new();
        for view in blocks(&text, "job").map(serde_json::from_str::<Value>) {
            let status = view?["status"].as_str().unwrap_or_default().to_owned();
            if states.last() != Some(&status) {
                states.push(status);
            }
        }
        // It was opened after the answer to POST: a worker may have been quicker.
        let seen: Vec<&str> = states.iter().map(String::as_str).skip_while(|state| *state == "queued").collect();
        ensure!(seen == ["provisioning", "succeeded", "complete"], "states in the stream: {states:?}");
        let told: Vec<Value> = blocks(&text, "event").map(serde_json::from_str).collect::<Result<_, _>>()?;
        let all = floor.job(job)?["events"].clone();
        ensure!(json!(told) == all, "the stream told {told:?} and not {all}");
        ensure!(text.trim_end().ends_with("event: end\ndata: {}"), "no end: {text}");
        // Whoever comes back with the last id is told only what is new.
        let last = told.len() - 2;
        let id = told[last]["id"].to_string();
        let again = floor.request("GET", &format!("/api/v1/jobs/{job}/events"), &[("Last-Event-ID", &id)], b"")?.text();
        ensure!(blocks(&again, "event").count() == 1, "after {id} came {again}");
        Ok(())
    }
}

/// The data of all blocks of this name.
fn blocks<'t>(stream: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let fits = move |block: &&str| block.lines().any(|line| line.strip_prefix("event: ") == Some(name));
    stream.split("\n\n").filter(fits).filter_map(|block| block.lines().find_map(|line| line.strip_prefix("data: ")))
}

fn listed(floor: &Floor, newest: &str) -> Result<()> {
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=1".to_owned();
    loop {
        let page = floor.get(&path)?.json()?;
        let jobs = page["jobs"].as_array().context("jobs")?;
        ensure!(jobs.len() == 1 && jobs[0]["events"].is_null(), "a page: {page}");
        seen.push(text(&jobs[0], "job_id")?);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/jobs?limit=1&cursor={cursor}"),
            None => break,
        }
    }
    ensure!(seen.len() == 2 && seen[0] == newest, "the pages: {seen:?}");
    let mine = floor.get("/api/v1/jobs?serial=A-1&status=complete")?.json()?;
    ensure!(mine["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1), "{mine}");
    expect(&floor.get("/api/v1/jobs?status=done")?, 400, "invalid_request").map(drop)
}

/// A machine with two CD drives and a fixed address: maintenance OS and task come apart.
pub(crate) fn two_drives(work: &Path) -> Result<()> {
    let bmc = Bmc::start_with_two_drives(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let floor = Floor::start(work, &iso, &[])?;
    let network = json!({"mac": "00:5c:52:31:3a:01", "address": "192.0.2.10/24", "gateway": "192.0.2.1"});
    floor.add_server("T-1", &bmc.url(), SYSTEMS[1], &json!({"network": network}))?;
    let job = floor.order("T-1")?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    ensure!(guest.images.len() == 2, "drives: {:?}", guest.images);
    ensure!(guest.images[0].ends_with(".iso") && !guest.images[0].ends_with("/task.iso"), "{}", guest.images[0]);
    ensure!(guest.images[1].ends_with("/task.iso"), "{}", guest.images[1]);
    ensure!(http::get(&guest.images[0])?.body == std::fs::read(&iso)?, "the maintenance ISO is not as it was");
    let network: Value = serde_json::from_slice(&guest.file("/network.json")?)?;
    ensure!(network["mac"] == "00:5c:52:31:3a:01", "network.json: {network}");
    let stored = std::fs::read(floor.controller.data().join("tasks").join(&job).join("task.iso"))?;
    ensure!(stored == guest.task, "the task ISO is not the one that is stored");
    let shown = floor.job(&job)?;
    ensure!(shown["task_iso_sha256"] == hex(&Sha256::digest(&stored)).as_str(), "{shown}");
    guest.install("d")?;
    guest.power_off(&bmc)?;
    let done = floor.wait_complete(&job)?;
    ensure!(done["outcome"] == "succeeded", "{done:#}");
    bmc.check_clean(SYSTEMS[1])?;
    ensure!(bmc.resets(SYSTEMS[1])? == ["On", "GracefulShutdown", "On"], "{:?}", bmc.resets(SYSTEMS[1])?);
    let watch = floor.controller.spawn(&commands::job_watch(&job), &work.join("watch.log"))?;
    ensure!(guest.first_boot()?.status == 204, "first boot");
    let mut watch = watch;
    let status = watch.wait_end(Duration::from_secs(60))?;
    ensure!(status.success(), "job watch of a job that is over: {status}");
    Ok(())
}
