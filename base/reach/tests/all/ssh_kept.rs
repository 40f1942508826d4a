//! One connection per target, for as long as it is any good.

use reach::ssh::{Command, Connections, Error, HostKeys};

use crate::ssh_fixture::{Host, PATIENCE, patient, shell, sshd_is_here, within};
use crate::ssh_server::{Manner, PASSWORD, Server};

#[tokio::test]
async fn many_callers_open_one_connection() {
    if !sshd_is_here("many_callers_open_one_connection") {
        return;
    }
    let host = Host::start("").await;
    let connections = Connections::new(patient());
    let target = host.target();
    let opened = futures_of(20, || connections.get(&target)).await;
    for connection in opened {
        assert!(connection.unwrap().run(&Command::new("true"), b"", PATIENCE).await.unwrap().exit.is_success());
    }
    assert_eq!(host.count(), 1);
    let fresh = connections.fresh(&target).await.unwrap();
    assert!(fresh.run(&Command::new("true"), b"", PATIENCE).await.unwrap().exit.is_success());
    assert_eq!(host.count(), 2);
    connections.get(&target).await.unwrap();
    assert_eq!(host.count(), 2);
    connections.forget(&target);
    connections.get(&target).await.unwrap();
    assert_eq!(host.count(), 3);
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    if !sshd_is_here("a_broken_connection_is_replaced") {
        return;
    }
    let host = Host::start("").await;
    let connections = Connections::new(patient());
    let first = connections.get(&host.target()).await.unwrap();
    let mut running = first.spawn(&shell("exec sleep 1000")).await.unwrap();
    host.kill();
    assert!(matches!(within(running.wait()).await, Err(Error::Closed { .. })));
    let second = connections.get(&host.target()).await.unwrap();
    assert!(second.run(&Command::new("true"), b"", PATIENCE).await.unwrap().exit.is_success());
    assert_eq!(host.count(), 2);
}

#[tokio::test]
async fn another_login_or_pin_is_another_connection() {
    if !sshd_is_here("another_login_or_pin_is_another_connection") {
        return;
    }
    let host = Host::start("").await;
    let connections = Connections::new(patient());
    let mut target = host.target();
    connections.get(&target).await.unwrap();
    target.name = "called otherwise".into();
    connections.get(&target).await.unwrap();
    assert_eq!(host.count(), 1);
    target.host_keys = HostKeys::Pinned(vec![host.ecdsa.host_key()]);
    let connection = connections.get(&target).await.unwrap();
    assert_eq!(*connection.host_key(), host.ecdsa.host_key());
    assert_eq!(host.count(), 2);
    target.user = "stranger".into();
    assert!(matches!(connections.get(&target).await, Err(Error::LoginRefused { .. })));
}

#[tokio::test]
async fn callers_at_the_same_time_share_a_failure() {
    let server = Server::start(Manner::Password).await;
    let connections = Connections::new(patient());
    let target = server.target("wrong");
    for result in futures_of(20, || connections.get(&target)).await {
        assert!(matches!(result, Err(Error::LoginRefused { .. })));
    }
    assert_eq!(server.count(), 1);
    // Later ones try again.
    assert!(connections.get(&target).await.is_err());
    assert_eq!(server.count(), 2);
    assert!(connections.get(&server.target(PASSWORD)).await.is_ok());
}

/// Runs so many at once, in this task, in order of their start.
async fn futures_of<T, F: Future<Output = T>>(count: usize, make: impl Fn() -> F) -> Vec<T> {
    let mut waiting: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    let mut done: Vec<Option<T>> = (0..count).map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (slot, result) in waiting.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
                *slot = None;
            }
        }
        if waiting.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
