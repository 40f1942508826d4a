use std::process::Command;

use store::DataDirLock;

#[test]
fn the_lock_holds_against_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let held = DataDirLock::acquire(directory.path(), "127.0.0.1:8080").unwrap();
    let try_lock = || Command::new("flock").arg("--nonblock").arg(directory.path().join("lock")).arg("true").status();
    let status = match try_lock() {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT RUN: the_lock_holds_against_another_process: flock is missing");
            return;
        }
        Err(error) => panic!("flock did not start: {error}"),
    };
    assert_eq!(status.code(), Some(1));
    drop(held);
    assert!(try_lock().unwrap().success());
}
