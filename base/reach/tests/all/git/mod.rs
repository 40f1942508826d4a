//! Repositories on real servers: sshd, `git http-backend`, directories.

mod http_server;
mod kills;
mod local;
mod over_http;
mod over_ssh;
mod source;
mod ssh_server;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use reach::git::{Protocol, Repository};

pub(crate) use source::Source;

/// Says that a test cannot run here.
fn not_run(test: &str, missing: &str) {
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {missing} is missing");
}

/// Whether a program is there; says so when it is not.
fn has(test: &str, program: &str) -> bool {
    let found =
        ["/usr/bin", "/usr/sbin", "/usr/lib/git-core"].iter().any(|place| Path::new(place).join(program).exists());
    if !found {
        not_run(test, program);
    }
    found
}

fn repository(url: String) -> Repository {
    let protocols = vec![Protocol::Https, Protocol::Http, Protocol::Ssh, Protocol::File];
    Repository { protocols, timeout: std::time::Duration::from_secs(60), ..Repository::new(url) }
}

/// Files below a directory that hold any of these words, but for those that `may`.
fn files_with(directory: &Path, words: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if holds(&std::fs::read(&path).unwrap_or_default(), words) {
                found.push(path);
            }
        }
    }
    found
}

/// Processes whose arguments or environment hold any of these words.
fn processes_with(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            let text = std::fs::read(process.path().join(name)).unwrap_or_default();
            if holds(&text, words) {
                found.push(format!("{}: {}", process.path().join(name).display(), String::from_utf8_lossy(&text)));
            }
        }
    }
    found
}

/// Processes that work in this directory.
fn processes_in(directory: &Path) -> Vec<u32> {
    let is_there = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == directory);
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_there).collect()
}

fn holds(bytes: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}
