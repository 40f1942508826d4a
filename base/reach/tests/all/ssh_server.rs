//! An SSH server in this process, for what sshd cannot be made to do: passwords without an account, and misbehaviour.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reach::ssh::{HostKeys, Login, Target};
use russh::keys::decode_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ssh_fixture::{KeyPair, PATIENCE};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes the password by the method `password`.
    Password,
    /// Takes it by `keyboard-interactive` only, after a notice without a question.
    Question,
    /// Asks for a password and a code.
    TwoQuestions,
    /// Takes the password, and closes the connection when a command starts.
    Vanish,
    /// Takes the password, and opens no channel.
    Closed,
    /// Takes the password and a command, and ends it without a status.
    Silent,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) host_key: KeyPair,
    _directory: TempDir,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub(crate) async fn start(manner: Manner) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host_key = KeyPair::ed25519(directory.path(), "host");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let methods: &[MethodKind] = match manner {
            Manner::Question | Manner::TwoQuestions => &[MethodKind::KeyboardInteractive],
            _ => &[MethodKind::Password],
        };
        let config = Arc::new(Config {
            keys: vec![decode_secret_key(&host_key.pem, None).unwrap()],
            methods: MethodSet::from(methods),
            auth_rejection_time: Duration::from_millis(1),
            ..Config::default()
        });
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    let session = russh::server::run_stream(config, stream, Peer { manner, round: 0 }).await;
                    if let Ok(session) = session {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { port, host_key, _directory: directory, connections, accepting }
    }

    pub(crate) fn target(&self, password: &str) -> Target {
        Target {
            name: "test-server".into(),
            host: "127.0.0.1".into(),
            port: self.port,
            user: "admin".into(),
            login: Login::Password(password.into()),
            host_keys: HostKeys::Pinned(vec![self.host_key.host_key()]),
            jump: None,
            timeout: PATIENCE,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Peer {
    manner: Manner,
    round: usize,
}

impl Handler for Peer {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        if matches!(self.manner, Manner::Question | Manner::TwoQuestions) {
            return Ok(Auth::UnsupportedMethod);
        }
        Ok(if password == PASSWORD { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let answers: Vec<_> = response.map(|response| response.collect()).unwrap_or_default();
        self.round += 1;
        let question = || (Cow::Borrowed("Password: "), false);
        let prompts = match (self.round, self.manner) {
            (1, _) => Vec::new(),
            (2, Manner::TwoQuestions) => vec![question(), (Cow::Borrowed("Code: "), false)],
            (2, _) => vec![question()],
            _ if answers == [PASSWORD.as_bytes()] => return Ok(Auth::Accept),
            _ => return Ok(Auth::reject()),
        };
        Ok(Auth::Partial { name: "".into(), instructions: "be careful".into(), prompts: prompts.into() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.manner != Manner::Closed {
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        match self.manner {
            Manner::Vanish => return Err(russh::Error::Disconnect),
            Manner::Silent => session.channel_success(id)?,
            _ => {
                session.channel_success(id)?;
                session.data(id, line.to_vec())?;
                session.exit_status_request(id, 0)?;
            }
        }
        session.close(id)
    }
}
