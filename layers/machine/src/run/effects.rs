//! What the plan asks for, done through the ports.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_core::ErrorKind;

use super::Engine;
use crate::errors;
use crate::model::{Activation, Commit, Delivery, DeploymentId, Desired, File, HealthCheck, Running};
use crate::plan::{Effect, Fault, Progress, Seen};
use crate::ports::{Builder, Evaluated, Host, Order, Source, Tree as _};

/// Pause between two tries of a health check that does not hold yet.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// The effects of one deployment.
pub(super) struct Work<'e, 'a, S: Source, B, H> {
    engine: &'e Engine<'a, S, B, H>,
    desired: &'e Desired,
    id: DeploymentId,
    /// Something of this deployment may be on the host.
    touched: bool,
}

impl<'e, 'a, S: Source, B: Builder, H: Host> Work<'e, 'a, S, B, H> {
    pub(super) fn new(engine: &'e Engine<'a, S, B, H>, desired: &'e Desired, id: DeploymentId) -> Self {
        Self { engine, desired, id, touched: false }
    }

    /// Removes what the host keeps of a deployment whose end is written down. It is small, and a restart of the host
    /// removes it too: when it does not go, nothing is lost.
    pub(super) async fn clear(&mut self) {
        if self.touched
            && let Err(fault) = self.engine.host.forget(self.id).await
        {
            tracing::debug!(machine = %self.desired.machine, error = %fault, "the host keeps what is left of a deployment");
        }
    }

    pub(super) async fn act(&mut self, effect: Effect, progress: &Progress) -> Seen {
        self.try_to(effect, progress).await.unwrap_or_else(Seen::Fault)
    }

    async fn try_to(&mut self, effect: Effect, progress: &Progress) -> Result<Seen, Fault> {
        let (host, builder) = (self.engine.host, self.engine.builder);
        let (placement, limit) = (&self.desired.placement, self.desired.limits.build);
        Ok(match effect {
            Effect::Resolve => Seen::Resolved(self.engine.source.resolve(&self.desired.reference).await?),
            Effect::Evaluate => self.evaluate(wanted(&progress.commit, "commit")?).await?,
            Effect::Inspect => Seen::Running(host.running().await?),
            Effect::Build => {
                let evaluated = Evaluated {
                    derivation: wanted(&progress.derivation, "derivation")?.clone(),
                    system: wanted(&progress.system, "system")?.clone(),
                };
                builder.build(&evaluated, placement, limit).await?;
                Seen::Done
            }
            Effect::Copy => {
                builder.copy(wanted(&progress.system, "system")?, placement, limit).await?;
                Seen::Done
            }
            Effect::Preview => Seen::Previewed(host.preview(wanted(&progress.system, "system")?).await?),
            Effect::Deliver => {
                let secret = |file: &&File| matches!(file.delivery, Delivery::Host { .. });
                // What goes with an earlier system is not known any more.
                if !progress.resident && self.desired.files.iter().any(|file| secret(&file)) {
                    self.touched = true;
                    host.deliver(self.id, &self.desired.files).await?;
                }
                Seen::Done
            }
            Effect::Look => self.told(host.activation(self.id).await?),
            Effect::Begin => {
                let system = wanted(&progress.system, "system")?;
                let order = Order { deployment: self.id, system, confirm: self.desired.limits.confirm };
                self.touched = true;
                self.told(host.begin(&order).await?)
            }
            Effect::CheckHealth => self.health(progress).await?,
            Effect::Confirm => self.told(host.confirm(self.id).await?),
            Effect::RollBack => self.told(host.roll_back(self.id).await?),
        })
    }

    fn told(&mut self, (activation, running): (Activation, Running)) -> Seen {
        self.touched = true;
        Seen::Host(activation, running)
    }

    async fn evaluate(&self, commit: &Commit) -> Result<Seen, Fault> {
        let subdirectory = &self.desired.subdirectory;
        let files: Vec<&File> = self.desired.files.iter().filter(|file| file.delivery == Delivery::Tree).collect();
        let tree = self.engine.source.tree(commit, subdirectory, &files).await?;
        let (flake, limit) = (tree.flake(subdirectory)?, self.desired.limits.build);
        let Evaluated { derivation, system } =
            self.engine.builder.evaluate(&flake, &self.desired.system, limit).await?;
        Ok(Seen::Evaluated { derivation, system })
    }

    /// Every check, at the same time, over a connection that was made just now. A host that cannot be connected to is as
    /// unwell as one whose service does not answer.
    async fn health(&self, progress: &Progress) -> Result<Seen, Fault> {
        let host = self.engine.host;
        let patience = self.desired.limits.confirm / 2;
        let begun = Instant::now();
        let patient = |limit: Duration| limit.min(patience);
        loop {
            match host.reconnect().await {
                Ok(()) => break,
                Err(fault) if fault.may_pass && begun.elapsed() < patient(Duration::from_secs(60)) => {
                    tokio::time::sleep(CHECK_AGAIN).await;
                }
                Err(fault) => return Ok(Seen::Unhealthy(format!("no new connection: {fault}"))),
            }
        }
        let checks = self.desired.health.iter().map(|check| self.hold(check, patient(check.timeout)));
        let units = self.no_new_failures(progress, patient(Duration::from_secs(30)));
        let (checks, units) = tokio::join!(futures::future::join_all(checks), units);
        let wrong: Vec<String> = std::iter::once(units).chain(checks).filter_map(Result::err).collect();
        Ok(if wrong.is_empty() { Seen::Healthy } else { Seen::Unhealthy(wrong.join("; ")) })
    }

    /// Asks until it holds or its time is over.
    async fn hold(&self, check: &HealthCheck, limit: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
            let once = HealthCheck { timeout: left, ..check.clone() };
            let why = match self.engine.host.check(&once).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(fault) => fault.to_string(),
            };
            if begun.elapsed() + CHECK_AGAIN >= limit {
                return Err(format!("{}: {why}", check.name));
            }
            tokio::time::sleep(CHECK_AGAIN).await;
        }
    }

    /// No unit fails that did not fail before.
    async fn no_new_failures(&self, progress: &Progress, limit: Duration) -> Result<(), String> {
        let failed = |running: &Running| running.failed_units.iter().cloned().collect::<BTreeSet<_>>();
        let before = progress.before.as_ref().map(failed).unwrap_or_default();
        let begun = Instant::now();
        loop {
            let why = match self.engine.host.running().await {
                Ok(running) => {
                    let new: Vec<_> = failed(&running).difference(&before).cloned().collect();
                    // A unit that has failed stays so: waiting would change nothing.
                    return if new.is_empty() { Ok(()) } else { Err(format!("failed units: {}", new.join(", "))) };
                }
                Err(fault) => fault.to_string(),
            };
            if begun.elapsed() + CHECK_AGAIN >= limit {
                return Err(why);
            }
            tokio::time::sleep(CHECK_AGAIN).await;
        }
    }
}

/// The plan never asks for an effect before what it needs is known.
fn wanted<'p, T>(value: &'p Option<T>, what: &str) -> Result<&'p T, Fault> {
    let missing = || Fault::lasting(ErrorKind::Failed, errors::MACHINE_STATE, format!("the deployment has no {what}"));
    value.as_ref().ok_or_else(missing)
}
