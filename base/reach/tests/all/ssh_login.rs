//! Who gets in, and whom we believe.

use std::time::Duration;

use cairn_core::ErrorKind;
use reach::ssh::{Command, Connection, Error, HostKeys, Login};

use crate::ssh_fixture::{Host, KeyPair, PATIENCE, sshd_is_here, within};
use crate::ssh_server::{Manner, PASSWORD, Server};

fn key(pair: &KeyPair, passphrase: Option<&str>) -> Login {
    Login::Key { pem: pair.pem.clone().into(), passphrase: passphrase.map(Into::into) }
}

#[tokio::test]
async fn keys_of_every_supported_kind_get_in() {
    if !sshd_is_here("keys_of_every_supported_kind_get_in") {
        return;
    }
    let host = Host::start("").await;
    let directory = host.directory.path();
    let pairs = [
        (KeyPair::ed25519(directory, "a"), None),
        (KeyPair::generate(directory, "b", &["ecdsa", "-b", "256"], ""), None),
        (KeyPair::generate(directory, "c", &["ecdsa", "-b", "384"], ""), None),
        (KeyPair::generate(directory, "d", &["ecdsa", "-b", "521"], ""), None),
        (KeyPair::generate(directory, "e", &["ed25519"], "open sesame"), Some("open sesame")),
        (KeyPair::generate(directory, "f", &["ecdsa"], "open sesame"), Some("open sesame")),
    ];
    for (pair, passphrase) in &pairs {
        host.authorize(pair);
        let mut target = host.target();
        target.login = key(pair, *passphrase);
        let connection = host.try_connect(&target).await.unwrap();
        let output = connection.run(&Command::new("id").arg("-un"), b"", PATIENCE).await.unwrap();
        assert_eq!(output.stdout_text(), "root");
    }
}

#[tokio::test]
async fn a_key_that_is_not_authorized_is_refused_by_name() {
    if !sshd_is_here("a_key_that_is_not_authorized_is_refused_by_name") {
        return;
    }
    let host = Host::start("").await;
    let stranger = KeyPair::ed25519(host.directory.path(), "stranger");
    let mut target = host.target();
    target.login = stranger.login();
    let error = host.try_connect(&target).await.unwrap_err();
    assert!(matches!(error, Error::LoginRefused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&stranger.host_key().fingerprint()) && text.contains("offers publickey"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_costs_no_connection() {
    let server = Server::start(Manner::Password).await;
    let directory = tempfile::tempdir().unwrap();
    let locked = KeyPair::generate(directory.path(), "locked", &["ed25519"], "open sesame");
    let rsa = KeyPair::generate(directory.path(), "rsa", &["rsa", "-b", "2048"], "");
    let old_rsa = KeyPair::generate(directory.path(), "old", &["rsa", "-b", "2048", "-m", "PEM"], "");
    let public = Login::Key { pem: locked.public.clone().into(), passphrase: None };
    let cases = [
        (key(&locked, None), "encrypted"),
        (key(&locked, Some("wrong")), "passphrase"),
        (key(&rsa, None), "kind ssh-rsa are not supported"),
        (key(&old_rsa, None), "RSA"),
        (public, "not a private key"),
        (Login::Key { pem: "".into(), passphrase: None }, "not a private key"),
    ];
    for (login, reason) in cases {
        let mut target = server.target("");
        target.login = login;
        let error = Connection::open(&target).await.unwrap_err();
        assert!(matches!(&error, Error::KeyUnusable { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint().unwrap().contains("ed25519"));
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_pinned_host_shows_the_key_that_is_pinned() {
    if !sshd_is_here("a_pinned_host_shows_the_key_that_is_pinned") {
        return;
    }
    let host = Host::start("").await;
    let (ed25519, ecdsa) = (host.ed25519.host_key(), host.ecdsa.host_key());
    let other = KeyPair::ed25519(host.directory.path(), "other").host_key();
    for (pinned, shown) in [
        (vec![ecdsa.clone()], &ecdsa),
        (vec![ed25519.clone()], &ed25519),
        (vec![other.clone(), ed25519.clone()], &ed25519),
        (vec![ecdsa.clone(), ed25519.clone()], &ed25519),
    ] {
        let mut target = host.target();
        target.host_keys = HostKeys::Pinned(pinned);
        assert_eq!(host.try_connect(&target).await.unwrap().host_key(), shown);
    }
}

#[tokio::test]
async fn another_key_is_refused_with_both_fingerprints() {
    if !sshd_is_here("another_key_is_refused_with_both_fingerprints") {
        return;
    }
    let host = Host::start("").await;
    let former = KeyPair::ed25519(host.directory.path(), "former").host_key();
    let mut target = host.target();
    target.host_keys = HostKeys::Pinned(vec![former.clone()]);
    let error = host.try_connect(&target).await.unwrap_err();
    let Error::HostKeyChanged { expected, seen, .. } = &error else { panic!("{error}") };
    assert_eq!(*expected, [former.fingerprint()]);
    assert_eq!(*seen, host.ed25519.host_key().fingerprint());
    let text = error.to_string();
    assert!(text.contains(seen.as_str()) && text.contains(&expected[0]), "{text}");
    assert!(error.hint().unwrap().contains("ssh-keygen -lf"));
    assert!(!host.log().contains("Accepted"), "{}", host.log());
}

#[tokio::test]
async fn the_first_key_seen_is_handed_over_for_pinning() {
    if !sshd_is_here("the_first_key_seen_is_handed_over_for_pinning") {
        return;
    }
    let host = Host::start("").await;
    let mut target = host.target();
    target.host_keys = HostKeys::TrustFirst;
    let key = host.try_connect(&target).await.unwrap().host_key().clone();
    assert_eq!(key, host.ed25519.host_key());
    target.host_keys = HostKeys::Pinned(vec![key]);
    host.try_connect(&target).await.unwrap();
}

#[tokio::test]
async fn pins_that_nothing_could_match_are_refused() {
    let server = Server::start(Manner::Password).await;
    let directory = tempfile::tempdir().unwrap();
    let rsa = KeyPair::generate(directory.path(), "rsa", &["rsa", "-b", "2048"], "").host_key();
    for (pins, reason) in [(vec![], "none is given"), (vec![rsa], "ed25519 or ECDSA")] {
        let mut target = server.target(PASSWORD);
        target.host_keys = HostKeys::Pinned(pins);
        let error = Connection::open(&target).await.unwrap_err();
        assert!(matches!(&error, Error::HostKeysUnusable { .. }) && error.to_string().contains(reason), "{error}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn passwords_get_in_by_either_method() {
    for manner in [Manner::Password, Manner::Question] {
        let server = Server::start(manner).await;
        let connection = within(Connection::open(&server.target(PASSWORD))).await.unwrap();
        let output = connection.run(&Command::new("echo").arg("a b"), b"", PATIENCE).await.unwrap();
        assert_eq!(output.stdout_text(), "'echo' 'a b'");
        let error = within(Connection::open(&server.target("wrong"))).await.unwrap_err();
        assert!(matches!(error, Error::LoginRefused { .. }), "{error}");
        assert!(error.to_string().contains("as admin with password"), "{error}");
    }
}

#[tokio::test]
async fn more_than_one_question_is_not_answered() {
    let server = Server::start(Manner::TwoQuestions).await;
    let error = within(Connection::open(&server.target(PASSWORD))).await.unwrap_err();
    assert!(error.to_string().contains("more questions than the password"), "{error}");
}

#[tokio::test]
async fn a_password_goes_to_hosts_that_somebody_vouched_for() {
    let server = Server::start(Manner::Password).await;
    let mut target = server.target(PASSWORD);
    target.host_keys = HostKeys::TrustFirst;
    let error = Connection::open(&target).await.unwrap_err();
    assert!(matches!(error, Error::PasswordWithoutPinnedKey { .. }), "{error}");
    assert_eq!(server.count(), 0);
    target.host_keys = HostKeys::TrustFirstWithPassword;
    let connection = within(Connection::open(&target)).await.unwrap();
    assert_eq!(*connection.host_key(), server.host_key.host_key());
}

#[tokio::test]
async fn debug_output_holds_no_secret() {
    let server = Server::start(Manner::Password).await;
    let mut target = server.target("hunter2-password");
    let mut jump = target.clone();
    jump.login = Login::Key { pem: "hunter2-pem".into(), passphrase: Some("hunter2-passphrase".into()) };
    let text = format!("{jump:?}");
    let error = Connection::open(&jump).await.unwrap_err();
    let refused = within(Connection::open(&target)).await.unwrap_err();
    target.jump = Some(Box::new(jump));
    let connections = reach::ssh::Connections::default();
    let shared = connections.get(&target).await.unwrap_err();
    let texts = [
        text,
        format!("{target:?}"),
        format!("{connections:?}"),
        format!("{error:?}"),
        format!("{refused:?} {shared:?}"),
    ];
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn getting_in_takes_no_longer_than_its_limit() {
    // Accepts, and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(Manner::Password).await;
    let mut target = server.target(PASSWORD);
    target.port = listener.local_addr().unwrap().port();
    target.timeout = Duration::from_millis(200);
    let error = within(Connection::open(&target)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { stage: "the key exchange", .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.is_transient());
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_apart_from_nothing_at_all() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(Manner::Password).await;
    let mut target = server.target(PASSWORD);
    target.port = listener.local_addr().unwrap().port();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Listener and connection go with the end of this task.
    });
    let error = within(Connection::open(&target)).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. }), "{error}");
    answering.await.unwrap();
    let error = within(Connection::open(&target)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:"), "{error}");
}
