//! Opening channels: in turn, and so that none stays open unused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::Channel;
use russh::client::{Handle, Msg};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::handler::Watch;

/// Commands at once on one connection. OpenSSH allows 10 unless told otherwise (`MaxSessions`), and counts one that has
/// just ended for a moment longer; others wait here for their turn.
const COMMANDS: usize = 8;

/// Turns of commands.
pub(super) struct Turns {
    places: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
    ended: watch::Sender<()>,
}

/// Right to have one more command on the connection. Tells those who wait when it is given back.
pub(super) struct Place {
    taken: Arc<AtomicUsize>,
    ended: watch::Sender<()>,
    _permit: OwnedSemaphorePermit,
}

/// A channel that is closed unless somebody takes it: whoever asked for it may have given up meanwhile, and the host
/// would count it for ever.
pub(super) struct Opened {
    channel: Option<Channel<Msg>>,
    /// Given back after the channel: whoever waits for it finds the host ready.
    place: Option<Place>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(COMMANDS)),
            taken: Arc::new(AtomicUsize::new(0)),
            ended: watch::Sender::new(()),
        }
    }

    /// Waits for a turn.
    async fn next(&self) -> Result<Place, russh::Error> {
        let permit = Arc::clone(&self.places).acquire_owned().await.map_err(|_| russh::Error::Disconnect)?;
        self.taken.fetch_add(1, Ordering::SeqCst);
        Ok(Place { taken: Arc::clone(&self.taken), ended: self.ended.clone(), _permit: permit })
    }

    /// Opens a channel for a command by `open`. A refusal may only mean that the host has not yet put away one that has
    /// ended: so it is asked again after an answer of it, and then whenever one of ours ends.
    pub(super) async fn command<F>(&self, handle: &Handle<Watch>, open: impl Fn() -> F) -> Result<Opened, russh::Error>
    where
        F: Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static,
    {
        let mut place = self.next().await?;
        let mut answered = false;
        loop {
            let mut ended = self.ended.subscribe();
            let opening = open();
            let attempt = undisturbed(async move {
                match opening.await {
                    Ok(channel) => Ok(Opened { channel: Some(channel), place: Some(place) }),
                    Err(error) => Err((error, place)),
                }
            });
            let error = match attempt.await? {
                Ok(opened) => return Ok(opened),
                Err((error, back)) => {
                    place = back;
                    error
                }
            };
            if !matches!(error, russh::Error::ChannelOpenFailure(_)) {
                return Err(error);
            }
            if !answered {
                handle.send_ping().await?;
                answered = true;
            } else if self.taken.load(Ordering::SeqCst) > 1 || ended.has_changed().unwrap_or(false) {
                // Cannot fail: the sender is ours.
                let _ = ended.changed().await;
                answered = false;
            } else {
                return Err(error);
            }
        }
    }
}

/// Runs in a task of its own: a caller that gives up in the middle must not leave a channel that the host has opened and
/// nobody knows of.
async fn undisturbed<T: Send + 'static>(what: impl Future<Output = T> + Send + 'static) -> Result<T, russh::Error> {
    tokio::spawn(what).await.map_err(|_| russh::Error::Disconnect)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.ended.send_replace(());
    }
}

impl Opened {
    /// Opens a channel that takes no turn.
    pub(super) async fn stream(
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static,
    ) -> Result<Self, russh::Error> {
        let attempt = async { opening.await.map(|channel| Self { channel: Some(channel), place: None }) };
        undisturbed(attempt).await?
    }

    /// Starts a command on it.
    pub(super) async fn exec(&self, line: Vec<u8>) -> Result<(), russh::Error> {
        match &self.channel {
            Some(channel) => channel.exec(true, line).await,
            None => Err(russh::Error::WrongChannel),
        }
    }

    /// From here on, whoever takes it closes it.
    pub(super) fn take(mut self) -> Option<(Channel<Msg>, Option<Place>)> {
        self.channel.take().map(|channel| (channel, self.place.take()))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let place = self.place.take();
        // Outside of the runtime there is nobody left to tell.
        if let (Some(channel), Ok(runtime)) = (self.channel.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _ = channel.close().await;
                drop(place);
            });
        }
    }
}
