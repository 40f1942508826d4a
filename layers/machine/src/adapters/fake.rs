//! A repository, Nix and a machine that are none, and keep the real ones' rules: one deployment has the machine, the
//! verdict is taken once, a trial that nobody confirms goes back, a restart brings what the profile says. Troubles are
//! ordered by the number of the question.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::errors;
use crate::model::{
    Activation, Commit, DeploymentId, File, HealthCheck, Placement, Preview, Running, StorePath, SystemName,
};
use crate::plan::Fault;
use crate::ports::{Builder, Evaluated, Host, Order, Source, Tree};

/// What goes wrong with one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The asking process is killed before the question arrives.
    KilledBefore,
    /// It is killed after what was asked for was done, before it knows.
    KilledAfter,
    /// The question does not arrive.
    Unasked,
    /// It is done, and the answer does not arrive.
    Unanswered,
}

/// How a deployment is on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trial {
    Tried { new: StorePath },
    Confirmed,
    RolledBack { reason: String },
}

#[derive(Debug)]
struct State {
    commit: Commit,
    wanted: StorePath,
    current: StorePath,
    profile: StorePath,
    boot: u32,
    has: Vec<StorePath>,
    built: u32,
    trials: BTreeMap<String, Trial>,
    forgotten: u32,
    /// Systems in the order in which they were activated.
    activated: Vec<StorePath>,
    confirmed: u32,
    delivered: u32,
    healthy: bool,
    activation_fails: bool,
    fresh: bool,
    asked: usize,
    troubles: BTreeMap<usize, Trouble>,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    /// Told when the asking process is to be killed.
    pub killed: Notify,
}

/// A tree without files.
#[derive(Debug)]
pub struct NoFiles;

impl Tree for NoFiles {
    fn flake(&self, _subdirectory: &str) -> Result<String, Fault> {
        Ok("git+file:///nowhere".to_owned())
    }
}

impl World {
    /// A machine that runs `current`, and a repository that wants `wanted`.
    pub fn new(commit: Commit, current: &StorePath, wanted: &StorePath) -> Self {
        let state = State {
            commit,
            wanted: wanted.clone(),
            current: current.clone(),
            profile: current.clone(),
            boot: 1,
            has: vec![current.clone()],
            built: 0,
            trials: BTreeMap::new(),
            forgotten: 0,
            activated: Vec::new(),
            confirmed: 0,
            delivered: 0,
            healthy: true,
            activation_fails: false,
            fresh: false,
            asked: 0,
            troubles: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), killed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders trouble for the question with this number, counted from 0 since the world was made.
    pub fn trouble(&self, question: usize, trouble: Trouble) {
        self.state().troubles.insert(question, trouble);
    }

    /// Whether the new system does what it should.
    pub fn set_healthy(&self, healthy: bool) {
        self.state().healthy = healthy;
    }

    /// Whether activating the new system ends badly.
    pub fn set_activation_fails(&self, fails: bool) {
        self.state().activation_fails = fails;
    }

    /// How many questions were asked.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// What runs, and what would start.
    pub fn systems(&self) -> (StorePath, StorePath) {
        let state = self.state();
        (state.current.clone(), state.profile.clone())
    }

    /// Systems in the order in which they were activated.
    pub fn activated(&self) -> Vec<StorePath> {
        self.state().activated.clone()
    }

    /// How often a system was confirmed, and files delivered.
    pub fn counts(&self) -> (u32, u32) {
        let state = self.state();
        (state.confirmed, state.delivered)
    }

    /// Whether a way back is armed.
    pub fn is_armed(&self) -> bool {
        self.state().holder().is_some()
    }

    /// The time of every trial is over.
    pub fn fire_timer(&self) {
        let mut state = self.state();
        if let Some(holder) = state.holder() {
            state.take_back(&holder, "it was not confirmed in time");
        }
    }

    /// The machine is switched off and on: what is not on its disk is gone.
    pub fn restart(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.trials.clear();
        state.current = state.profile.clone();
    }

    /// One question: in good order, or with the trouble that was ordered for it.
    async fn question<T>(&self, answer: impl FnOnce(&mut State) -> T + Send) -> Result<T, Fault> {
        let (trouble, mut answer) = {
            let mut state = self.state();
            let trouble = state.troubles.get(&state.asked).copied();
            state.asked += 1;
            let is_done = !matches!(trouble, Some(Trouble::KilledBefore | Trouble::Unasked));
            (trouble, is_done.then(|| answer(&mut state)))
        };
        let lost = || Fault::passing(errors::MACHINE_UNREACHABLE, "the machine does not answer");
        match trouble {
            Some(Trouble::KilledBefore | Trouble::KilledAfter) => {
                drop(answer.take());
                self.killed.notify_one();
                pending().await
            }
            Some(Trouble::Unasked | Trouble::Unanswered) => Err(lost()),
            None => answer.ok_or_else(lost),
        }
    }
}

impl State {
    fn holder(&self) -> Option<String> {
        let held = self.trials.iter().find(|(_, trial)| matches!(trial, Trial::Tried { .. }));
        held.map(|(id, _)| id.clone())
    }

    fn activate(&mut self, system: &StorePath) {
        self.current = system.clone();
        self.activated.push(system.clone());
    }

    fn take_back(&mut self, id: &str, reason: &str) {
        if matches!(self.trials.get(id), Some(Trial::Tried { .. })) {
            let old = self.profile.clone();
            self.activate(&old);
            self.trials.insert(id.to_owned(), Trial::RolledBack { reason: reason.to_owned() });
        }
    }

    fn running(&self) -> Running {
        Running {
            boot_id: self.boot.to_string(),
            current: Some(self.current.clone()),
            booted: Some(self.profile.clone()),
            profile: Some(self.profile.clone()),
            ..Running::default()
        }
    }

    fn told(&self, id: &str) -> (Activation, Running) {
        let activation = match (self.trials.get(id), self.holder()) {
            (Some(Trial::Tried { .. }), _) => Activation::OnTrial,
            (Some(Trial::Confirmed), _) => Activation::Confirmed,
            (Some(Trial::RolledBack { reason }), _) => {
                Activation::RolledBack { reason: reason.clone(), log: String::new() }
            }
            (None, Some(holder)) => Activation::Held { holder, age: Duration::from_secs(1) },
            (None, None) => Activation::Absent,
        };
        (activation, self.running())
    }
}

impl Source for World {
    type Tree = NoFiles;

    async fn resolve(&self, _reference: &str) -> Result<Commit, Fault> {
        self.question(|state| state.commit.clone()).await
    }

    async fn tree(&self, _: &Commit, _: &str, _: &[&File]) -> Result<NoFiles, Fault> {
        self.question(|_| NoFiles).await
    }
}

impl Builder for World {
    async fn evaluate(&self, _: &str, _: &SystemName, _: Duration) -> Result<Evaluated, Fault> {
        let derivation = "/nix/store/9c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system.drv".to_owned();
        self.question(|state| Evaluated { derivation, system: state.wanted.clone() }).await
    }

    async fn build(&self, _: &Evaluated, _: &Placement, _: Duration) -> Result<(), Fault> {
        self.question(|state| state.built += 1).await
    }

    async fn copy(&self, system: &StorePath, _: &Placement, _: Duration) -> Result<(), Fault> {
        self.question(|state| state.has.push(system.clone())).await
    }
}

impl Host for World {
    async fn running(&self) -> Result<Running, Fault> {
        self.question(|state| state.running()).await
    }

    async fn preview(&self, _: &StorePath) -> Result<Preview, Fault> {
        self.question(|_| Preview { restart: vec!["web.service".to_owned()], ..Preview::default() }).await
    }

    async fn deliver(&self, _: DeploymentId, _: &[File]) -> Result<(), Fault> {
        self.question(|state| state.delivered += 1).await
    }

    async fn begin(&self, order: &Order<'_>) -> Result<(Activation, Running), Fault> {
        let (id, new) = (order.deployment.to_string(), order.system.clone());
        self.question(|state| {
            if state.holder().is_none() && !state.trials.contains_key(&id) && state.has.contains(&new) {
                state.fresh = false;
                state.activate(&new);
                state.trials.insert(id.clone(), Trial::Tried { new });
                if state.activation_fails {
                    state.take_back(&id, "the activation ended with 4");
                }
            }
            state.told(&id)
        })
        .await
    }

    async fn activation(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        self.question(|state| state.told(&deployment.to_string())).await
    }

    async fn confirm(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        let id = deployment.to_string();
        self.question(|state| {
            if let Some(Trial::Tried { new }) = state.trials.get(&id).cloned() {
                state.profile = new;
                state.confirmed += 1;
                state.trials.insert(id.clone(), Trial::Confirmed);
            }
            state.told(&id)
        })
        .await
    }

    async fn roll_back(&self, deployment: DeploymentId) -> Result<(Activation, Running), Fault> {
        let id = deployment.to_string();
        self.question(|state| {
            state.take_back(&id, "its health was not good");
            state.told(&id)
        })
        .await
    }

    async fn forget(&self, deployment: DeploymentId) -> Result<(), Fault> {
        let id = deployment.to_string();
        self.question(|state| {
            if !matches!(state.trials.get(&id), Some(Trial::Tried { .. })) {
                state.trials.remove(&id);
                state.forgotten += 1;
            }
        })
        .await
    }

    async fn reconnect(&self) -> Result<(), Fault> {
        self.question(|state| state.fresh = true).await
    }

    async fn check(&self, _: &HealthCheck) -> Result<Result<(), String>, Fault> {
        self.question(|state| match (state.fresh, state.healthy) {
            (false, _) => Err("it was asked over a connection from before the activation".to_owned()),
            (true, false) => Err("it answers 500".to_owned()),
            (true, true) => Ok(()),
        })
        .await
    }
}
