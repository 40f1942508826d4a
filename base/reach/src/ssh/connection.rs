//! A connection that is logged in.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::client::{Config, Handle, Msg};
use russh::{Channel, Preferred, SshId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::handler::{Fault, Findings, Watch};
use super::login::{self, Proof};
use super::pulse::Pulse;
use super::{Command, Error, HostKey, Output, Running, Stream, Target, dialing, handler};

/// Commands at once on one connection. OpenSSH allows 10 unless told otherwise (`MaxSessions`), and counts one that has
/// just ended for a moment longer; others wait here for their turn.
const COMMANDS: usize = 8;
/// Messages of a channel that wait for its reader before the connection waits for it. With full packets that is 2 MiB.
const WAITING: usize = 64;

/// How a dead peer is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence after which the host is asked for a sign of life.
    pub interval: Duration,
    /// Questions that may stay unanswered. The connection is given up `interval` after the last one.
    pub unanswered: usize,
}

impl Default for KeepAlive {
    /// Dead after 30 s.
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), unanswered: 2 }
    }
}

impl KeepAlive {
    fn limit(self) -> Duration {
        self.interval * u32::try_from(self.unanswered + 1).unwrap_or(u32::MAX)
    }
}

/// A connection that is logged in. Clones share it; it ends when the last one and everything started on it are gone.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    name: String,
    user: String,
    host_key: HostKey,
    handle: Handle<Watch>,
    findings: Arc<Findings>,
    places: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
    ended: watch::Sender<()>,
    /// Carries this one, if there is a jump host.
    _jump: Option<Connection>,
}

/// Right to have one more command on the connection. Tells those who wait when it is given back.
pub(super) struct Place {
    taken: Arc<AtomicUsize>,
    ended: watch::Sender<()>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.ended.send_replace(());
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("name", &self.0.name)
            .field("user", &self.0.user)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Time for all the steps of getting in.
struct Limit<'a> {
    target: &'a Target,
    deadline: Instant,
}

impl Limit<'_> {
    async fn of<T>(&self, stage: &'static str, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout_at(self.deadline, step).await.unwrap_or_else(|_| Err(self.exceeded(stage)))
    }

    fn exceeded(&self, stage: &'static str) -> Error {
        Error::Timeout { name: self.target.name.clone(), stage, after: self.target.timeout }
    }
}

impl Connection {
    /// Connects, checks the host key and logs in, all within the target's time. A jump host is connected to first.
    ///
    /// # Errors
    /// One for each thing that can be wrong; see [`Error`].
    pub async fn open(target: &Target) -> Result<Self, Error> {
        Self::open_with(target, KeepAlive::default()).await
    }

    /// As [`open`](Self::open), with other limits for noticing a dead peer.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_with(target: &Target, keep_alive: KeepAlive) -> Result<Self, Error> {
        let jump = match &target.jump {
            None => None,
            Some(jump) => {
                Some(Box::pin(Self::open_with(jump, keep_alive)).await.map_err(|source| through(target, source))?)
            }
        };
        // The key exchange is a large future; callers need not carry it on their stacks.
        Box::pin(Self::open_through(target, keep_alive, jump)).await
    }

    /// As [`open_with`](Self::open_with), through a jump host that is connected to already.
    pub(super) async fn open_through(
        target: &Target,
        keep_alive: KeepAlive,
        jump: Option<Self>,
    ) -> Result<Self, Error> {
        let proof = login::proof(target)?;
        let preferred = Preferred { key: handler::kinds(target)?.into(), ..Preferred::DEFAULT };
        let config = Arc::new(Config {
            client_id: SshId::Standard("SSH-2.0-Cairn".into()),
            preferred,
            keepalive_interval: Some(keep_alive.interval),
            keepalive_max: keep_alive.unanswered,
            channel_buffer_size: WAITING,
            ..Config::default()
        });
        let limit = Limit { target, deadline: Instant::now() + target.timeout };
        let silence = keep_alive.limit();
        match &jump {
            None => {
                let stream = dialing::tcp(&target.host, target.port, limit.deadline).await;
                let stream = stream.map_err(|source| match source.kind() {
                    io::ErrorKind::TimedOut => limit.exceeded("connecting"),
                    _ => unreachable(target, source),
                })?;
                Self::greet(&limit, config, Pulse::new(stream, silence), &proof, None).await
            }
            Some(jump) => {
                let dialled =
                    async { jump.dial(&target.host, target.port).await.map_err(|source| through(target, source)) };
                let stream = limit.of("connecting through the jump host", dialled).await?;
                Self::greet(&limit, config, Pulse::new(stream, silence), &proof, Some(jump.clone())).await
            }
        }
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        limit: &Limit<'_>,
        config: Arc<Config>,
        stream: S,
        proof: &Proof,
        jump: Option<Self>,
    ) -> Result<Self, Error> {
        let target = limit.target;
        let findings = Arc::new(Findings::default());
        let watch = Watch { host_keys: target.host_keys.clone(), findings: Arc::clone(&findings) };
        let exchange = async {
            russh::client::connect_stream(config, stream, watch).await.map_err(|fault| refused_host(target, fault))
        };
        let mut handle = limit.of("the key exchange", exchange).await?;
        limit.of("the login", login::log_in(&mut handle, target, proof, &findings)).await?;
        let closed = || Error::Closed { name: target.name.clone(), reason: findings.ended() };
        let host_key = findings.host_key().ok_or_else(closed)?;
        tracing::debug!(host = %target.name, user = %target.user, "ssh connection open");
        Ok(Self(Arc::new(Shared {
            name: target.name.clone(),
            user: target.user.clone(),
            host_key,
            handle,
            findings,
            places: Arc::new(Semaphore::new(COMMANDS)),
            taken: Arc::new(AtomicUsize::new(0)),
            ended: watch::Sender::new(()),
            _jump: jump,
        })))
    }

    /// Key that the host showed.
    pub fn host_key(&self) -> &HostKey {
        &self.0.host_key
    }

    /// What messages call the host.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// User who is logged in.
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// True once the connection is of no more use. A peer that vanished is found out by [`KeepAlive`].
    pub fn is_closed(&self) -> bool {
        self.0.handle.is_closed()
    }

    /// True when nobody but the caller holds the connection or uses it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    pub(super) fn closed(&self) -> Error {
        Error::Closed { name: self.0.name.clone(), reason: self.0.findings.ended() }
    }

    /// Runs a command to its end, with `input` as its standard input. An exit status other than 0 is not an error.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), `CommandTimeout` after `limit`, and `Closed` when the connection went away.
    pub async fn run(&self, command: &Command, input: &[u8], limit: Duration) -> Result<Output, Error> {
        let program = command.program();
        tokio::time::timeout(limit, self.run_unlimited(command, input))
            .await
            .unwrap_or_else(|_| Err(Error::CommandTimeout { name: self.0.name.clone(), program, after: limit }))
    }

    async fn run_unlimited(&self, command: &Command, input: &[u8]) -> Result<Output, Error> {
        let mut running = self.spawn(command).await?;
        let stdin = running.stdin.take();
        let stdout = running.stdout.take();
        let given = async {
            if let Some(mut stdin) = stdin {
                // A command need not read its input.
                let _ = stdin.write_all(input).await;
            }
        };
        let (kept, ()) = tokio::join!(head(stdout, command.kept_output()), given);
        let (stdout, stdout_cut) = kept;
        let exit = running.wait().await?;
        let (stderr, stderr_cut) = running.stderr();
        Ok(Output { exit, stdout, stderr, stdout_cut, stderr_cut })
    }

    /// Starts a command. When as many run as the host allows on one connection, this waits until one has ended.
    ///
    /// # Errors
    /// `Command` for words that cannot be sent, `ChannelRefused`, `Closed`.
    pub async fn spawn(&self, command: &Command) -> Result<Running, Error> {
        let line =
            command.to_line(&self.0.user).map_err(|source| Error::Command { name: self.0.name.clone(), source })?;
        let (channel, place) = self.session().await?;
        channel.exec(true, line).await.map_err(|_| self.closed())?;
        Ok(Running::start(channel, command, self.clone(), place))
    }

    /// Opens a channel for a command. A refusal may only mean that the host has not yet put away one that has ended:
    /// so it is asked again after an answer of it, and then whenever one of ours ends.
    async fn session(&self) -> Result<(Channel<Msg>, Place), Error> {
        let permit = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| self.closed())?;
        self.0.taken.fetch_add(1, Ordering::SeqCst);
        let place = Place { taken: Arc::clone(&self.0.taken), ended: self.0.ended.clone(), _permit: permit };
        let mut answered = false;
        loop {
            let mut ended = self.0.ended.subscribe();
            match self.0.handle.channel_open_session().await {
                Ok(channel) => return Ok((channel, place)),
                Err(russh::Error::ChannelOpenFailure(_)) if !answered => {
                    self.0.handle.send_ping().await.map_err(|_| self.closed())?;
                    answered = true;
                }
                Err(russh::Error::ChannelOpenFailure(_)) if self.0.taken.load(Ordering::SeqCst) > 1 => {
                    // Cannot fail: the sender is ours.
                    let _ = ended.changed().await;
                    answered = false;
                }
                Err(error) => return Err(self.refusal("a command".to_owned(), &error)),
            }
        }
    }

    /// A TCP connection from the host to somewhere else (`direct-tcpip`).
    ///
    /// # Errors
    /// `ChannelRefused` when the host cannot or may not connect there, `Closed`.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Stream, Error> {
        let opened = self.0.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await;
        let channel = opened.map_err(|error| self.refusal(format!("a connection to {host}:{port}"), &error))?;
        Ok(Stream::start(channel, self.clone()))
    }

    /// A connection to a Unix socket on the host (`direct-streamlocal@openssh.com`).
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub async fn dial_socket(&self, path: &str) -> Result<Stream, Error> {
        let opened = self.0.handle.channel_open_direct_streamlocal(path).await;
        let channel = opened.map_err(|error| self.refusal(format!("a connection to {path}"), &error))?;
        Ok(Stream::start(channel, self.clone()))
    }

    fn refusal(&self, what: String, error: &russh::Error) -> Error {
        match error {
            russh::Error::ChannelOpenFailure(reason) => {
                Error::ChannelRefused { name: self.0.name.clone(), what, reason: format!("{reason:?}") }
            }
            _ => self.closed(),
        }
    }
}

/// The beginning of a stream, and true when there was more. The rest is read and thrown away.
async fn head(stream: Option<super::Stdout>, limit: usize) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return (kept, false) };
    let mut cut = false;
    let mut part = vec![0; 32 * 1024];
    while let Ok(count) = stream.read(&mut part).await
        && count > 0
    {
        let room = limit.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&part[..room]);
        cut |= room < count;
    }
    (kept, cut)
}

fn through(target: &Target, source: Error) -> Error {
    Error::Jump { name: target.name.clone(), source: Box::new(source) }
}

fn address(target: &Target) -> String {
    format!("{}:{}", target.host, target.port)
}

fn unreachable(target: &Target, source: io::Error) -> Error {
    Error::Unreachable { name: target.name.clone(), address: address(target), source: Arc::new(source) }
}

fn refused_host(target: &Target, fault: Fault) -> Error {
    match fault {
        Fault::HostKey(seen) => {
            let expected = match &target.host_keys {
                super::HostKeys::Pinned(keys) => keys.iter().map(HostKey::fingerprint).collect(),
                _ => Vec::new(),
            };
            Error::HostKeyChanged { name: target.name.clone(), expected, seen: seen.fingerprint() }
        }
        Fault::Transport(source) => {
            Error::Handshake { name: target.name.clone(), address: address(target), source: Arc::new(source) }
        }
    }
}
