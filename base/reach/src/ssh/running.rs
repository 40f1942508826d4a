//! A command that runs on a host, with its standard streams.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{Connection, Place};
use super::stream::PIPE;
use super::{Command, Error, Exit};

/// Largest piece of standard input sent at once: what a packet of SSH carries.
const PIECE: usize = 32 * 1024;
/// `SSH_EXTENDED_DATA_STDERR` of RFC 4254, section 5.2.
const STDERR: u32 = 1;

/// A command between its start and its end. Dropping it asks the command to end (TERM) and closes its channel; the
/// connection stays. OpenSSH passes the signal on unless the user is root: a command of root's that must not outlive its
/// channel has to watch its standard input, or to be a unit of systemd with a limit of its own.
#[derive(Debug)]
pub struct Running {
    /// Standard input; taking and dropping it is the end of file. Writing waits until the host takes more.
    pub stdin: Option<Stdin>,
    /// Standard output. Not reading it stops the command once some 2 MiB wait.
    pub stdout: Option<Stdout>,
    stderr: Arc<Mutex<Tail>>,
    ended: oneshot::Receiver<Ended>,
    connection: Connection,
    program: String,
    _end: DropGuard,
}

/// Standard input of a [`Running`] command.
#[derive(Debug)]
pub struct Stdin(DuplexStream);

/// Standard output of a [`Running`] command.
#[derive(Debug)]
pub struct Stdout(DuplexStream);

/// The last bytes of a stream.
#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    limit: usize,
    cut: bool,
}

#[derive(Debug)]
enum Ended {
    Exit(Exit),
    /// The host does not run commands for us.
    Refused,
    /// The channel was closed, and nothing was said.
    Silent,
    /// The connection went away.
    Lost,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        // Twice the limit before it is moved: each byte is moved once, whatever the size of the pieces.
        if self.bytes.len() > 2 * self.limit {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.limit);
        if excess > 0 {
            self.bytes.drain(..excess);
            self.cut = true;
        }
    }
}

impl Running {
    pub(super) fn start(channel: Channel<Msg>, command: &Command, connection: Connection, place: Place) -> Self {
        let (stdin, source) = tokio::io::duplex(PIPE);
        let (sink, stdout) = tokio::io::duplex(PIPE);
        let stderr = Arc::new(Mutex::new(Tail { bytes: Vec::new(), limit: command.kept_output(), cut: false }));
        let (tell, ended) = oneshot::channel();
        let end = CancellationToken::new();
        let collected = Arc::clone(&stderr);
        let stop = end.clone();
        tokio::spawn(async move {
            let (reading, writing) = channel.split();
            let result = tokio::select! {
                () = stop.cancelled() => None,
                result = listen(reading, sink, &collected) => Some(result),
                () = feed(source, &writing) => None,
            };
            if result.is_none() {
                // Whoever does not know the request, or refuses it, says nothing.
                let _ = writing.signal(Sig::TERM).await;
            }
            let _ = writing.close().await;
            drop(place);
            // Nobody may be waiting any more.
            let _ = tell.send(result.unwrap_or(Ended::Silent));
        });
        Self {
            stdin: Some(Stdin(stdin)),
            stdout: Some(Stdout(stdout)),
            stderr,
            ended,
            connection,
            program: command.program(),
            _end: end.drop_guard(),
        }
    }

    /// Waits for the end. Standard input that was not taken is ended, standard output that was not taken is thrown away.
    ///
    /// # Errors
    /// `Closed` when the connection went away, `ChannelRefused` when the host runs no commands for this user, `NoExit`
    /// when it did not say how the command ended.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        drop(self.stdin.take());
        drop(self.stdout.take());
        let ended = (&mut self.ended).await.unwrap_or(Ended::Lost);
        let name = self.connection.name().to_owned();
        match ended {
            Ended::Exit(exit) => Ok(exit),
            Ended::Refused => Err(Error::ChannelRefused {
                name,
                what: self.program.clone(),
                reason: "it runs no commands for this user".to_owned(),
            }),
            Ended::Silent => Err(Error::NoExit { name, program: self.program.clone() }),
            Ended::Lost => Err(self.connection.closed()),
        }
    }

    /// The end of standard error as far as it has come, and true when there was more than is kept.
    pub fn stderr(&self) -> (Vec<u8>, bool) {
        let mut tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        tail.trim();
        (tail.bytes.clone(), tail.cut)
    }
}

/// Sends what is written to us, as the host takes it, and then the end of file. Does not return after that: the channel
/// ends when the other side closes it.
pub(super) async fn feed(mut source: impl AsyncRead + Unpin, writing: &ChannelWriteHalf<Msg>) {
    let mut piece = BytesMut::with_capacity(PIECE);
    loop {
        match source.read_buf(&mut piece).await {
            Ok(0) | Err(_) => {
                let _ = writing.eof().await;
                break;
            }
            Ok(_) => {
                if writing.data_bytes(piece.split().freeze()).await.is_err() {
                    break;
                }
                piece.reserve(PIECE);
            }
        }
    }
    std::future::pending().await
}

async fn listen(mut reading: ChannelReadHalf, sink: DuplexStream, stderr: &Mutex<Tail>) -> Ended {
    let mut sink = Some(sink);
    let mut ended = None;
    while let Some(message) = reading.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                // Output that nobody wants any more is thrown away, so that the command can go on.
                if let Some(open) = &mut sink
                    && open.write_all(&data).await.is_err()
                {
                    sink = None;
                }
            }
            ChannelMsg::ExtendedData { data, ext: STDERR } => {
                stderr.lock().unwrap_or_else(PoisonError::into_inner).push(&data);
            }
            ChannelMsg::Eof => sink = None,
            ChannelMsg::ExitStatus { exit_status } => ended = Some(Ended::Exit(Exit::Code(exit_status))),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                ended = Some(Ended::Exit(Exit::Signal(signal(&signal_name))));
            }
            ChannelMsg::Failure => return Ended::Refused,
            ChannelMsg::Close => return ended.unwrap_or(Ended::Silent),
            _ => {}
        }
    }
    ended.unwrap_or(Ended::Lost)
}

fn signal(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl AsyncRead for Stdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}
