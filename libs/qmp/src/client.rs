//! One connection.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::message::{Event, Message, MessageError};

/// Longest line that is read, in bytes.
pub const LINE_LIMIT: u64 = 1 << 20;

/// Events that are kept at most; the oldest are dropped first.
const EVENT_LIMIT: usize = 256;

/// Bytes of a socket's path that the kernel takes (`sun_path` without its final zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// Something went wrong with a connection or a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens at the socket, or it may not be reached.
    #[error("no connection to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke; whether the command took effect is not known.
    #[error("{command}: the connection broke")]
    Lost {
        /// The command, or `greeting`.
        command: String,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// QEMU hung up; whether the command took effect is not known. Commands that end QEMU can have no other answer.
    #[error("{command}: QEMU hung up")]
    HungUp {
        /// The command, or `greeting`.
        command: String,
    },
    /// No answer within the deadline; whether the command took effect is not known. Another connection may be served.
    #[error("{command}: no answer within {} ms", deadline.as_millis())]
    Late {
        /// The command, or `greeting`.
        command: String,
        /// The deadline.
        deadline: Duration,
    },
    /// QEMU said no.
    #[error("{command}: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// Kind of error, as `CommandNotFound`.
        class: String,
        /// QEMU's sentence.
        description: String,
    },
    /// A line is no message.
    #[error("{command}: QEMU's answer cannot be read")]
    Message {
        /// The command, or `greeting`.
        command: String,
        /// What is wrong with it.
        #[source]
        source: MessageError,
    },
    /// A message came where the protocol has another one.
    #[error("{command}: QEMU answered out of order")]
    Order {
        /// The command, or `greeting`.
        command: String,
    },
}

/// A connection on which commands can be given. One that failed with anything but [`Error::Refused`] is not of use any
/// more.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    version: String,
    deadline: Duration,
    last_id: u64,
    events: Vec<Event>,
}

impl Client {
    /// Connects and negotiates. `deadline` holds for this and for each command.
    ///
    /// # Errors
    /// When nothing listens, or what listens does not speak QMP in time.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self, Error> {
        let connect = |source| Error::Connect { socket: socket.to_owned(), source };
        let stream = BufReader::new(open(socket).await.map_err(connect)?);
        let mut client = Self { stream, version: String::new(), deadline, last_id: 0, events: Vec::new() };
        let end = Instant::now() + deadline;
        match client.next("greeting", end).await? {
            Message::Greeting { version } => client.version = version,
            _ => return Err(Error::Order { command: "greeting".to_owned() }),
        }
        client.execute("qmp_capabilities", None).await?;
        Ok(client)
    }

    /// QEMU's version, as `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// What QEMU refused, or how the connection failed.
    pub async fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, Error> {
        self.last_id += 1;
        let mut request = json!({ "execute": command, "id": self.last_id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let end = Instant::now() + self.deadline;
        let line = format!("{request}\n");
        let written = timeout_at(end, self.stream.get_mut().write_all(line.as_bytes())).await;
        written
            .map_err(|_| self.late(command))?
            .map_err(|source| Error::Lost { command: command.to_owned(), source })?;
        loop {
            match self.next(command, end).await? {
                Message::Event(event) => self.keep(event),
                Message::Return { id, value } if id == Some(self.last_id) => return Ok(value),
                // A command that QEMU could not read has no id in its refusal.
                Message::Refusal { id, class, description } if id.is_none_or(|id| id == self.last_id) => {
                    return Err(Error::Refused { command: command.to_owned(), class, description });
                }
                _ => return Err(Error::Order { command: command.to_owned() }),
            }
        }
    }

    /// Events since the last time, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == EVENT_LIMIT {
            self.events.remove(0);
        }
        self.events.push(event);
    }

    async fn next(&mut self, command: &str, end: Instant) -> Result<Message, Error> {
        let mut line = Vec::new();
        let mut stream = (&mut self.stream).take(LINE_LIMIT);
        let read = timeout_at(end, stream.read_until(b'\n', &mut line)).await;
        let read = read.map_err(|_| Error::Late { command: command.to_owned(), deadline: self.deadline })?;
        read.map_err(|source| Error::Lost { command: command.to_owned(), source })?;
        if line.is_empty() {
            return Err(Error::HungUp { command: command.to_owned() });
        }
        Message::parse(&line).map_err(|source| Error::Message { command: command.to_owned(), source })
    }

    fn late(&self, command: &str) -> Error {
        Error::Late { command: command.to_owned(), deadline: self.deadline }
    }
}

/// A socket whose path is too long to connect to is reached through its open directory.
async fn open(socket: &Path) -> std::io::Result<UnixStream> {
    let (true, Some(directory), Some(name)) =
        (socket.as_os_str().len() > SOCKET_PATH_LIMIT, socket.parent(), socket.file_name())
    else {
        return UnixStream::connect(socket).await;
    };
    let directory = tokio::fs::File::open(directory).await?;
    UnixStream::connect(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)).await
}
