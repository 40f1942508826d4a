//! What is killed leaves a mirror that the next one uses.

use std::process::{Command, Stdio};

use host::{PidFd, Signal};
use reach::git::{Mirror, Repository};

use super::http_server::HttpServer;
use super::{Source, has, processes_in, repository};

/// Where a process of its own finds what to do; without it the test below is none.
const URL: &str = "CAIRN_TEST_GIT_URL";
const DIRECTORY: &str = "CAIRN_TEST_GIT_DIRECTORY";

/// The process that is killed.
#[tokio::test]
async fn a_process_of_its_own() {
    let (Ok(url), Ok(directory)) = (std::env::var(URL), std::env::var(DIRECTORY)) else { return };
    let mirror = Mirror::open(directory.as_ref(), repository(url)).await.unwrap();
    let commit = mirror.resolve("main").await.unwrap();
    mirror.worktree(&commit).await.unwrap();
}

async fn uses(repository: Repository, directory: &tempfile::TempDir, expected: &str) {
    let mirror = Mirror::open(directory.path(), repository).await.unwrap();
    let commit = mirror.resolve("main").await.unwrap();
    assert_eq!(commit.as_str(), expected);
    let tree = mirror.worktree(&commit).await.unwrap();
    assert_eq!(std::fs::read_to_string(tree.path().join("file")).unwrap(), "two");
    let objects = mirror.path().join("git/objects/pack");
    let left = std::fs::read_dir(objects).unwrap().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("tmp_")
    });
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_git_that_is_killed_leaves_a_mirror_that_works() {
    if !has("a_git_that_is_killed_leaves_a_mirror_that_works", "git-http-backend") {
        return;
    }
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let expected = source.commit("file", "two");
    let server = HttpServer::new(source.root().to_owned(), None);
    server.stop_half_way(true);
    let mirror = Mirror::open(directory.path(), repository(server.url())).await.unwrap();
    let root = mirror.path().to_owned();
    let resolving = tokio::spawn(async move { mirror.resolve("main").await });
    let _half = tokio::task::block_in_place(|| server.stopped.recv()).unwrap();
    for pid in processes_in(&root) {
        if let Some(process) = PidFd::open(pid).unwrap() {
            process.signal(Signal::KILL).unwrap();
        }
    }
    resolving.await.unwrap().unwrap_err();
    server.stop_half_way(false);
    uses(repository(server.url()), &directory, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_leaves_a_mirror_that_works() {
    if !has("a_process_that_is_killed_leaves_a_mirror_that_works", "git-http-backend") {
        return;
    }
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let expected = source.commit("file", "two");
    let server = HttpServer::new(source.root().to_owned(), None);
    server.stop_half_way(true);
    // The first time commits are on their way, the second time contents of files.
    for half in 1..=2 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "git::kills::a_process_of_its_own"])
            .env(URL, server.url())
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut halves: Vec<_> = Vec::new();
        for _ in 0..half {
            // What was asked for before goes on; the last stays in the middle.
            halves.clear();
            halves.push(tokio::task::block_in_place(|| server.stopped.recv()).unwrap());
        }
        process.kill().unwrap();
        process.wait().unwrap();
        server.stop_half_way(half == 1);
        if half == 2 {
            // A child of git's own child is still at it and keeps the lock. It ends when the server goes on or, after half a
            // minute, gives up on it.
            drop(halves);
            uses(repository(server.url()), &directory, &expected).await;
            return;
        }
    }
}
