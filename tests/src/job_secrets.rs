//! Planted secrets are found nowhere: not in logs, command lines, answers, events or files that others can read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use testkit::commands;
use testkit::process::run;
use testkit::redfish::Redfish;
use testkit::sweep::{Findings, SecretSweep};

use crate::scripted::LIMIT;
use crate::scripted::bmc::{self, Bmc, SYSTEMS};
use crate::scripted::floor::{Floor, SIGNING_SECRET, WEBHOOK_SECRET, maintenance_iso, write_secret};
use crate::scripted::guest::Guest;

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso", "curl"];

const USER_DATA: &str = "#cloud-config\nchpasswd: {list: \"root:planted-Pa55/word\"}\n";
const USER: &str = "operator";
const PASSWORD: &str = "operator/Pa55-word";

/// A whole job at the most talkative log level, over the command line where there is one, with every secret planted.
pub(crate) fn nowhere(work: &Path) -> Result<()> {
    let sweep = SecretSweep::default()
        .secret("BMC password", bmc::PASSWORD)
        .secret("webhook secret", WEBHOOK_SECRET)
        .secret("signed-URL secret", SIGNING_SECRET)
        .secret("user-data", "planted-Pa55/word")
        .secret("API password", PASSWORD);
    // Before everything that follows: making the passwords, too, must not show them.
    let watch = sweep.watch_argv();
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let hash = testkit::sushy::password_line(USER, PASSWORD)?;
    let hash = hash.split_once(':').context("htpasswd wrote no hash")?.1;
    let settings = [("LOG_LEVEL", "debug"), ("BASIC_USER", USER), ("BASIC_PASS_HASH", hash)];
    let mut floor = Floor::bare(work, &settings)?;
    floor.log_in(USER, PASSWORD)?;
    floor.add_maintenance_iso(&iso)?;
    floor.push_artifact()?;
    let (job, watched) = ordered(&floor, &bmc, work)?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    let failing = refused(&floor, &guest)?;
    guest.pull()?;
    guest.install("d")?;
    // The tokens of the job, known only now; what was written before is looked at again.
    let credentials = guest.callback.artifact.as_ref().and_then(|artifact| artifact.credentials.as_ref());
    let signature = guest.images[0].split('/').rev().nth(2).context("the signature in the media URL")?;
    let sweep = sweep
        .secret("webhook token", &guest.callback.webhook_token)
        .secret("first-boot token", &guest.callback.first_boot_token)
        .secret("registry token", &credentials.context("credentials")?.password)
        .secret("media signature", signature);
    let tokens = sweep.watch_argv();
    guest.power_off(&bmc)?;
    floor.wait_complete(&job)?;
    ensure!(guest.first_boot()?.status == 204, "first boot");
    let mut findings = answers(&floor, &sweep, &job)?;
    findings.push(sweep.text("answers to wrong reports", &failing));
    let mut watched = watched;
    ensure!(watched.wait_end(LIMIT)?.success(), "job watch");
    findings.push(sweep.file(watched.log())?);
    findings.push(sweep.file(floor.controller.log())?);
    findings.extend(files(&floor, &sweep)?);
    for watch in [watch, tokens] {
        let (found, lines) = watch.end()?;
        ensure!(lines > 3, "only {lines} command lines were seen");
        findings.push(found);
    }
    for found in &findings {
        found.check()?;
        ensure!(found.unread.is_empty(), "not read: {:?}", found.unread);
    }
    // The sweep can see: what may hold secrets does.
    ensure!(sweep.text("task ISO", &guest.task).check().is_err(), "the sweep finds nothing in the task ISO");
    ensure!(floor.controller.events()?.iter().any(|line| line["level"] == "debug"), "the log is not talkative");
    modes(&floor, &job)
}

/// A server and a job by the command line; gives back the job and `job watch`, which runs on.
fn ordered(floor: &Floor, bmc: &Bmc, work: &Path) -> Result<(String, testkit::process::Daemon)> {
    let (password, recipe) = (work.join("bmc-password"), work.join("recipe.json"));
    write_secret(&password, bmc::PASSWORD)?;
    let mut text = Floor::recipe();
    text["user_data"] = json!(USER_DATA);
    write_secret(&recipe, &text.to_string())?;
    let access = Redfish {
        url: bmc.url(),
        certificate: PathBuf::new(),
        user: bmc::USER.to_owned(),
        password: bmc::PASSWORD.to_owned(),
    };
    let mut words = commands::server_add("S-1", &access, SYSTEMS[1].uuid, &password);
    let authority = words.iter().position(|word| word == "--bmc-ca").context("--bmc-ca")?;
    words.drain(authority..authority + 2);
    floor.controller.command(&words)?;
    let job = commands::Job::parse(&floor.controller.command(&commands::job_create("S-1", &recipe))?)?.id;
    let watch = floor.controller.spawn(&commands::job_watch(&job), &work.join("watch.log"))?;
    Ok((job, watch))
}

/// Requests that go wrong with secrets in them.
fn refused(floor: &Floor, guest: &Guest) -> Result<Vec<u8>> {
    let mut text = Floor::recipe();
    text["user_data"] = json!(USER_DATA);
    text["pass_word"] = json!("planted-Pa55/word");
    let mut answers = floor.post_job("S-1", &text, &[])?.body;
    let token = &guest.callback.webhook_token;
    answers.extend(guest.report(&json!({"status": "perhaps", "message": format!("token={token}")}))?.body);
    answers.extend(guest.progress("x.service", "finished", &format!("used password={PASSWORD}"))?.body);
    let record = json!({"bmc": {"address": format!("http://admin:{PASSWORD}@10.0.0.1"), "username": "admin",
                                "password": bmc::PASSWORD, "extra": 1}});
    answers.extend(floor.put("/api/v1/servers/S-2", &record)?.body);
    ensure!(String::from_utf8_lossy(&answers).matches("\"error\"").count() == 3, "three of them are refused");
    Ok(answers)
}

/// Everything that the API tells, the stream of events included.
fn answers(floor: &Floor, sweep: &SecretSweep, job: &str) -> Result<Vec<Findings>> {
    let paths = [
        format!("/api/v1/jobs/{job}"),
        format!("/api/v1/jobs/{job}/events"),
        "/api/v1/jobs".to_owned(),
        "/api/v1/servers".to_owned(),
        "/api/v1/servers/S-1".to_owned(),
        "/api/v1/artifacts".to_owned(),
        "/metrics".to_owned(),
    ];
    let mut findings = Vec::new();
    for path in paths {
        let answer = floor.get(&path)?;
        ensure!(answer.status == 200 && answer.body.len() > 10, "GET {path}: {} {}", answer.status, answer.text());
        findings.push(sweep.text(&path, &answer.body));
    }
    for words in [commands::job_show(job), vec!["config".into(), "show".into(), "--origin".into()]] {
        let output = floor.controller.try_command(&words)?;
        findings.push(sweep.text(&words.join(" "), &[output.stdout, output.stderr].concat()));
    }
    Ok(findings)
}

/// Every file of the data directory whose own mode lets others read it, as if the directories above did not keep them out.
fn files(floor: &Floor, sweep: &SecretSweep) -> Result<Vec<Findings>> {
    let mut findings = vec![sweep.readable_by_all(floor.controller.data())?];
    let all = walk(floor.controller.data())?;
    for path in &all {
        if mode(path)? & 0o004 != 0 {
            findings.push(sweep.file(path)?);
        }
    }
    // Few or none of them are open to others, so it is their number that says whether the right place was looked at.
    ensure!(all.len() > 10, "only {} files are in the data directory", all.len());
    Ok(findings)
}

fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        match path.is_dir() && !path.is_symlink() {
            true => files.extend(walk(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

fn mode(path: &Path) -> Result<u32> {
    let metadata = std::fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(metadata.permissions().mode() & 0o777)
}

/// Who may read what, while the controller runs.
fn modes(floor: &Floor, job: &str) -> Result<()> {
    let data = floor.controller.data();
    let task = data.join("tasks").join(job);
    let mut wanted = vec![
        (data.to_owned(), 0o750),
        (data.join("instance.key"), 0o600),
        (data.join("db/cairn.db"), 0o600),
        (data.join("tasks"), 0o750),
        (task.clone(), 0o750),
        (task.join("task.iso"), 0o640),
        (task.join("task.iso.meta.json"), 0o640),
    ];
    for name in ["cairn.db-wal", "cairn.db-shm"] {
        wanted.push((data.join("db").join(name), 0o600));
    }
    for (path, right) in wanted {
        let found = mode(&path)?;
        ensure!(found == right, "{} has mode {found:o}, not {right:o}", path.display());
    }
    // No copy of the BMC's password, the recipe's secrets or a token lies open in the database but the recipe itself.
    let sealed = SecretSweep::default().secret("BMC password", bmc::PASSWORD);
    for path in walk(&data.join("db"))? {
        sealed.file(&path)?.check()?;
    }
    let mut strings = Command::new("python3");
    let script = "import sqlite3, sys\nprint(sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)\
                  .execute('SELECT sealed_password FROM servers').fetchone()[0])";
    let stored = run(strings.args(["-c", script]).arg(data.join("db/cairn.db")))?;
    if stored.trim().len() < 40 {
        bail!("the sealed password is no sealed password: {} characters", stored.trim().len());
    }
    Ok(())
}
