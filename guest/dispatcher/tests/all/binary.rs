use std::process::{Command, Output};

fn provisioner(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_provisioner")).args(arguments).output().unwrap()
}

#[test]
fn the_program_says_its_version_and_refuses_what_it_does_not_know() {
    let version = provisioner(&["--version"]);
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("provisioner {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(provisioner(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(provisioner(&["step", "image-windows"]).status.code(), Some(2));
}

#[test]
fn a_missing_medium_ends_with_10_and_a_missing_job_with_1() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).display().to_string();
    let (run, task, device) = (at("run"), at("task"), at("no-device"));
    let output = provisioner(&[
        "--env-dir",
        &run,
        "--task-mount-point",
        &task,
        "--task-iso-device",
        &device,
        "--udev-wait-seconds=0",
        "--no-network",
        "--no-start",
    ]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(10), "{log}");
    assert!(log.contains("code=\"medium_missing\""), "{log}");
    let kept = std::fs::read_to_string(root.path().join("run/failure.json")).unwrap();
    assert!(kept.contains("provision-dispatcher.service"), "{kept}");
    assert_eq!(provisioner(&["first-boot", "--config", &at("none.json")]).status.code(), Some(0));
}
