//! The real host, on this machine.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod network;
mod processes;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use host::{
    Command, Fake, Linux, LockError, LockFile, LoopDevice, Mount, MountOptions, Mounts, ProcessError, Processes, Reply,
    Stop, Supervision,
};

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

/// Says that a test cannot run here.
fn not_run(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {reason}");
}

#[test]
fn a_command_sees_its_input_and_a_clean_environment() {
    let command = shell("cat; env | grep -v ^PWD= | grep -v ^_= | sort").input("hello\n").env("EXTRA", "1");
    let expected = "hello\nEXTRA=1\nLC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(Linux.run(&command).unwrap().text(), expected);
}

#[test]
fn a_failure_names_program_status_and_last_lines() {
    let error = Linux.run(&shell("for n in 1 2 3 4 5 6; do echo line $n >&2; done; exit 3")).unwrap_err();
    assert_eq!(error.to_string(), "sh ended with exit status 3: line 2; line 3; line 4; line 5; line 6");
    assert_eq!(error.exit_code(), Some(3));
    let error = Linux.run(&Command::new("no-such-program")).unwrap_err();
    assert!(error.is_missing(), "{error}");
    let error = Linux.run(&shell("kill -9 $$")).unwrap_err();
    assert_eq!(error.to_string(), "sh ended with signal 9");
}

#[test]
fn a_command_and_its_children_are_killed_when_their_time_is_over() {
    let command = shell("echo begun >&2; sleep 600 & sleep 600").timeout(Duration::from_millis(300));
    let error = Linux.run(&command).unwrap_err();
    assert!(matches!(&error, ProcessError::Timeout { stderr, .. } if stderr == "begun"), "{error}");
}

#[test]
fn output_that_goes_to_a_file_is_there_whatever_becomes_of_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("output");
    std::fs::write(&file, "from earlier, and longer").unwrap();
    let command = shell("echo early; sleep 600").output_to(&file).timeout(Duration::from_millis(300));
    assert!(matches!(Linux.run(&command), Err(ProcessError::Timeout { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "early\n");
    let output = Linux.run(&shell("echo late").output_to(&file)).unwrap();
    assert_eq!((output.text().as_str(), std::fs::read_to_string(&file).unwrap().as_str()), ("", "late\n"));
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_hold_the_caller() {
    assert_eq!(Linux.run(&shell("echo done; sleep 600 &")).unwrap().text(), "done");
}

#[test]
fn too_much_output_is_an_error_and_long_errors_keep_their_end() {
    let error = Linux.run(&shell("head -c 5000000 /dev/zero")).unwrap_err();
    assert!(matches!(error, ProcessError::TooMuchOutput { .. }), "{error}");
    let error = Linux.run(&shell("head -c 5000000 /dev/zero >&2; echo >&2; echo the end >&2; exit 1")).unwrap_err();
    assert!(error.to_string().ends_with("; the end"));
}

#[test]
fn a_reader_that_stops_early_swallows_the_rest_only_if_it_ends_well() {
    let block = vec![7u8; 1 << 20];
    let mut feed = |writer: &mut dyn Write| (0..8).try_for_each(|_| writer.write_all(&block));
    Linux.run_fed(&shell("head -c 10 >/dev/null"), &mut feed).unwrap();
    let error = Linux.run_fed(&shell("head -c 10 >/dev/null; exit 1"), &mut feed).unwrap_err();
    assert_eq!(error.to_string(), "sh ended with exit status 1");
}

#[test]
fn a_feed_that_fails_kills_the_command() {
    let mut feed = |_: &mut dyn Write| Err(io::Error::other("digest mismatch"));
    let error = Linux.run_fed(&shell("cat; sleep 600"), &mut feed).unwrap_err();
    assert!(matches!(&error, ProcessError::Input { source, .. } if source.to_string() == "digest mismatch"));
}

#[test]
fn a_supervised_command_tells_its_lines_and_is_stopped_with_its_children() {
    let stop = Stop::new().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let at_begun = stop.clone();
    let on_line: host::OnLine = std::sync::Arc::new(move |line| {
        sender.send(line.to_owned()).unwrap();
        if line == "begun" {
            at_begun.now();
        }
    });
    let supervision = Supervision::new().on_line(on_line).stop(stop);
    let error =
        Linux.run_supervised(&shell("echo one >&2; sleep 600 & echo begun >&2; wait"), &supervision).unwrap_err();
    assert!(matches!(error, ProcessError::Stopped { .. }), "{error}");
    assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["one", "begun"]);
}

#[test]
fn a_supervised_command_has_no_more_memory_than_it_may() {
    let supervision = Supervision::new().memory(64 << 20).stop(Stop::new().unwrap());
    let script = "ulimit -v; cd /; pwd";
    assert_eq!(Linux.run_supervised(&shell(script), &supervision).unwrap().text(), "65536\n/");
    let command = shell("pwd").directory("/proc");
    assert_eq!(Linux.run(&command).unwrap().text(), "/proc");
}

#[test]
fn a_supervised_command_keeps_the_lock_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let lock = std::sync::Arc::new(LockFile::acquire(&path, "first").unwrap());
    let supervision = Supervision::new().lock(lock);
    let script = "for file in /proc/self/fd/*; do readlink $file || :; done";
    let seen = Linux.run_supervised(&shell(script), &supervision).unwrap().text();
    assert!(seen.lines().any(|line| Path::new(line) == path), "{seen}");
    assert!(!Linux.run(&shell(script)).unwrap().text().contains("lock"));
}

#[test]
fn a_file_is_replaced_in_full_with_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    host::write_atomic(&path, b"one", 0o644).unwrap();
    host::write_atomic(&path, b"two", 0o600).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    let error = host::write_atomic(&directory.path().join("no/file"), b"", 0o600).unwrap_err();
    assert!(error.to_string().contains("no/file"), "{error}");
}

#[test]
fn the_second_to_lock_learns_who_was_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let first = LockFile::acquire(&path, "process 7").unwrap();
    let error = LockFile::acquire(&path, "process 8").unwrap_err();
    assert!(matches!(error, LockError::Held { holder, .. } if holder == "process 7"));
    drop(first);
    LockFile::acquire(&path, "process 8").unwrap();
}

#[test]
fn room_is_told() {
    let space = host::space(Path::new("/")).unwrap();
    assert!(space.available <= space.total && space.total > 0);
}

#[test]
fn an_image_is_mounted_through_a_loop_device_and_let_go() {
    let test = "an_image_is_mounted_through_a_loop_device_and_let_go";
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    if let Err(error) = Linux.run(&Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.display().to_string())) {
        return not_run(test, &error.to_string());
    }
    let device = match LoopDevice::attach(&Linux, &image, false) {
        Ok(device) => device,
        Err(error) => return not_run(test, &error.to_string()),
    };
    let target = directory.path().join("with space");
    std::fs::create_dir(&target).unwrap();
    Linux.mount(&Mount::new(device.path(), &target, "ext4").options(MountOptions::FOREIGN)).unwrap();
    assert!(std::fs::write(target.join("file"), b"x").is_err(), "it is read-only");
    let below = target.join("lost+found");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("seen"), b"").unwrap();
    Linux.bind(other.path(), &below).unwrap();
    assert!(below.join("seen").exists());
    assert_eq!(host::unmount_below(&Linux, &target).unwrap(), 2);
    assert!(!target.join("lost+found").exists());
    assert!(Linux.unmount(&target).is_err());
    device.detach(&Linux).unwrap();
}

#[test]
fn the_fake_answers_by_the_latest_rule_and_keeps_the_order() {
    let fake = Fake::new()
        .on(&["lsblk"], Reply::Stdout("all".into()))
        .on(&["lsblk", "-J"], Reply::Exit(32, "no".into()))
        .on(&["mdadm"], Reply::Missing);
    assert_eq!(fake.run(&Command::new("lsblk")).unwrap().text(), "all");
    assert_eq!(fake.run(&Command::new("lsblk").arg("-J")).unwrap_err().exit_code(), Some(32));
    assert!(fake.run(&Command::new("mdadm")).unwrap_err().is_missing());
    fake.mount(&Mount::new("/dev/x", "/mnt", "ext4")).unwrap();
    fake.run(&Command::new("tar").input("data")).unwrap();
    assert_eq!(host::unmount_below(&fake, Path::new("/mnt")).unwrap(), 1);
    assert_eq!(fake.lines(), ["lsblk", "lsblk -J", "mdadm", "mount ext4 /dev/x /mnt rw", "tar", "unmount /mnt"]);
    assert_eq!(fake.input_of("tar").unwrap(), b"data");
}
