//! Nix as the engine's builder, for one machine.

use std::time::Duration;

use cairn_core::{ErrorKind, chain};
use sha2::{Digest as _, Sha256};

use super::nix::{Error, Evaluated as NixEvaluated, Nix, Place};
use super::ssh::{Ssh, fault as ssh_fault};
use crate::errors;
use crate::model::{MachineName, Placement, StorePath, SystemName};
use crate::plan::Fault;
use crate::ports::{Builder, Evaluated};

/// What builds for one machine: here, there, or on a third one.
#[derive(Debug)]
pub struct NixBuilder<'a> {
    nix: &'a Nix,
    machine: &'a Ssh,
    builder: Option<&'a Ssh>,
    root: String,
}

impl<'a> NixBuilder<'a> {
    /// For a machine; `builder` is the one that builds where the configuration names one. Whatever is built is held under
    /// a name of the machine's, which a killed process leaves and the next one takes over.
    pub fn new(nix: &'a Nix, name: &MachineName, machine: &'a Ssh, builder: Option<&'a Ssh>) -> Self {
        // A name may have dots and be long, a root may not.
        let digest = Sha256::digest(name.as_str());
        let root = digest.iter().take(16).fold("machine-".to_owned(), |root, byte| format!("{root}{byte:02x}"));
        Self { nix, machine, builder, root }
    }

    /// Gives up what was held from being collected, here and where it was built and brought to.
    pub async fn release(&self, placement: &Placement) {
        if let Err(error) = self.nix.release(&self.root) {
            tracing::warn!(root = self.root, error = chain(&error), "a root of the collector stays");
        }
        let remote = match placement {
            Placement::Builder(_) => self.builder.into_iter().chain([self.machine]).collect(),
            _ => vec![self.machine],
        };
        for host in remote {
            let Ok(connection) = host.connection().await else { continue };
            if let Err(error) = self.nix.release_there(&connection, &self.root).await {
                tracing::warn!(root = self.root, error = chain(&error), "a root of the collector stays on a machine");
            }
        }
    }

    fn place(&self, placement: &Placement) -> Result<Option<&'a Ssh>, Fault> {
        match (placement, self.builder) {
            (Placement::Controller, _) => Ok(None),
            (Placement::Machine, _) => Ok(Some(self.machine)),
            (Placement::Builder(_), Some(builder)) => Ok(Some(builder)),
            (Placement::Builder(name), None) => {
                let message = format!("nothing is known of the builder {name}");
                Err(Fault::lasting(ErrorKind::NotFound, errors::MACHINE_NOT_FOUND, message))
            }
        }
    }
}

impl Builder for NixBuilder<'_> {
    async fn evaluate(&self, flake: &str, system: &SystemName, limit: Duration) -> Result<Evaluated, Fault> {
        let evaluated = self.nix.evaluate(flake, system.as_str(), &self.root, limit).await;
        let evaluated = evaluated.map_err(|error| fault(&error, errors::MACHINE_EVALUATION))?;
        let system = evaluated.output.parse::<StorePath>();
        let system =
            system.map_err(|error| Fault::lasting(ErrorKind::Failed, errors::MACHINE_EVALUATION, error.to_string()))?;
        Ok(Evaluated { derivation: evaluated.derivation, system })
    }

    async fn build(&self, evaluated: &Evaluated, placement: &Placement, limit: Duration) -> Result<(), Fault> {
        let connection = match self.place(placement)? {
            None => None,
            Some(host) => Some(host.connection().await?),
        };
        let place = connection.as_ref().map_or(Place::Here, Place::There);
        let (derivation, output) = (evaluated.derivation.clone(), evaluated.system.to_string());
        let built = self.nix.build(&NixEvaluated { derivation, output }, place, &self.root, None, limit).await;
        built.map_err(|error| fault(&error, errors::MACHINE_BUILD))
    }

    async fn copy(&self, system: &StorePath, placement: &Placement, limit: Duration) -> Result<(), Fault> {
        if *placement == Placement::Machine {
            return Ok(());
        }
        let from = match self.place(placement)? {
            None => None,
            Some(host) => Some(host.connection().await?),
        };
        let place = from.as_ref().map_or(Place::Here, Place::There);
        let to = self.machine.connection().await?;
        let copied = self.nix.copy(system.as_str(), place, &to, &self.root, None, limit).await;
        copied.map_err(|error| fault(&error, errors::MACHINE_COPY))
    }
}

/// What Nix says, sorted.
pub fn fault(error: &Error, code: &'static str) -> Fault {
    if let Error::Ssh(error) = error {
        return ssh_fault(error);
    }
    let code = match error {
        Error::EvaluationOutOfMemory { .. } => errors::MACHINE_EVALUATION_MEMORY,
        _ => code,
    };
    let mut log = error.tail().join("\n");
    if log.is_empty() {
        log = error.hint().unwrap_or_default().to_owned();
    }
    Fault { kind: error.kind(), code, message: chain(error), log, may_pass: false }
}
