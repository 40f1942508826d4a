//! What the engine needs of the world: Git, Nix, one machine, and places to write things down.

use std::future::Future;
use std::time::Duration;

use crate::model::{
    Activation, Commit, DeploymentId, Desired, File, HealthCheck, Placement, Preview, Running, StorePath, SystemName,
};
use crate::plan::Fault;

/// A repository of configurations.
pub trait Source: Send + Sync {
    /// The files of one commit; gone when the value is.
    type Tree: Tree;

    /// Which commit a branch, a tag or a commit's own hash means, exactly.
    fn resolve(&self, reference: &str) -> impl Future<Output = Result<Commit, Fault>> + Send;

    /// The files of a commit, with these put beside them, below the directory of the flake. None can land outside of the
    /// tree, whatever its path and whatever links the repository has.
    fn tree(
        &self,
        commit: &Commit,
        subdirectory: &str,
        files: &[&File],
    ) -> impl Future<Output = Result<Self::Tree, Fault>> + Send;
}

/// The files of a commit.
pub trait Tree: Send + Sync {
    /// What Nix calls the flake in a directory of it.
    fn flake(&self, subdirectory: &str) -> Result<String, Fault>;
}

/// What a flake wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// Path of the derivation.
    pub derivation: String,
    /// Where its result will be.
    pub system: StorePath,
}

/// Nix.
pub trait Builder: Send + Sync {
    /// Evaluates a system of a flake, in a process of its own with limits of its own.
    fn evaluate(
        &self,
        flake: &str,
        system: &SystemName,
        limit: Duration,
    ) -> impl Future<Output = Result<Evaluated, Fault>> + Send;

    /// Builds, where it is to be built, and keeps the result from being collected until `copy` is done.
    fn build(
        &self,
        evaluated: &Evaluated,
        placement: &Placement,
        limit: Duration,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Brings the system into the machine's store.
    fn copy(
        &self,
        system: &StorePath,
        placement: &Placement,
        limit: Duration,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What an activation is begun with.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// Its name on the host.
    pub deployment: DeploymentId,
    /// The system to try.
    pub system: &'a StorePath,
    /// From arming to confirming.
    pub confirm: Duration,
}

/// One machine.
pub trait Host: Send + Sync {
    /// What it runs.
    fn running(&self) -> impl Future<Output = Result<Running, Fault>> + Send;

    /// What activating a system that is in its store would do.
    fn preview(&self, system: &StorePath) -> impl Future<Output = Result<Preview, Fault>> + Send;

    /// Puts files onto it, each as a whole or not at all.
    fn deliver(&self, deployment: DeploymentId, files: &[File]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Begins an activation: the way back is armed first. Begun already, it does nothing; held by another, it says so.
    /// Returns as soon as the host goes on by itself.
    fn begin(&self, order: &Order<'_>) -> impl Future<Output = Result<(Activation, Running), Fault>> + Send;

    /// How far an activation is.
    fn activation(&self, deployment: DeploymentId)
    -> impl Future<Output = Result<(Activation, Running), Fault>> + Send;

    /// Keeps the system that is on trial, unless its time is over.
    fn confirm(&self, deployment: DeploymentId) -> impl Future<Output = Result<(Activation, Running), Fault>> + Send;

    /// Takes the old system back, unless the new one is confirmed.
    fn roll_back(&self, deployment: DeploymentId) -> impl Future<Output = Result<(Activation, Running), Fault>> + Send;

    /// Removes what the host keeps of a deployment that has ended.
    fn forget(&self, deployment: DeploymentId) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes a new connection, and everything from here on goes over it.
    fn reconnect(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks one health check once. The inner error says why it does not hold.
    fn check(&self, check: &HealthCheck) -> impl Future<Output = Result<Result<(), String>, Fault>> + Send;
}

/// Who is told how a deployment goes.
pub trait Watcher: Send + Sync {
    /// A phase was entered, or something in it is worth a line.
    fn told(&self, desired: &Desired, event: &Event<'_>);
}

/// What a [`Watcher`] is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A phase was entered.
    Phase(crate::plan::Phase),
    /// It waits, for this reason.
    Waiting(&'a str),
    /// An earlier deployment is taken up again.
    TakenUp(DeploymentId),
}
