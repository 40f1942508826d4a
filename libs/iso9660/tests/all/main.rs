//! Images written by the library, judged byte by byte and by programs that others wrote.

// A failed unwrap is a failed test, in what tests share too.
#![allow(clippy::unwrap_used)]

mod foreign;
mod golden;
mod properties;
mod reader;
mod structure;

use std::path::Path;
use std::process::Command;

use iso9660::Image;

/// 2025-06-15 12:30:45 UTC.
const TIMESTAMP: i64 = 1_749_990_645;
const VOLUME_ID: &str = "TASK_0123456789ABCDEF0123456789A";

/// What a task image holds, and what makes layouts interesting: an empty file, a file of exactly one
/// sector, one of a byte more, equal 8.3 cuts, and a name that leaves its directory record.
fn files() -> Vec<(String, Vec<u8>)> {
    let pattern = |length: usize| (0..length).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
    let long_name = format!("{}.txt", "ä".repeat(60));
    vec![
        ("recipe.json".into(), b"{\"schema_version\": 1}\n".to_vec()),
        ("recipe.schema.json".into(), pattern(12_000)),
        ("callback.json".into(), pattern(2048)),
        ("user-data".into(), pattern(2049)),
        ("unattend.xml".into(), pattern(70_001)),
        ("ks.cfg".into(), b"text\n".to_vec()),
        ("recipe.schema.json.bak".into(), pattern(1)),
        ("recipe.state.json".into(), pattern(300)),
        ("empty".into(), Vec::new()),
        (long_name, b"long\n".to_vec()),
    ]
}

fn build(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP).unwrap();
    for (name, contents) in files {
        image.file(name, contents).unwrap();
    }
    let bytes = image.build().unwrap();
    assert_eq!(bytes.len() as u64, image.size());
    bytes
}

/// Whether every one of `programs` is there; says which is not.
fn have(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if let Err(error) = Command::new(program).arg("--version").output()
            && error.kind() == std::io::ErrorKind::NotFound
        {
            eprintln!("NOT RUN: {test}: {program} is missing");
            return false;
        }
    }
    true
}

/// Runs a program that has to succeed and answers with what it wrote on stdout.
fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{messages}", output.status);
    output.stdout
}

/// Runs xorriso without anybody's settings; it must have nothing to complain about.
fn xorriso(arguments: &[&str]) -> String {
    let output = Command::new("xorriso").arg("-no_rc").args(arguments).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "xorriso {arguments:?}: {}\n{messages}", output.status);
    for severity in ["WARNING", "SORRY", "MISHAP", "FAILURE", "FATAL", "ABORT"] {
        assert!(!messages.contains(&format!(": {severity} :")), "xorriso {arguments:?}:\n{messages}");
    }
    String::from_utf8_lossy(&output.stdout).into_owned() + &messages
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
