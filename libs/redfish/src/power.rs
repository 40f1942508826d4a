//! Power: reading it, switching it, waiting for it.

use serde_json::json;

use crate::client::Call;
use crate::discovery::Bmc;
use crate::error::Error;
use crate::model::System;
use crate::options::Phase;
use crate::retry::Poll;

/// Power state of a system (`PowerState`, DSP0268).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// Running.
    On,
    /// Not running.
    Off,
    /// On the way to on.
    PoweringOn,
    /// On the way to off.
    PoweringOff,
    /// The BMC does not say, or says something else.
    Unknown,
}

impl PowerState {
    pub(crate) fn read(text: Option<&str>) -> Self {
        match text {
            Some("On") => Self::On,
            Some("Off") => Self::Off,
            Some("PoweringOn") => Self::PoweringOn,
            Some("PoweringOff") => Self::PoweringOff,
            _ => Self::Unknown,
        }
    }
}

/// What a reset is for. A restart is not among them: on a machine that is off several services answer it with success
/// and do nothing, and a warm restart does not pick up new media everywhere. Off, then on, works everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetIntent {
    /// Switch on.
    On,
    /// Cut the power.
    ForceOff,
    /// Ask the operating system to shut down; whether it does is for [`Bmc::wait_for_power`] to see.
    GracefulShutdown,
}

/// What became of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetOutcome {
    /// The BMC took the order; the power state follows later.
    Accepted,
    /// The machine was there already; nothing was sent.
    AlreadyThere,
}

impl ResetIntent {
    /// The state that it leads to.
    pub fn target(self) -> PowerState {
        match self {
            Self::On => PowerState::On,
            Self::ForceOff | Self::GracefulShutdown => PowerState::Off,
        }
    }

    /// Values of `ResetType` that do this to a machine in the other state, best first.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::On => &["On", "ForceOn"],
            Self::ForceOff => &["ForceOff"],
            Self::GracefulShutdown => &["GracefulShutdown", "PushPowerButton"],
        }
    }

    /// The type to send. A service that lists none is asked for the usual one.
    fn choose(self, allowed: Option<&[String]>) -> Option<&'static str> {
        match allowed.filter(|allowed| !allowed.is_empty()) {
            None => self.types().first().copied(),
            Some(allowed) => self.types().iter().copied().find(|kind| allowed.iter().any(|known| known == kind)),
        }
    }

    /// Whether a machine in `state` is on its way there.
    fn under_way(self, state: PowerState) -> bool {
        match self.target() {
            PowerState::On => matches!(state, PowerState::On | PowerState::PoweringOn),
            _ => matches!(state, PowerState::Off | PowerState::PoweringOff),
        }
    }
}

impl Bmc {
    /// Reads the power state.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn power_state(&self, phase: Phase) -> Result<PowerState, Error> {
        let system: System = self.client.get(phase, &self.system).await?.value;
        Ok(PowerState::read(system.power_state.as_deref()))
    }

    /// Sends the reset that fits, unless the machine is there already. Returns when the BMC has taken the order.
    ///
    /// An order whose answer was lost is not sent again blindly: the power state is watched first, and only when
    /// nothing moves within `Options::settle` is it sent once more. A graceful shutdown never is, because a machine
    /// that is shutting down reads On until it is off.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the BMC has no reset of that kind, and those of any request.
    pub async fn reset(&self, phase: Phase, intent: ResetIntent) -> Result<ResetOutcome, Error> {
        let system: System = self.client.get(phase, &self.system).await?.value;
        if PowerState::read(system.power_state.as_deref()) == intent.target() {
            return Ok(ResetOutcome::AlreadyThere);
        }
        let action = system.actions.and_then(|actions| actions.reset).unwrap_or_default();
        let Some(target) = action.target.filter(|target| !target.is_empty()) else {
            return Err(Error::Unsupported { what: "reset: the system has no such action".to_owned() });
        };
        let allowed = action.allowed.as_deref();
        let Some(kind) = intent.choose(allowed) else {
            let known = allowed.unwrap_or_default().join(", ");
            return Err(Error::Unsupported { what: format!("{intent:?}: it knows only {known}") });
        };
        let body = json!({ "ResetType": kind });
        match self.client.send(&Call::post(phase, &target, &body)).await {
            Ok(_) => return Ok(ResetOutcome::Accepted),
            Err(Error::NoAnswer { .. }) => {}
            // Some services answer an error when the machine got there by itself meanwhile.
            Err(error @ Error::Http { .. }) => {
                let there = self.power_state(phase).await.is_ok_and(|state| state == intent.target());
                return if there { Ok(ResetOutcome::AlreadyThere) } else { Err(error) };
            }
            Err(error) => return Err(error),
        }
        let settle = phase.within(self.client.options.settle);
        let mut poll = Poll::new(settle, self.client.options.poll);
        loop {
            match self.power_state(settle).await {
                Ok(state) if intent.under_way(state) => return Ok(ResetOutcome::Accepted),
                Err(error) if error.is_lasting() => return Err(error),
                _ => {}
            }
            if !poll.wait().await {
                break;
            }
        }
        if intent == ResetIntent::GracefulShutdown {
            return Ok(ResetOutcome::Accepted);
        }
        self.client.send(&Call::post(phase, &target, &body)).await.map(|_| ResetOutcome::Accepted)
    }

    /// Waits until the machine is in `state`, looking every 1 to 5 s (`Options::poll`) until the phase ends. That the
    /// BMC is away for a while, as many are around a reset, does not end the wait.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the last failure as its source where the BMC did not answer; [`Error::Auth`] and TLS
    /// failures at once.
    pub async fn wait_for_power(&self, phase: Phase, state: PowerState) -> Result<(), Error> {
        let mut poll = Poll::new(phase, self.client.options.poll);
        let mut last = None;
        loop {
            match self.power_state(phase).await {
                Ok(now) if now == state => return Ok(()),
                Ok(_) => last = None,
                Err(error) if error.is_lasting() => return Err(error),
                Err(error @ Error::Timeout { .. }) => return Err(error.after(last)),
                Err(error) => last = Some(Box::new(error)),
            }
            if !poll.wait().await {
                return Err(Error::Timeout { phase: phase.op, source: last });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_chosen_from_what_is_allowed() {
        let allowed = |list: &[&str]| list.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        assert_eq!(ResetIntent::On.choose(None), Some("On"));
        assert_eq!(ResetIntent::On.choose(Some(&[])), Some("On"));
        assert_eq!(ResetIntent::On.choose(Some(&allowed(&["ForceOff", "ForceOn"]))), Some("ForceOn"));
        assert_eq!(ResetIntent::ForceOff.choose(Some(&allowed(&["On"]))), None);
        let button = allowed(&["On", "PushPowerButton"]);
        assert_eq!(ResetIntent::GracefulShutdown.choose(Some(&button)), Some("PushPowerButton"));
        assert_eq!(ResetIntent::ForceOff.choose(Some(&button)), None);
    }
}
