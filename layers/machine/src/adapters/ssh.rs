//! A machine over SSH.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_core::{ErrorKind, chain};
use reach::ssh::{Command, Connection, Connections, Error, Exit, HostKey, HostKeys, Target};

use crate::activation::{Answered, Shell};
use crate::errors;
use crate::plan::Fault;

/// More than any answer of the script needs.
const OUTPUT: usize = 4 << 20;

/// Programs on a machine, over one kept connection. The first host key that is trusted is pinned from then on.
#[derive(Debug)]
pub struct Ssh {
    target: Mutex<Target>,
    connections: Arc<Connections>,
    seen: Mutex<Option<HostKey>>,
    /// Made after an activation, and used from then on: what the old one could do proves nothing.
    fresh: Mutex<Option<Connection>>,
}

impl Ssh {
    /// A machine that is connected to when it is first asked.
    pub fn new(target: Target, connections: Arc<Connections>) -> Self {
        Self { target: Mutex::new(target), connections, seen: Mutex::new(None), fresh: Mutex::new(None) }
    }

    /// The key that the machine showed, once it was connected to.
    pub fn host_key(&self) -> Option<HostKey> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kept connection.
    ///
    /// # Errors
    /// The machine cannot be reached or does not let us in.
    pub async fn connection(&self) -> Result<Connection, Fault> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(fresh) = fresh.filter(|fresh| !fresh.is_closed()) {
            return Ok(fresh);
        }
        let target = self.target();
        let connection = self.connections.get(&target).await.map_err(|error| fault(&error))?;
        self.pin(&connection);
        Ok(connection)
    }

    fn target(&self) -> Target {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever answers at this address later has to have the same key.
    fn pin(&self, connection: &Connection) {
        let key = connection.host_key().clone();
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(target.host_keys, HostKeys::Pinned(_)) {
            target.host_keys = HostKeys::Pinned(vec![key.clone()]);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl Shell for Ssh {
    async fn run(&self, argv: &[String], input: &[u8], as_root: bool, limit: Duration) -> Result<Answered, Fault> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err(Fault::lasting(ErrorKind::Invalid, errors::MACHINE_HOST, "no program is named"));
        };
        let command = Command::new(program).args(arguments).output_limit(OUTPUT);
        let command = if as_root { command.as_root() } else { command };
        let connection = self.connection().await?;
        let output = connection.run(&command, input, limit).await.map_err(|error| fault(&error))?;
        let code = match output.exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        Ok(Answered { code, stdout: output.stdout, stderr: output.stderr })
    }

    async fn dial(&self, host: &str, port: u16, limit: Duration) -> Result<Result<(), String>, Fault> {
        let connection = self.connection().await?;
        match tokio::time::timeout(limit, connection.dial(host, port)).await {
            Ok(Ok(_)) => Ok(Ok(())),
            Ok(Err(Error::ChannelRefused { reason, .. })) => Ok(Err(reason)),
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => Ok(Err(format!("no connection within {} s", limit.as_secs()))),
        }
    }

    async fn reconnect(&self) -> Result<(), Fault> {
        let target = self.target();
        let connection = self.connections.fresh(&target).await.map_err(|error| fault(&error))?;
        self.pin(&connection);
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(())
    }

    fn address(&self) -> String {
        self.target().host
    }
}

/// What SSH says, sorted.
pub fn fault(error: &Error) -> Fault {
    let (kind, message) = (error.kind(), chain(error));
    let code = match kind {
        ErrorKind::Forbidden => errors::MACHINE_HOST_KEY,
        ErrorKind::Unauthorized | ErrorKind::Invalid => errors::MACHINE_LOGIN,
        _ => errors::MACHINE_UNREACHABLE,
    };
    let log = error.hint().unwrap_or_default();
    Fault { kind, code, message, log: log.to_owned(), may_pass: error.is_transient() }
}
