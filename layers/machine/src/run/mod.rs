//! Drives a deployment: asks [`plan::step`](crate::plan::step), writes down where it is, does what is asked, asks again.
//!
//! A deployment that an earlier process left is taken up first: before the host had begun it is forgotten, after that
//! the host is asked how far it is.

mod effects;

use std::time::{Duration, Instant};

use cairn_core::{Clock, Outcome};
use tokio_util::sync::CancellationToken;

use crate::model::{DeploymentId, Desired, StorePath};
use crate::plan::{Ask, Effect, Failure, Fault, Phase, Progress, Seen, step};
use crate::ports::{Builder, Event, Host, Source, Watcher};
use crate::store::{Deployment, Ending, Error as StoreError, MachineStore};

/// What a deployment needs beside what is wanted.
pub struct Engine<'a, S, B, H> {
    /// The repository.
    pub source: &'a S,
    /// Nix.
    pub builder: &'a B,
    /// The machine.
    pub host: &'a H,
    /// Where things are written down.
    pub store: &'a MachineStore,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Who is told.
    pub watcher: &'a dyn Watcher,
    /// Ends it where nothing is left half-done, or says what is.
    pub stop: &'a CancellationToken,
}

/// What is asked of a deployment.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Show what would change, and change nothing.
    pub dry_run: bool,
    /// Try a system again that the machine took back.
    pub retry: bool,
    /// Activate this system, which the machine has, and not what the repository wants.
    pub system: Option<StorePath>,
}

/// How a deployment ended well.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its id.
    pub deployment: DeploymentId,
    /// Where it ended, and what is known of it.
    pub progress: Progress,
}

/// Why a deployment did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed.
    #[error("{failure}")]
    Failed {
        /// Which one.
        deployment: DeploymentId,
        /// How far it came.
        progress: Box<Progress>,
        /// How.
        failure: Box<Failure>,
    },
    /// The user ended it.
    #[error("{}", interrupted(.progress))]
    Interrupted {
        /// Which one.
        deployment: DeploymentId,
        /// How far it came.
        progress: Box<Progress>,
    },
    /// What is kept cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn interrupted(progress: &Progress) -> String {
    if progress.phase.is_on_the_host() {
        "interrupted while the new system is on trial: the host takes the old one back by itself, and the next apply \
         takes the deployment up again"
            .to_owned()
    } else {
        format!("interrupted in the phase {}; nothing was begun on the host", progress.phase.as_str())
    }
}

impl<S: Source, B: Builder, H: Host> Engine<'_, S, B, H> {
    /// Brings the machine to what is wanted. Nobody else may work on the machine with this store meanwhile.
    ///
    /// # Errors
    /// How it failed. What it means for the next one is written down.
    pub async fn apply(&self, desired: &Desired, request: Request) -> Result<Report, Error> {
        if let Some(left) = self.store.running(&desired.machine).await? {
            self.take_up(left, desired, request.clone()).await?;
        }
        let deployment = Deployment {
            id: DeploymentId::new(),
            machine: desired.machine.clone(),
            configuration: desired.configuration.clone(),
            reference: desired.reference.clone(),
            progress: match &request.system {
                None => Progress::default(),
                Some(system) => Progress {
                    phase: Phase::Inspect,
                    system: Some(system.clone()),
                    resident: true,
                    ..Progress::default()
                },
            },
            started_at: self.clock.now(),
            ended_at: None,
            ending: None,
            reason: String::new(),
            log: String::new(),
        };
        // A dry run leaves no trace here, as it leaves none on the machine.
        if !request.dry_run {
            self.store.begin(&deployment).await?;
        }
        self.drive(deployment, desired, &request).await
    }

    /// What an earlier process left: forgotten, or brought to its end. How that end was is not what is asked for now.
    async fn take_up(&self, mut left: Deployment, desired: &Desired, request: Request) -> Result<(), Error> {
        if !left.progress.phase.is_on_the_host() {
            left.reason = "the process ended".to_owned();
            return Ok(self.store.end(&left, Ending::Abandoned, None, self.clock.now()).await?);
        }
        self.watcher.told(desired, &Event::TakenUp(left.id));
        let request = Request { dry_run: false, ..request };
        match self.drive(left, desired, &request).await {
            Ok(_) => Ok(()),
            Err(Error::Failed { failure, .. }) if failure.is_known() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn drive(&self, mut deployment: Deployment, desired: &Desired, request: &Request) -> Result<Report, Error> {
        let mut turn = Turn::default();
        let mut work = effects::Work::new(self, desired, deployment.id);
        self.watcher.told(desired, &Event::Phase(deployment.progress.phase));
        loop {
            let ask = self.ask(&deployment, desired, request, &turn).await?;
            let fault = match &turn.seen {
                Some(Seen::Fault(fault)) => Some(fault.clone()),
                _ => None,
            };
            let decided = step(&deployment.progress, turn.seen.take(), &ask);
            turn.note(fault);
            match decided {
                Outcome::Go(progress) => {
                    if !request.dry_run && !progress.phase.is_end() {
                        self.store.progress(deployment.id, &progress).await?;
                    }
                    deployment.progress = progress;
                    turn = Turn::default();
                    self.watcher.told(desired, &Event::Phase(deployment.progress.phase));
                }
                Outcome::Stay { reason, retry_after } => {
                    self.watcher.told(desired, &Event::Waiting(&reason));
                    self.pause(&deployment, request, retry_after).await?;
                }
                Outcome::Do(effect) => {
                    turn.seen = Some(self.act(&mut work, effect, &mut deployment, request).await?);
                }
                Outcome::Done => return self.ended(&mut work, deployment, request).await,
                Outcome::Failed(failure) => return Err(self.failed(&mut work, deployment, request, failure).await?),
            }
        }
    }

    async fn ask(
        &self,
        deployment: &Deployment,
        desired: &Desired,
        request: &Request,
        turn: &Turn,
    ) -> Result<Ask, StoreError> {
        let quarantined = match &deployment.progress.system {
            Some(system) if !request.retry => self.store.quarantined(&desired.machine, system).await?,
            _ => None,
        };
        Ok(Ask {
            dry_run: request.dry_run,
            quarantined: quarantined.map(|found| found.reason),
            faults: turn.faults,
            fault: turn.fault.clone(),
            waited: turn.entered.elapsed(),
            confirm: desired.limits.confirm,
        })
    }

    /// Does it, unless the user ends the process first: then what is being done on the host goes on there.
    async fn act(
        &self,
        work: &mut effects::Work<'_, '_, S, B, H>,
        effect: Effect,
        deployment: &mut Deployment,
        request: &Request,
    ) -> Result<Seen, Error> {
        if self.stop.is_cancelled() {
            return Err(self.interrupted(deployment, request).await?);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            seen = work.act(effect, &deployment.progress) => return Ok(seen),
        }
        Err(self.interrupted(deployment, request).await?)
    }

    async fn pause(&self, deployment: &Deployment, request: &Request, time: Duration) -> Result<(), Error> {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => return Ok(()),
        }
        Err(self.interrupted(deployment, request).await?)
    }

    async fn interrupted(&self, deployment: &Deployment, request: &Request) -> Result<Error, StoreError> {
        if !deployment.progress.phase.is_on_the_host() && !request.dry_run {
            let mut deployment = deployment.clone();
            deployment.reason = "ended by the user".to_owned();
            self.store.end(&deployment, Ending::Abandoned, None, self.clock.now()).await?;
        }
        Ok(Error::Interrupted { deployment: deployment.id, progress: Box::new(deployment.progress.clone()) })
    }

    async fn ended(
        &self,
        work: &mut effects::Work<'_, '_, S, B, H>,
        deployment: Deployment,
        request: &Request,
    ) -> Result<Report, Error> {
        let ending = match deployment.progress.phase {
            Phase::Unchanged => Ending::Unchanged,
            _ => Ending::Applied,
        };
        if !request.dry_run {
            self.store.end(&deployment, ending, None, self.clock.now()).await?;
            // Asked for and good: there is no reason left not to try it.
            if let Some(system) = deployment.progress.system.as_ref().filter(|_| request.retry) {
                self.store.release(&deployment.machine, system).await?;
            }
        }
        work.clear().await;
        Ok(Report { deployment: deployment.id, progress: deployment.progress })
    }

    async fn failed(
        &self,
        work: &mut effects::Work<'_, '_, S, B, H>,
        mut deployment: Deployment,
        request: &Request,
        failure: Failure,
    ) -> Result<Error, StoreError> {
        deployment.reason = match &failure {
            Failure::RolledBack { reason, .. } | Failure::RollbackFailed { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        deployment.log = failure.log().to_owned();
        let quarantine = deployment.progress.system.as_ref().filter(|_| failure.quarantines());
        let ending = if failure.quarantines() { Ending::RolledBack } else { Ending::Failed };
        if failure.is_known() {
            if !request.dry_run {
                self.store.end(&deployment, ending, quarantine, self.clock.now()).await?;
            }
            work.clear().await;
        } else {
            self.store.progress(deployment.id, &deployment.progress).await?;
        }
        let progress = Box::new(deployment.progress);
        Ok(Error::Failed { deployment: deployment.id, progress, failure: Box::new(failure) })
    }
}

/// What is known since a phase was entered.
struct Turn {
    seen: Option<Seen>,
    faults: u32,
    fault: Option<Fault>,
    entered: Instant,
}

impl Default for Turn {
    fn default() -> Self {
        Self { seen: None, faults: 0, fault: None, entered: Instant::now() }
    }
}

impl Turn {
    fn note(&mut self, fault: Option<Fault>) {
        if fault.is_some() {
            self.faults += 1;
            self.fault = fault;
        }
    }
}
