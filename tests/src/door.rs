//! Who may come in, over what, and how the door closes.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::http::{self, Response};
use testkit::process::{Daemon, free_port, run};
use testkit::{commands, environment, sushy, wait};

use crate::scripted::bmc::{Bmc, SYSTEMS};
use crate::scripted::floor::{ARTIFACT, Floor, basic, expect, maintenance_iso, tar_of, write_secret};
use crate::scripted::guest::{Guest, post};
use crate::scripted::{LIMIT, LOOK};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["htpasswd", "python3", "xorriso", "skopeo", "openssl", "curl"];

const USER: &str = "operator";
const PASSWORD: &str = "operator/Pa55-word";

/// Nobody gets in from outside without a password, and what a start needs is said.
pub(crate) fn closed_from_outside(work: &Path) -> Result<()> {
    for (number, (settings, code, told)) in [
        (vec![], 2, ["no_authentication", "BASIC_USER"]),
        (vec![("AUTH_MODE", "none")], 2, ["no_authentication", "BASIC_USER"]),
        (vec![("BASIC_USER", USER)], 2, ["settings", "BASIC_PASS_HASH"]),
        (vec![("BASIC_USER", USER), ("BASIC_PASS_HASH", "plain")], 2, ["settings", "hash"]),
        (vec![("RATE_LIMIT_RPM", "many")], 2, ["settings", "RATE_LIMIT_RPM"]),
    ]
    .into_iter()
    .enumerate()
    {
        let data = work.join(format!("data-{number}"));
        let ended = started(&data, "0.0.0.0:0", &settings)?;
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.code() == Some(code), "{settings:?} ended with {}: {stderr}", ended.status);
        for word in told {
            ensure!(stderr.contains(word), "{settings:?} does not say {word}: {stderr}");
        }
        ensure!(!data.exists(), "a start that was refused made {}", data.display());
    }
    Ok(())
}

/// A start that ends by itself.
fn started(data: &Path, listen: &str, settings: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(environment::cairn()?);
    command.args(commands::serve(data, listen)).envs(settings.iter().copied()).stdin(Stdio::null());
    let mut daemon = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start cairn serve")?;
    let ended = wait::until("cairn serve to refuse", Duration::from_secs(20), LOOK, || Ok(daemon.try_wait()?));
    if ended.is_err() {
        daemon.kill()?;
    }
    let output = daemon.wait_with_output()?;
    ended?;
    Ok(output)
}

/// API, machines' routes and registry with a password.
pub(crate) fn with_a_password(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let hash = sushy::password_line(USER, PASSWORD)?;
    let hash = hash.split_once(':').context("htpasswd wrote no hash")?.1.to_owned();
    let settings = [
        ("BASIC_USER", USER),
        ("BASIC_PASS_HASH", hash.as_str()),
        ("RATE_LIMIT_RPM", "30"),
        ("RATE_LIMIT_BURST", "12"),
    ];
    let mut floor = Floor::bare(work, &settings)?;
    strangers(&floor)?;
    floor.log_in(USER, PASSWORD)?;
    floor.add_maintenance_iso(&iso)?;
    floor.push_artifact()?;
    floor.add_server("D-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    let job = floor.order("D-1")?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    // The machine's routes ask for its tokens and for nothing else.
    ensure!(guest.progress("partition.service", "started", "")?.status == 204, "progress without a login");
    let wrong = post(guest.callback.webhook_url.as_str(), "wrong", &json!({"status": "success"}))?;
    expect(&wrong, 401, "unauthorized")?;
    registry(&floor, &guest, work)?;
    guest.install("d")?;
    let after = pull(&floor, &guest, "os-images/tiny")?;
    ensure!(after.status == 401, "a job that has ended still pulls: {}", after.status);
    guest.power_off(&bmc)?;
    ensure!(floor.wait_complete(&job)?["outcome"] == "succeeded", "the job");
    too_many(&floor)
}

fn strangers(floor: &Floor) -> Result<()> {
    for path in ["/api/v1/jobs", "/api/v1/servers", "/api/v1/jobs/x", "/api/v1/jobs/x/events", "/api/v1/artifacts"] {
        let answer = floor.get(path)?;
        expect(&answer, 401, "unauthorized").with_context(|| path.to_owned())?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        ensure!(challenge.starts_with("Basic realm=\"shoal-provisioner\""), "{path}: {challenge}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        ensure!(floor.get(path)?.status == 200, "{path} asks for a login");
    }
    let registry = floor.get("/v2/")?;
    ensure!(registry.status == 401 && registry.header("www-authenticate").is_some(), "/v2/: {}", registry.status);
    let output = floor.controller.try_command(&["metal".into(), "server".into(), "list".into()])?;
    ensure!(output.status.code() == Some(5), "the command line without a login ended with {}", output.status);
    Ok(())
}

/// Many wrong passwords in a row are answered with 429; who is logged in stays so.
fn too_many(floor: &Floor) -> Result<()> {
    let before = floor.metric("login_auth_failures_total", &[])?;
    let wrong = basic(USER, "wrong");
    let url = format!("{}/api/v1/jobs", floor.controller.url());
    let attempt = || http::request("GET", &url, &[("Authorization", &wrong)], b"");
    expect(&attempt()?, 401, "unauthorized")?;
    // Tokens come back while this runs, so how many it takes is not fixed.
    let last = (0..200).map(|_| attempt()).find(|answer| answer.as_ref().is_ok_and(|answer| answer.status != 401));
    let last = last.context("200 wrong passwords and no end")??;
    expect(&last, 429, "rate_limit_exceeded")?;
    ensure!(last.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|wait| wait > 0)), "{last:?}");
    ensure!(floor.get("/api/v1/jobs")?.status == 200, "who is logged in is shut out");
    ensure!(floor.metric("login_auth_failures_total", &[])? > before, "login_auth_failures_total");
    Ok(())
}

/// A job's token pulls what the job installs, and does nothing else.
fn registry(floor: &Floor, guest: &Guest, work: &Path) -> Result<()> {
    guest.pull()?;
    let other = tar_of(work, "other", b"another")?;
    floor.controller.command(&commands::artifact_push("os-images/other:1", &other))?;
    let elsewhere = pull(floor, guest, "os-images/other")?;
    ensure!(elsewhere.status == 401 || elsewhere.status == 403, "another repository: {}", elsewhere.status);
    let proof = proof(guest)?;
    let uploads = format!("{}/v2/os-images/tiny/blobs/uploads/", floor.controller.url());
    let push = http::request("POST", &uploads, &[("Authorization", &proof)], b"")?;
    ensure!(push.status == 401 || push.status == 403, "a job pushes: {}", push.status);
    let url = format!("{}/api/v1/servers", floor.controller.url());
    let api = http::request("GET", &url, &[("Authorization", &proof)], b"")?;
    ensure!(api.status == 401, "a job's token opens the API: {}", api.status);
    skopeo(floor, work)
}

fn proof(guest: &Guest) -> Result<String> {
    let artifact = guest.callback.artifact.as_ref().context("artifact")?;
    let credentials = artifact.credentials.as_ref().context("credentials")?;
    Ok(basic(&credentials.username, &credentials.password))
}

/// Asks for the only tag of a repository as the job.
fn pull(floor: &Floor, guest: &Guest, repository: &str) -> Result<Response> {
    let url = format!("{}/v2/{repository}/manifests/1", floor.controller.url());
    let accept = "application/vnd.oci.image.manifest.v1+json";
    http::request("GET", &url, &[("Authorization", &proof(guest)?), ("Accept", accept)], b"")
}

fn skopeo(floor: &Floor, work: &Path) -> Result<()> {
    let host = floor.controller.url().replace("http://", "");
    let (file, password) = (work.join("skopeo.json"), work.join("skopeo-password"));
    let login = |given: &str| {
        write_secret(&password, given)?;
        let mut command = Command::new("skopeo");
        command
            .args(["login", "--tls-verify=false", "-u", USER, "--password-stdin", "--authfile"])
            .arg(&file)
            .arg(&host);
        command.stdin(std::fs::File::open(&password)?).output().context("start skopeo")
    };
    let wrong = login("wrong")?;
    ensure!(!wrong.status.success(), "skopeo logs in with a wrong password");
    let right = login(PASSWORD)?;
    ensure!(right.status.success(), "skopeo login: {}", String::from_utf8_lossy(&right.stderr));
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--raw", "--tls-verify=false", "--authfile"]).arg(&file);
    let manifest = run(inspect.arg(format!("docker://{host}/{ARTIFACT}")))?;
    ensure!(manifest.contains("application/vnd.oci.image.manifest.v1+json"), "{manifest}");
    Ok(())
}

/// TLS with a certificate of an authority of our own.
pub(crate) fn tls(work: &Path) -> Result<()> {
    sushy::certificates(work)?;
    let (port, path) = (free_port()?, |name: &str| work.join(name).display().to_string());
    let url = format!("https://127.0.0.1:{port}");
    let mut command = Command::new(environment::cairn()?);
    command.args(commands::serve(&work.join("data"), &format!("127.0.0.1:{port}")));
    command.env("TLS_CERT_FILE", path("server.pem")).env("TLS_KEY_FILE", path("server.key"));
    let mut daemon = Daemon::start("cairn serve", &mut command, &work.join("cairn.log"))?;
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "20"]).args(more);
        run(command.arg(format!("{url}/readyz")))
    };
    let answer = wait::until("cairn serve over TLS", LIMIT, LOOK, || {
        daemon.check()?;
        Ok(curl(&["--cacert", &path("ca.pem")]).ok())
    })?;
    ensure!(answer.contains(" 200 OK") && answer.contains("\"ready\":true"), "{answer}");
    ensure!(answer.to_lowercase().contains("strict-transport-security: max-age=31536000"), "{answer}");
    ensure!(curl(&[]).is_err(), "a certificate of an unknown authority is believed");
    ensure!(curl(&["--cacert", &path("ca.pem"), "--tls-max", "1.1"]).is_err(), "TLS 1.1 is spoken");
    ensure!(http::get(&format!("http://127.0.0.1:{port}/readyz")).is_err(), "plain HTTP is answered");
    let client = |variables: &[(&str, &str)]| {
        let mut command = Command::new(environment::cairn()?);
        command.args(["metal", "server", "list"]).env("CAIRN_URL", &url).envs(variables.iter().copied());
        command.stdin(Stdio::null()).output().context("start cairn")
    };
    let trusting = client(&[("CAIRN_CA_FILE", &path("ca.pem"))])?;
    ensure!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stderr));
    let wary = client(&[])?;
    ensure!(wary.status.code() == Some(6), "without the authority it ended with {}", wary.status);
    let status = daemon.stop(LIMIT)?;
    ensure!(status.code() == Some(0), "SIGTERM ended it with {status}");
    Ok(())
}

/// SIGTERM while a job runs and is watched: a clean end, and after the next start job and watch go on.
pub(crate) fn graceful(work: &Path) -> Result<()> {
    let bmc = Bmc::start(&work.join("bmc"))?;
    let iso = maintenance_iso(work)?;
    let mut floor = Floor::start(work, &iso, &[])?;
    floor.add_server("G-1", &bmc.url(), SYSTEMS[1], &json!({}))?;
    let job = floor.order("G-1")?;
    let log = work.join("watch.log");
    let mut watch = floor.controller.spawn(&commands::job_watch(&job), &log)?;
    let guest = Guest::boot(&floor, &job, &bmc, SYSTEMS[1])?;
    wait::until("job watch to be connected", LIMIT, LOOK, || {
        Ok(std::fs::read_to_string(&log)?.contains("the machine is on").then_some(()))
    })?;
    let status = floor.controller.stop(Duration::from_secs(30))?;
    ensure!(status.code() == Some(0), "SIGTERM ended it with {status}");
    let last = floor.controller.events()?.pop().context("the log")?;
    ensure!(last["message"] == "stopped", "the last line: {last}");
    wait::until("job watch to miss the controller", LIMIT, LOOK, || {
        ensure!(watch.ended()?.is_none(), "job watch gave up");
        Ok(std::fs::read_to_string(&log)?.contains("the controller does not answer").then_some(()))
    })?;
    floor.controller.resume()?;
    guest.install("d")?;
    guest.power_off(&bmc)?;
    let done = floor.wait_complete(&job)?;
    ensure!(done["outcome"] == "succeeded" && done["attempt"] == 1, "{done:#}");
    ensure!(bmc.resets(SYSTEMS[1])? == ["On", "GracefulShutdown", "On"], "{:?}", bmc.resets(SYSTEMS[1])?);
    ensure!(guest.first_boot()?.status == 204, "first boot");
    let status = watch.wait_end(LIMIT)?;
    let told = std::fs::read_to_string(&log)?;
    ensure!(status.success(), "job watch ended with {status}:\n{told}");
    for text in ["the machine reported success", "media ejected"] {
        ensure!(told.contains(text), "job watch did not tell {text:?}:\n{told}");
    }
    ensure!(told.matches("task ISO built").count() == 1, "job watch told something twice:\n{told}");
    Ok(())
}
