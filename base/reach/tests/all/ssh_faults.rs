//! Hosts that freeze, vanish or say no.

use std::time::Duration;

use reach::ssh::{Command, Connection, Error, KeepAlive};
use tokio::io::AsyncWriteExt;

use crate::ssh_fixture::{Host, PATIENCE, shell, sshd_is_here, within};
use crate::ssh_server::{Manner, PASSWORD, Server};

/// Finds a frozen peer dead after some seconds.
const QUICK: KeepAlive = KeepAlive { interval: Duration::from_secs(1), unanswered: 3 };

#[tokio::test]
async fn a_host_that_freezes_is_found_out() {
    if !sshd_is_here("a_host_that_freezes_is_found_out") {
        return;
    }
    let host = Host::start("").await;
    let connection = Connection::open_with(&host.target(), QUICK).await.unwrap();
    let mut running = connection.spawn(&shell("echo ready; exec sleep 1000")).await.unwrap();
    let mut ready = [0; 6];
    within(tokio::io::AsyncReadExt::read_exact(running.stdout.as_mut().unwrap(), &mut ready)).await.unwrap();
    host.freeze();
    let error = within(running.wait()).await.unwrap_err();
    assert!(matches!(&error, Error::Closed { reason, .. } if reason.contains("stopped answering")), "{error}");
    assert!(connection.is_closed());
    let error = within(connection.run(&Command::new("true"), b"", PATIENCE)).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_host_that_freezes_under_a_large_input_is_found_out() {
    if !sshd_is_here("a_host_that_freezes_under_a_large_input_is_found_out") {
        return;
    }
    let host = Host::start("").await;
    let connection = Connection::open_with(&host.target(), QUICK).await.unwrap();
    let mut commands = Vec::new();
    // Several, because a channel takes 2 MiB at most before it waits, which the kernel's buffers may well hold.
    for _ in 0..8 {
        let mut running = connection.spawn(&shell("exec cat >/dev/null")).await.unwrap();
        let mut stdin = running.stdin.take().unwrap();
        stdin.write_all(b"x").await.unwrap();
        commands.push((running, stdin));
    }
    host.freeze();
    let mut writers = tokio::task::JoinSet::new();
    for (mut running, mut stdin) in commands {
        writers.spawn(async move {
            let piece = vec![0; 1024 * 1024];
            while stdin.write_all(&piece).await.is_ok() {}
            running.wait().await.unwrap_err()
        });
    }
    while let Some(error) = within(writers.join_next()).await {
        assert!(matches!(error.unwrap(), Error::Closed { .. }));
    }
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_host_that_dies_ends_every_command() {
    if !sshd_is_here("a_host_that_dies_ends_every_command") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let mut running = connection.spawn(&shell("exec sleep 1000")).await.unwrap();
    host.kill();
    let error = within(running.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_server_that_closes_in_mid_command_is_no_exit() {
    let server = Server::start(Manner::Vanish).await;
    let connection = within(Connection::open(&server.target(PASSWORD))).await.unwrap();
    let error = within(connection.run(&Command::new("true"), b"", PATIENCE)).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn an_end_without_a_status_is_said_to_be_one() {
    let server = Server::start(Manner::Silent).await;
    let connection = within(Connection::open(&server.target(PASSWORD))).await.unwrap();
    let error = within(connection.run(&Command::new("true"), b"", PATIENCE)).await.unwrap_err();
    assert!(matches!(error, Error::NoExit { .. }), "{error}");
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_server_that_runs_nothing_says_so() {
    let server = Server::start(Manner::Closed).await;
    let connection = within(Connection::open(&server.target(PASSWORD))).await.unwrap();
    let error = within(connection.run(&Command::new("true"), b"", PATIENCE)).await.unwrap_err();
    assert!(matches!(error, Error::ChannelRefused { .. }), "{error}");
}
