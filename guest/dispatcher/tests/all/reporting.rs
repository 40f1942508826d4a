use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cairn_core::FixedClock;
use dispatcher::arguments::Ending;
use dispatcher::failure::{Failure, code};
use dispatcher::report::webhook::{FIRST_BOOT_REPORTER, Reported};
use dispatcher::report::{Patience, first_boot, progress::Progress, webhook};
use dispatcher::workspace::{Paths, Workflow, Workspace};
use host::{Fake, Mount, Mounts};
use recipe::callback::ProgressEvent;
use uuid::Uuid;

use super::server::{Server, serve_tls};
use super::stage;

const QUICK: Patience =
    Patience { attempts: 4, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(2) };

struct Reporter {
    _root: tempfile::TempDir,
    paths: Paths,
    workspace: Workspace,
    host: Fake,
}

impl Reporter {
    fn new(server: &Server) -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = stage::paths(root.path());
        let workspace = Workspace::new(&paths.run);
        workspace.create().unwrap();
        workspace.write_json("callback.json", &stage::callback(&server.url, Uuid::from_u128(7), None)).unwrap();
        Self { _root: root, paths, workspace, host: Fake::new() }
    }

    fn report(&self, ending: &Ending) -> Result<Reported, Failure> {
        let clock = FixedClock::at(jiff::Timestamp::UNIX_EPOCH);
        webhook::run(&self.host, &self.paths, ending, true, QUICK, &clock)
    }
}

#[test]
fn a_success_is_repeated_with_one_delivery_id_until_it_is_taken() {
    let server = Server::start(&[500, 503, 429]);
    let reporter = Reporter::new(&server);
    let workflow = Workflow {
        task_target: "install-linux.target".into(),
        schema_id: Some(recipe::SCHEMA_ID.into()),
        started_at: "2026-01-02T03:04:05Z".into(),
        serial: "SN-7".into(),
    };
    reporter.workspace.write_json("workflow.json", &workflow).unwrap();
    reporter.workspace.write_json(FIRST_BOOT_REPORTER, &true).unwrap();
    reporter.host.mount(&Mount::new("/dev/x", &reporter.paths.new_root, "ext4")).unwrap();
    assert_eq!(reporter.report(&Ending::Success), Ok(Reported::Accepted));
    let posted = server.posted("/webhook");
    assert_eq!(posted.len(), 4);
    assert!(posted.iter().all(|asked| asked.body == posted[0].body && asked.secret == "webhook-token"));
    let mut body = posted[0].body.clone();
    let id = body.as_object_mut().unwrap().remove("delivery_id").unwrap();
    let expected = serde_json::json!({
        "status": "success",
        "job_id": "00000000-0000-0000-0000-000000000007",
        "task_target": "install-linux.target",
        "dispatcher_version": env!("CARGO_PKG_VERSION"),
        "schema_id": recipe::SCHEMA_ID,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "1970-01-01T00:00:00Z",
        "first_boot_reporter": true
    });
    assert_eq!(body, expected);
    let lines = reporter.host.lines();
    assert!(lines[1].starts_with("unmount "), "{lines:?}");
    assert_eq!(lines[2], "systemctl poweroff");
    reporter.report(&Ending::Success).unwrap();
    assert_eq!(server.posted("/webhook")[4].body["delivery_id"], id, "the program was started again");
}

#[test]
fn the_failure_that_came_first_is_reported() {
    let server = Server::start(&[]);
    let reporter = Reporter::new(&server);
    let first = Failure::new(code::ARTIFACT_DIGEST_MISMATCH, "the layer is another one");
    reporter.workspace.keep_failure("image-linux.service", &first).unwrap();
    reporter.workspace.keep_failure("later.service", &Failure::new("later", "a consequence")).unwrap();
    let ending = Ending::Failed { unit: "install-linux.target".into() };
    assert_eq!(reporter.report(&ending), Ok(Reported::Accepted));
    let body = &server.posted("/webhook")[0].body;
    assert_eq!((&body["status"], &body["failed_step"]), (&"failed".into(), &"image-linux.service".into()));
    assert_eq!(
        (&body["code"], &body["message"]),
        (&"artifact_digest_mismatch".into(), &"the layer is another one".into())
    );
}

#[test]
fn a_unit_that_left_no_failure_is_named_by_systemd() {
    let server = Server::start(&[]);
    let reporter = Reporter::new(&server);
    reporter.report(&Ending::Failed { unit: "partition.service".into() }).unwrap();
    assert_eq!(server.posted("/webhook")[0].body["failed_step"], "partition.service");
}

#[test]
fn a_refusal_is_not_repeated_and_the_machine_stays_on() {
    let server = Server::start(&[401]);
    let reporter = Reporter::new(&server);
    let refused = reporter.report(&Ending::Success).unwrap();
    assert!(matches!(refused, Reported::Refused(reason) if reason.starts_with("401")));
    assert_eq!(server.posted("/webhook").len(), 1);
    assert!(reporter.host.lines().is_empty());
}

#[test]
fn without_an_answer_it_gives_up_and_says_so() {
    let server = Server::start(&[500; 9]);
    let reporter = Reporter::new(&server);
    assert_eq!(reporter.report(&Ending::Success).unwrap_err().code, "webhook_unreachable");
    assert_eq!(server.posted("/webhook").len(), 4);
    std::fs::remove_file(reporter.workspace.path("callback.json")).unwrap();
    assert_eq!(reporter.report(&Ending::Success).unwrap_err().code, code::MEDIUM_MISSING);
}

#[test]
fn progress_arrives_in_order_and_a_dead_controller_holds_nothing_up() {
    let server = Server::start(&[]);
    let callback = stage::callback(&server.url, Uuid::from_u128(7), None);
    let progress = Progress::start(&callback);
    progress.event("partition.service", ProgressEvent::Started, None);
    progress.bytes("image-linux.service", ProgressEvent::Running, 5, 10);
    progress.finish();
    let posted = server.posted("/progress");
    assert_eq!(posted[0].body, serde_json::json!({"unit": "partition.service", "event": "started"}));
    assert_eq!((&posted[1].body["bytes_done"], &posted[1].secret), (&5.into(), &"webhook-token".to_owned()));
    drop(server);
    let progress = Progress::start(&callback);
    progress.event("partition.service", ProgressEvent::Started, None);
    progress.finish();
}

#[test]
fn the_first_boot_is_reported_and_leaves_no_trace() {
    let server = Server::start(&[500]);
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    let paths =
        [first_boot::PROGRAM, first_boot::CONFIG, first_boot::UNIT, first_boot::UNIT_LINK, first_boot::AUTHORITIES];
    for path in paths {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), "").unwrap();
    }
    let url = server.url.join("/first-boot").unwrap();
    let config = first_boot::Config { url, token: "first-boot-token".into(), authorities: None };
    std::fs::write(at(first_boot::CONFIG), serde_json::to_vec(&config).unwrap()).unwrap();
    std::fs::set_permissions(at(first_boot::CONFIG), std::fs::Permissions::from_mode(0o600)).unwrap();
    first_boot::run(&at(first_boot::CONFIG), root.path(), QUICK).unwrap();
    let posted = server.posted("/first-boot");
    assert_eq!(posted.len(), 2);
    assert_eq!(posted[1].secret, "first-boot-token");
    assert!(paths.iter().all(|path| !at(path).exists()));
    assert!(!at("/usr/lib/cairn").exists() && at("/usr/lib").exists());
    first_boot::run(&at(first_boot::CONFIG), root.path(), QUICK).unwrap();
    assert_eq!(server.posted("/first-boot").len(), 2, "there is nothing left to report");
}

#[test]
fn the_reporter_stays_while_the_controller_cannot_be_reached() {
    let server = Server::start(&[500; 9]);
    let root = tempfile::tempdir().unwrap();
    let config_path = root.path().join("config.json");
    let config =
        first_boot::Config { url: server.url.join("/first-boot").unwrap(), token: "x".into(), authorities: None };
    std::fs::write(&config_path, serde_json::to_vec(&config).unwrap()).unwrap();
    assert_eq!(first_boot::run(&config_path, root.path(), QUICK).unwrap_err().code, "first_boot_unreachable");
    assert!(config_path.exists());
}

#[test]
fn an_authority_that_only_the_maintenance_system_knew_is_trusted() {
    let test = "an_authority_that_only_the_maintenance_system_knew_is_trusted";
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).display().to_string();
    let command = host::Command::new("openssl").args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]).args([
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=controller",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        &at("key.pem"),
        "-out",
        &at("authority.pem"),
    ]);
    if let Err(error) = host::Processes::run(&host::Linux, &command) {
        return stage::not_run(test, &error.to_string());
    }
    let (url, _runtime) = serve_tls(&root.path().join("authority.pem"), &root.path().join("key.pem"));
    let report = |authorities| {
        let config_path = root.path().join("config.json");
        let config = first_boot::Config { url: url.join("/first-boot").unwrap(), token: "x".into(), authorities };
        std::fs::write(&config_path, serde_json::to_vec(&config).unwrap()).unwrap();
        first_boot::run(&config_path, root.path(), Patience { attempts: 1, ..QUICK })
    };
    let error = report(None).unwrap_err();
    assert!(error.message.contains("UnknownIssuer") || error.message.contains("certificate"), "{error}");
    report(Some(root.path().join("authority.pem"))).unwrap();
}
