//! A connection that is logged in.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::{Config, Handle, Msg};
use russh::{Channel, Preferred, SshId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::handler::{Fault, Findings, Watch};
use super::login::{self, Proof};
use super::opening::{Opened, Turns};
use super::pulse::Pulse;
use super::{Command, Error, HostKey, Output, Running, Stream, Target, dialing, handler};

/// Messages of a channel that wait for its reader before the connection waits for it. With full packets that is 2 MiB.
const WAITING: usize = 64;

/// Stands for a limit that no clock can reach.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

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
    turns: Turns,
    worn: AtomicBool,
    /// Carries this one, if there is a jump host.
    _jump: Option<Connection>,
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
        let proof = login::proof(target).await?;
        let preferred = Preferred { key: handler::kinds(target)?.into(), ..Preferred::DEFAULT };
        let config = Arc::new(Config {
            client_id: SshId::Standard("SSH-2.0-Cairn".into()),
            preferred,
            keepalive_interval: Some(keep_alive.interval),
            keepalive_max: keep_alive.unanswered,
            channel_buffer_size: WAITING,
            ..Config::default()
        });
        let now = Instant::now();
        let limit = Limit { target, deadline: now.checked_add(target.timeout).unwrap_or(now + FOR_EVER) };
        let silence = keep_alive.limit();
        match &jump {
            None => {
                let stream = dialing::tcp(&target.host, target.port, limit.deadline).await;
                let stream = stream.map_err(|source| match source.kind() {
                    io::ErrorKind::TimedOut => limit.exceeded("connecting"),
                    _ => unreachable(target, source),
                })?;
                Self::greet(&limit, config, stream, silence, &proof, None).await
            }
            Some(jump) => {
                let dialled =
                    async { jump.dial(&target.host, target.port).await.map_err(|source| through(target, source)) };
                let stream = limit.of("connecting through the jump host", dialled).await?;
                Self::greet(&limit, config, stream, silence, &proof, Some(jump.clone())).await
            }
        }
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        limit: &Limit<'_>,
        config: Arc<Config>,
        stream: S,
        silence: Duration,
        proof: &Proof,
        jump: Option<Self>,
    ) -> Result<Self, Error> {
        let target = limit.target;
        let findings = Arc::new(Findings::default());
        let end = CancellationToken::new();
        let stream = Pulse::new(stream, silence, end.clone());
        // Giving up in the middle ends the transport, too: it would wait for a host that hangs.
        let end = end.drop_guard();
        let watch = Watch { host_keys: target.host_keys.clone(), findings: Arc::clone(&findings) };
        let exchange = async {
            russh::client::connect_stream(config, stream, watch).await.map_err(|fault| refused_host(target, fault))
        };
        let mut handle = limit.of("the key exchange", exchange).await?;
        limit.of("the login", login::log_in(&mut handle, target, proof, &findings)).await?;
        let closed = || Error::Closed { name: target.name.clone(), reason: findings.ended() };
        let host_key = findings.host_key().ok_or_else(closed)?;
        // From here on the transport ends by itself with the last one who uses it, and sends first what is left to send.
        end.disarm();
        tracing::debug!(host = %target.name, user = %target.user, "ssh connection open");
        Ok(Self(Arc::new(Shared {
            name: target.name.clone(),
            user: target.user.clone(),
            host_key,
            handle,
            findings,
            turns: Turns::new(),
            worn: AtomicBool::new(false),
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

    /// True when the host refused a command while none of ours ran: it still counts commands whose channels are closed,
    /// and another connection may do better.
    pub(super) fn is_worn(&self) -> bool {
        self.0.worn.load(Ordering::SeqCst)
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
        let open = || {
            let shared = Arc::clone(&self.0);
            async move { shared.handle.channel_open_session().await }
        };
        let opened = self.0.turns.command(&self.0.handle, open).await.map_err(|error| {
            let refused = matches!(error, russh::Error::ChannelOpenFailure(_));
            self.0.worn.store(refused, Ordering::SeqCst);
            self.refusal("a command".to_owned(), &error)
        })?;
        opened.exec(line).await.map_err(|_| self.closed())?;
        let (channel, place) = opened.take().ok_or_else(|| self.closed())?;
        Ok(Running::start(channel, command, self.clone(), place))
    }

    /// A TCP connection from the host to somewhere else (`direct-tcpip`).
    ///
    /// # Errors
    /// `ChannelRefused` when the host cannot or may not connect there, `Closed`.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Stream, Error> {
        let (shared, asked) = (Arc::clone(&self.0), host.to_owned());
        let opening =
            async move { shared.handle.channel_open_direct_tcpip(asked, u32::from(port), "127.0.0.1", 0).await };
        self.stream(format!("a connection to {host}:{port}"), opening).await
    }

    /// A connection to a Unix socket on the host (`direct-streamlocal@openssh.com`).
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub async fn dial_socket(&self, path: &str) -> Result<Stream, Error> {
        let (shared, asked) = (Arc::clone(&self.0), path.to_owned());
        let opening = async move { shared.handle.channel_open_direct_streamlocal(asked).await };
        self.stream(format!("a connection to {path}"), opening).await
    }

    async fn stream(
        &self,
        what: String,
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static,
    ) -> Result<Stream, Error> {
        let opened = Opened::stream(opening).await.map_err(|error| self.refusal(what, &error))?;
        let (channel, _) = opened.take().ok_or_else(|| self.closed())?;
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
