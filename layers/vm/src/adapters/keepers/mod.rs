//! Keepers as they are on a real host: `cairn-keeper` for each VM, in a directory of its own (`libs/keeper`), started in
//! the background or as a unit of systemd.
//!
//! Nothing here is remembered: what a keeper has written down is what is so, and whoever asks looks again. Whatever is
//! done about one VM is done one after another; waiting for its end is not.

mod directory;
mod starter;
mod systemd;
mod watch;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use keeper::Directory;
use tokio::sync::OwnedMutexGuard;

use crate::errors::VM_KEEPER;
use crate::model::VmId;
use crate::ports::{Exit, Keepers, Kept, StepError, Stepped, Stray};

pub use starter::Settings;

use directory::Seen;
use starter::Starter;

/// How long what was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(30);
/// How long a keeper may take from its start to its process, and from its process's end to its own.
const KEEPER: Duration = Duration::from_secs(60);
/// How long a guest may take to read what is typed.
const TYPING: Duration = Duration::from_secs(5);
/// Before a keeper that has died again is replaced.
const AGAIN: Duration = Duration::from_secs(1);

/// The keepers of this host.
pub struct HostKeepers {
    directory: PathBuf,
    starter: Starter,
    /// One thing at a time for each VM.
    turns: Mutex<HashMap<VmId, Arc<tokio::sync::Mutex<()>>>>,
}

impl HostKeepers {
    /// Keepers in the background, or in units where systemd is the first process and has the unit for them.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(settings: &Settings) -> Result<Self, StepError> {
        directory::prepare(&settings.directory)?;
        let starter = Starter::choose(settings);
        tracing::info!(directory = %settings.directory.display(), units = starter.has_units(), "keepers are looked after");
        Ok(Self { directory: settings.directory.clone(), starter, turns: Mutex::default() })
    }

    fn of(&self, id: &VmId) -> Directory {
        Directory::new(self.directory.join(id.as_str()))
    }

    async fn turn(&self, id: &VmId) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default());
        turn.lock_owned().await
    }

    /// A keeper is at work, and its process has begun or ended.
    async fn ensure(&self, id: &VmId, directory: &Directory) -> Result<Seen, StepError> {
        let changes = watch::Changes::of(directory.path())?;
        let settled = async || loop {
            let seen = directory::see(directory).await?;
            if seen.is_settled() {
                return Ok(seen);
            }
            changes.next().await?;
        };
        let ensured = async {
            loop {
                self.starter.start(id, directory).await?;
                // One that is killed as soon as it has begun is replaced.
                if let Ok(done) = tokio::time::timeout(self.starter.patience(), settled()).await {
                    return done;
                }
            }
        };
        within(KEEPER, ensured, || format!("no keeper works in {}", directory.path().display())).await
    }

    /// What is so, once no keeper is just beginning and none is missing.
    async fn settled(&self, id: &VmId, directory: &Directory) -> Result<Seen, StepError> {
        let seen = directory::see(directory).await?;
        if seen.is_settled() || seen.is_nothing() { Ok(seen) } else { self.ensure(id, directory).await }
    }

    async fn begin(&self, id: &VmId, order: &keeper::Order) -> Result<(), StepError> {
        let directory = self.of(id);
        let _turn = self.turn(id).await;
        let mut seen = directory::see(&directory).await?;
        if seen.process.is_none() && seen.ended.is_none() {
            directory::write_order(&directory, order).await?;
            tracing::info!(vm_id = %id, program = order.argv.first(), "jailer: a keeper is started");
            seen = self.ensure(id, &directory).await?;
        } else if !seen.is_settled() {
            seen = self.ensure(id, &directory).await?;
        }
        match seen.ended.and_then(|ended| ended.not_begun) {
            Some(why) => Err(StepError::new(VM_KEEPER, why)),
            None => Ok(()),
        }
    }

    async fn state(&self, id: &VmId) -> Result<Kept, StepError> {
        let directory = self.of(id);
        let _turn = self.turn(id).await;
        let mut seen = self.settled(id, &directory).await?;
        if seen.is_nothing() {
            // A start that was cut off before anything began; or one that begins just now.
            if directory::remove(&directory, self.starter.group(id)).await? {
                return Ok(Kept::Nothing);
            }
            seen = self.ensure(id, &directory).await?;
        }
        Ok(match (seen.ended, seen.process) {
            (Some(ended), _) => Kept::Ended(exit(ended.exit)),
            (None, Some(process)) => Kept::Running { pid: process.identity.pid },
            (None, None) => Kept::Nothing,
        })
    }

    /// Waits for the process, and for the keeper as long as it lives; replaces one that does not.
    async fn until_end(&self, id: &VmId) -> Result<Exit, StepError> {
        let directory = self.of(id);
        // What is in it would go with the last that has it open, should the keeper be killed.
        let mut output = None;
        let mut replaced = false;
        loop {
            let seen = directory::see(&directory).await?;
            if let Some(ended) = seen.ended {
                return Ok(exit(ended.exit));
            }
            let Some(process) = seen.process else { return Ok(Exit::Unknown) };
            output = output.or_else(|| keeper::open_fifo(&directory.output(), false).ok());
            let keeper = match &seen.keeper {
                Some(keeper) => watch::handle(&keeper.identity)?,
                None => None,
            };
            let Some(keeper) = keeper else {
                if replaced {
                    tokio::time::sleep(AGAIN).await;
                }
                tracing::warn!(vm_id = %id, "the keeper is gone; another one takes its place");
                replaced = true;
                let _turn = self.turn(id).await;
                self.settled(id, &directory).await?;
                continue;
            };
            match watch::handle(&process.identity)? {
                Some(process) => tokio::select! {
                    ended = process.ended() => ended?,
                    ended = keeper.ended() => ended?,
                },
                None => {
                    within(KEEPER, keeper.ended(), || "the keeper does not say how its process ended".to_owned())
                        .await?
                }
            }
        }
    }

    async fn end(&self, id: &VmId) -> Result<(), StepError> {
        let directory = self.of(id);
        let _turn = self.turn(id).await;
        let seen = self.settled(id, &directory).await?;
        match seen.process {
            Some(process) if seen.ended.is_none() => {
                tracing::info!(vm_id = %id, pid = process.identity.pid, "jailer: the process is killed");
                directory::kill(process).await
            }
            _ => Ok(()),
        }
    }

    async fn remove(&self, id: &VmId) -> Result<(), StepError> {
        let directory = self.of(id);
        let _turn = self.turn(id).await;
        let seen = self.settled(id, &directory).await?;
        if seen.process.is_some() && seen.ended.is_none() {
            return Err(StepError::new(VM_KEEPER, format!("the process of {id} still runs")));
        }
        if let Some(keeper) = seen.keeper.map(|keeper| watch::handle(&keeper.identity)).transpose()?.flatten() {
            within(KEEPER, keeper.ended(), || format!("the keeper of {id} does not end")).await?;
        }
        self.starter.forget(id).await?;
        let groups = seen.process.map(|process| process.control_groups).unwrap_or_default();
        directory::remove_groups(groups).await?;
        if !directory::remove(&directory, None).await? {
            return Err(StepError::new(VM_KEEPER, format!("a keeper begins to work for {id}")));
        }
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // This one's and the table's: nobody else waits for a turn.
        if turns.get(id).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            turns.remove(id);
        }
        Ok(())
    }

    async fn found(&self, known: &[VmId]) -> Result<Vec<Stray>, StepError> {
        let mut strays = Vec::new();
        for id in directory::ids(&self.directory).await? {
            if known.contains(&id) {
                continue;
            }
            let name = self.of(&id).path().display().to_string();
            let seen = directory::see(&self.of(&id)).await?;
            if seen.process.is_some() && seen.ended.is_none() {
                strays.push(Stray { kind: "process".to_owned(), name: name.clone() });
            }
            strays.push(Stray { kind: "directory".to_owned(), name });
        }
        strays.extend(self.starter.strays(known).await?);
        Ok(strays)
    }

    async fn remove_one(&self, stray: &Stray) -> Result<(), StepError> {
        let id = || -> Option<VmId> {
            let name = Path::new(&stray.name).strip_prefix(&self.directory).ok()?;
            name.to_str()?.parse().ok()
        };
        match (stray.kind.as_str(), id()) {
            ("process", Some(id)) => {
                self.end(&id).await?;
                self.until_end(&id).await.map(drop)
            }
            ("directory", Some(id)) => self.remove(&id).await,
            _ => self.starter.remove_stray(stray).await,
        }
    }
}

impl Keepers for HostKeepers {
    fn start<'a>(&'a self, id: &'a VmId, order: &'a keeper::Order) -> Stepped<'a> {
        self.begin(id, order).boxed()
    }

    fn look<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Kept> {
        self.state(id).boxed()
    }

    fn ended<'a>(&'a self, id: &'a VmId) -> Stepped<'a, Exit> {
        self.until_end(id).boxed()
    }

    fn kill<'a>(&'a self, id: &'a VmId) -> Stepped<'a> {
        self.end(id).boxed()
    }

    fn forget<'a>(&'a self, id: &'a VmId) -> Stepped<'a> {
        self.remove(id).boxed()
    }

    fn type_in<'a>(&'a self, id: &'a VmId, bytes: &'a [u8]) -> Stepped<'a> {
        async move {
            let path = self.of(id).input();
            within(TYPING, watch::type_in(&path, bytes), || "the guest does not read its console".to_owned()).await
        }
        .boxed()
    }

    fn strays<'a>(&'a self, known: &'a [VmId]) -> Stepped<'a, Vec<Stray>> {
        self.found(known).boxed()
    }

    fn remove_stray<'a>(&'a self, stray: &'a Stray) -> Stepped<'a> {
        self.remove_one(stray).boxed()
    }
}

fn exit(exit: keeper::Exit) -> Exit {
    match exit {
        keeper::Exit::Code(code) => Exit::Code(code),
        keeper::Exit::Signal(signal) => Exit::Signal(signal),
        keeper::Exit::Unknown => Exit::Unknown,
    }
}

/// For `map_err`: everything that is known of an error.
fn failed<E: std::error::Error + 'static>(error: E) -> StepError {
    StepError::of(VM_KEEPER, &error)
}

/// An error when something takes longer than it ever should.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StepError>>,
    what: impl FnOnce() -> String,
) -> Result<T, StepError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(StepError::new(VM_KEEPER, format!("{} within {} s", what(), limit.as_secs()))),
    }
}

/// Does what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(end) => match end.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and nobody waits for this any more.
            Err(_) => Err(StepError::new(VM_KEEPER, "this process is ending")),
        },
    }
}
