use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cairn_core::FixedClock;
use clap::Parser;
use dispatcher::arguments::Arguments;
use dispatcher::dispatch::{exit_code, run};
use dispatcher::failure::Failure;
use dispatcher::workspace::{Paths, Workspace};
use host::{Fake, Reply};
use recipe::TaskTarget;
use serde_json::{Value, json};
use uuid::Uuid;

use super::stage;

/// A machine whose task medium is mounted by the fake host: its files are put where it would be.
struct Bench {
    root: tempfile::TempDir,
    paths: Paths,
    host: Fake,
}

fn linux() -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": "/dev/sda",
        "oci_url": "debian:13",
        "partition_layout": [{"size": "100%", "format": "ext4"}],
        "user_data": "#cloud-config\n",
        "env": {"hostname": "node-7"}
    })
}

impl Bench {
    fn new(recipe: &Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = stage::paths(root.path());
        for directory in ["sys/class/block", "dev", "mnt/task"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(root.path().join("sys/class/block/sr1"), "").unwrap();
        let mut volume = vec![0; 17 * 2048];
        volume[16 * 2048] = 1;
        volume[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
        volume[16 * 2048 + 40..][..9].copy_from_slice(b"TASK_0007");
        std::fs::write(root.path().join("dev/sr1"), volume).unwrap();
        let bench = Self { root, paths, host: Fake::new() };
        let callback = stage::callback(&"http://127.0.0.1:9".parse().unwrap(), Uuid::from_u128(7), None);
        bench.put("callback.json", &serde_json::to_vec(&callback).unwrap());
        bench.put("recipe.schema.json", recipe::SCHEMA.as_bytes());
        bench.put("recipe.json", &serde_json::to_vec(recipe).unwrap());
        bench
    }

    fn put(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.paths.task.join(name), contents).unwrap();
    }

    fn run(&self, flags: &[&str]) -> Result<TaskTarget, Failure> {
        let quick = ["provisioner", "--udev-wait-seconds=0", "--network-wait-seconds=0", "--poll-interval=1ms"];
        let options = Arguments::try_parse_from([&quick, flags].concat()).unwrap().dispatch;
        let clock = FixedClock::at(jiff::Timestamp::UNIX_EPOCH);
        run(&self.host, &self.paths, &options, Some("SN-7"), &clock)
    }

    /// Exit status and code, and the code that was kept for the report.
    fn failed(&self, flags: &[&str]) -> (u8, String, Option<String>) {
        let failure = self.run(flags).unwrap_err();
        let kept = Workspace::new(&self.paths.run).failure().unwrap().map(|failed| failed.failure.code);
        (exit_code(&failure), failure.code, kept)
    }

    fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.paths.run.join(name)).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_good_medium_fills_the_workspace_and_starts_the_target() {
    let bench = Bench::new(&linux());
    assert_eq!(bench.run(&["--no-network"]).unwrap(), TaskTarget::InstallLinux);
    let lines: Vec<String> =
        bench.host.lines().iter().map(|line| line.replace(bench.root.path().to_str().unwrap(), "")).collect();
    let expected = [
        "udevadm settle --timeout=0",
        "mount iso9660 /dev/sr1 /mnt/task ro,nosuid,nodev,noexec",
        "unmount /mnt/task",
        "systemctl start --no-block install-linux.target",
    ];
    assert_eq!(lines, expected);
    assert_eq!(mode(&bench.paths.run), 0o700);
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&bench.paths.run).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected =
        ["build-info.txt", "callback.json", "layout.json", "recipe.env", "recipe.json", "user-data", "workflow.json"];
    assert_eq!(names, expected);
    assert!(bench.written("recipe.env").contains("HOSTNAME=\"node-7\"\n"));
    assert!(bench.written("recipe.env").contains("SERIAL_NUMBER=\"SN-7\"\n"));
    assert_eq!(bench.written("user-data"), "#cloud-config\n");
    assert!(bench.written("workflow.json").contains("1970-01-01T00:00:00Z"));
}

#[test]
fn a_file_of_the_medium_goes_before_the_text_in_the_recipe() {
    let bench = Bench::new(&linux());
    bench.put("user-data", b"#cloud-config\nfrom: medium\n");
    bench.run(&["--no-network", "--no-start"]).unwrap();
    assert_eq!(bench.written("user-data"), "#cloud-config\nfrom: medium\n");
    assert!(!bench.host.lines().iter().any(|line| line.contains("start --no-block")));
}

#[test]
fn each_failure_has_its_exit_status_and_is_kept_for_the_report() {
    let failed = |change: &dyn Fn(&Bench), flags: &[&str]| {
        let bench = Bench::new(&linux());
        change(&bench);
        let (exit, code, kept) = bench.failed(&[&["--no-network"], flags].concat());
        assert_eq!(kept.as_ref(), Some(&code));
        (exit, code)
    };
    let is = |exit: u8, code: &str| (exit, code.to_owned());
    let remove = |name: &'static str| move |bench: &Bench| std::fs::remove_file(bench.paths.task.join(name)).unwrap();
    let gone = |bench: &Bench| std::fs::remove_file(bench.root.path().join("dev/sr1")).unwrap();
    assert_eq!(failed(&gone, &[]), is(10, "medium_missing"));
    assert_eq!(failed(&remove("callback.json"), &[]), is(13, "medium_unreadable"));
    assert_eq!(failed(&remove("recipe.schema.json"), &[]), is(12, "schema_unusable"));
    assert_eq!(failed(&|bench| bench.put("recipe.schema.json", b"{\"type\": 7}"), &[]), is(12, "schema_unusable"));
    assert_eq!(failed(&remove("recipe.json"), &[]), is(13, "medium_unreadable"));
    assert_eq!(failed(&|bench| bench.put("recipe.json", b"{\"env\": \"planted"), &[]), is(13, "recipe_unreadable"));
    assert_eq!(failed(&|bench| bench.put("recipe.json", b"{\"task\": 1}"), &[]), is(14, "recipe_invalid"));
    assert_eq!(failed(&|_| {}, &["--target-override=poweroff.target"]), is(14, "target_not_supported"));
    assert_eq!(failed(&|_| {}, &["--serial-source=dmi"]), is(18, "serial_unknown"));
}

#[test]
fn a_schema_of_the_medium_counts_even_when_it_is_narrower() {
    let bench = Bench::new(&linux());
    bench.put(
        "recipe.schema.json",
        br#"{"$id": "https://example.test/own", "type": "object", "required": ["approved_by"]}"#,
    );
    assert_eq!(bench.failed(&["--no-network"]).0, 14);
}

#[test]
fn a_network_that_does_not_come_up_is_named() {
    let bench = Bench::new(&linux());
    bench.put("network.json", br#"{"mac": "52:54:00:00:00:01", "dhcp": true}"#);
    assert_eq!(bench.failed(&[]), (19, "network_no_interface".into(), Some("network_no_interface".into())));
    assert!(bench.paths.run.join("callback.json").exists(), "the failure can be reported");
}

#[test]
fn a_target_that_does_not_start_is_16_and_a_mount_that_fails_is_11() {
    let mut bench = Bench::new(&linux());
    bench.host = Fake::new().on(&["systemctl", "start"], Reply::Exit(5, "Unit not found".into()));
    assert_eq!(bench.failed(&["--no-network"]).0, 16);
    assert_eq!(exit_code(&Failure::new("medium_mount_failed", "")), 11);
    assert_eq!(exit_code(&Failure::new("state_unwritable", "")), 15);
    assert_eq!(exit_code(&Failure::new("not_privileged", "")), 17);
    assert_eq!(exit_code(&Failure::new("internal_error", "")), 20);
}
