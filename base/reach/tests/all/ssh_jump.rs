//! Through one host to what only that one reaches.

use reach::ssh::{Command, Connections, Error, HostKeys};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::ssh_fixture::{Host, KeyPair, PATIENCE, patient, sshd_is_here, within};

#[tokio::test]
async fn a_jump_host_has_its_own_key_and_pin() {
    if !sshd_is_here("a_jump_host_has_its_own_key_and_pin") {
        return;
    }
    let (outer, inner) = (Host::start("").await, Host::start("").await);
    let mut target = inner.target();
    target.name = "inner".into();
    target.jump = Some(Box::new(outer.target()));
    let connection = inner.try_connect(&target).await.unwrap();
    let output = connection.run(&Command::new("echo").arg("behind"), b"", PATIENCE).await.unwrap();
    assert_eq!(output.stdout_text(), "behind");
    assert_eq!(*connection.host_key(), inner.ed25519.host_key());
    assert_eq!((outer.count(), inner.count()), (1, 1));

    let stranger = KeyPair::ed25519(outer.directory.path(), "stranger");
    let mut wrong = target.clone();
    wrong.jump.as_mut().unwrap().host_keys = HostKeys::Pinned(vec![stranger.host_key()]);
    let error = inner.try_connect(&wrong).await.unwrap_err();
    assert!(
        matches!(&error, Error::Jump { source, .. } if matches!(**source, Error::HostKeyChanged { .. })),
        "{error}"
    );
    assert_eq!(inner.count(), 1, "nothing goes through a jump host that is not the pinned one");

    let mut wrong = target.clone();
    wrong.host_keys = HostKeys::Pinned(vec![outer.ed25519.host_key()]);
    let error = inner.try_connect(&wrong).await.unwrap_err();
    assert!(matches!(&error, Error::HostKeyChanged { name, .. } if name == "inner"), "{error}");

    let mut nowhere = target;
    nowhere.port = 1;
    let error = inner.try_connect(&nowhere).await.unwrap_err();
    assert!(
        matches!(&error, Error::Jump { source, .. } if matches!(**source, Error::ChannelRefused { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn all_that_go_through_a_jump_host_share_it() {
    if !sshd_is_here("all_that_go_through_a_jump_host_share_it") {
        return;
    }
    let (outer, first, second) = (Host::start("").await, Host::start("").await, Host::start("").await);
    let connections = Connections::new(patient());
    for inner in [&first, &second, &first] {
        let mut target = inner.target();
        target.jump = Some(Box::new(outer.target()));
        let connection = connections.get(&target).await.unwrap();
        assert!(connection.run(&Command::new("true"), b"", PATIENCE).await.unwrap().exit.is_success());
    }
    assert_eq!((outer.count(), first.count(), second.count()), (1, 1, 1));
}

#[tokio::test]
async fn sockets_of_the_host_are_reached() {
    if !sshd_is_here("sockets_of_the_host_are_reached") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = host.directory.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = tcp.accept().await.unwrap();
        echo_back(&mut stream).await;
        let (mut stream, _) = unix.accept().await.unwrap();
        echo_back(&mut stream).await;
    });
    let mut streams = vec![connection.dial("127.0.0.1", port).await.unwrap()];
    streams.push(connection.dial_socket(path.to_str().unwrap()).await.unwrap());
    for mut stream in streams {
        stream.write_all(b"to and fro").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "to and fro, and more");
    }
    within(answering).await.unwrap();
    let error = connection.dial_socket("/no/such/socket").await.unwrap_err();
    assert!(matches!(error, Error::ChannelRefused { .. }), "{error}");
    assert!(!connection.is_closed());
}

/// Reads to the end, and only then answers: our end of data must not have closed the other direction.
async fn echo_back(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    text.extend_from_slice(b", and more");
    stream.write_all(&text).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn dropping_a_stream_closes_the_connection_behind_it() {
    if !sshd_is_here("dropping_a_stream_closes_the_connection_behind_it") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let stream = connection.dial("127.0.0.1", port).await.unwrap();
    let (mut accepted, _) = within(tcp.accept()).await.unwrap();
    drop(stream);
    let mut rest = Vec::new();
    within(accepted.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty() && !connection.is_closed());
}
