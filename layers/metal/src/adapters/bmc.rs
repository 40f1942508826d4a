//! A job's use of its BMC: what each effect of [`crate::plan`] means in Redfish, and how errors become failures.

use std::sync::Arc;
use std::time::Duration;

use cairn_core::chain;
use redfish::{
    Bmc, BootMode, Code, Credentials, InsertOutcome, MediaOptions, Observer, Options, Phase, PowerState, ResetIntent,
    op,
};
use url::Url;

use crate::adapters::tls;
use crate::context::Metal;
use crate::errors;
use crate::metrics::Metrics;
use crate::model::{self, BmcTls, Failure, Server};

/// Budgets of the phases (design 028). Mounting and overriding share 20 minutes there.
const DISCOVER: Duration = Duration::from_mins(5);
const MOUNT: Duration = Duration::from_mins(10);
const OVERRIDE: Duration = Duration::from_mins(5);
const SWITCH_OFF: Duration = Duration::from_mins(5);
const SWITCH_ON: Duration = Duration::from_mins(15);
const OBSERVE: Duration = Duration::from_mins(1);
const UNMOUNT: Duration = Duration::from_mins(3);

/// A BMC that was found and logged in to.
pub(crate) struct Connection {
    bmc: Bmc,
    boot_mode: Option<BootMode>,
    power_off_grace: Duration,
}

/// What a job puts into the slots.
pub(crate) struct Media {
    /// The whole in one: for one slot.
    pub(crate) boot: Url,
    /// The maintenance OS alone: first of two slots.
    pub(crate) maintenance: Url,
    /// The task alone: second of two slots.
    pub(crate) task: Url,
}

impl Connection {
    /// Logs in and finds the system and its slots.
    pub(crate) async fn open(metal: &Metal, server: &Server) -> Result<Self, Failure> {
        let step = "redfish.discover";
        let failure = |code: &str, detail: String| Failure { step: step.to_owned(), code: code.to_owned(), detail };
        let password = metal
            .key
            .open(&server.serial.password_purpose(), &server.sealed_password)
            .map_err(|error| failure(errors::PASSWORD_SEALED, chain(&error)))?;
        let base = model::BmcSpec::url_of(&server.spec.bmc.address)
            .map_err(|detail| failure(errors::BMC_UNREACHABLE, detail))?;
        let judgement = match (&server.spec.bmc.tls, metal.settings.redfish_insecure) {
            (BmcTls::System, true) => &BmcTls::Insecure,
            (tls, _) => tls,
        };
        let http = tls::builder(judgement).map_err(|error| failure(errors::BMC_TLS, chain(&error)))?;
        let options = Options {
            system: server.spec.bmc.system.clone(),
            vendor: server.spec.vendor.as_deref().and_then(redfish::Vendor::named),
            retry: metal
                .settings
                .redfish_retries
                .map(|attempts| redfish::Retry { attempts: attempts.max(1), ..Default::default() }),
            request_timeout: metal.settings.redfish_timeout,
            ..Options::default()
        };
        let credentials = Credentials { username: server.spec.bmc.username.clone(), password };
        let observer = Arc::new(Watcher(metal.metrics.clone()));
        let phase = Phase::new(op::DISCOVER, DISCOVER);
        let bmc = Bmc::connect(http, base, credentials, options, observer, phase)
            .await
            .map_err(|error| failed(step, &error))?;
        Ok(Self {
            bmc,
            boot_mode: server.spec.overrides.boot_mode.map(|mode| match mode {
                model::BootMode::Uefi => BootMode::Uefi,
                model::BootMode::Legacy => BootMode::Legacy,
            }),
            power_off_grace: metal.settings.power_off_grace,
        })
    }

    /// Whether the machine behind the BMC is the one that the record means: a wrong address must not wipe another machine.
    /// A BMC that does not know its machine's serial number is believed, and that is told.
    pub(crate) async fn identify(&self, server: &Server) -> Result<Option<String>, Failure> {
        let inventory = self
            .bmc
            .inventory(Phase::new(op::DISCOVER, DISCOVER))
            .await
            .map_err(|error| failed("redfish.discover", &error))?;
        // An id such as `1` or `System.Embedded.1` names a place on every BMC, and no machine.
        let names = [&inventory.serial_number, &inventory.sku, &inventory.uuid];
        let names: Vec<&str> =
            names.into_iter().filter_map(|name| name.as_deref()).filter(|name| says_something(name)).collect();
        let is = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        let meant = server.spec.bmc.system.as_deref().unwrap_or(server.serial.as_str());
        if is(meant) || is(server.serial.as_str()) {
            return Ok(None);
        }
        let known_by_id = inventory.system_id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(meant));
        let wanted_another = server.spec.bmc.system.is_some() && !known_by_id;
        if !wanted_another && !inventory.serial_number.as_deref().is_some_and(says_something) {
            return Ok(Some("the BMC does not tell the serial number of its machine".to_owned()));
        }
        Err(Failure {
            step: "redfish.discover".to_owned(),
            code: errors::BMC_SYSTEM.to_owned(),
            detail: format!("this BMC manages {}, and server {} is meant", names.join(" alias "), server.serial),
        })
    }

    /// Vendor as a label.
    pub(crate) fn vendor(&self) -> &str {
        self.bmc.vendor_label()
    }

    /// How many CD slots there are; none is a failure.
    pub(crate) fn slots(&self) -> Result<usize, Failure> {
        self.bmc.slots().map(<[redfish::Slot]>::len).map_err(|error| failed("redfish.discover", &error))
    }

    /// Inserts one medium or two, and says into which slots.
    pub(crate) async fn mount(&self, media: &Media, slots: model::Slots) -> Result<Vec<String>, Failure> {
        let step = "redfish.mount.maintenance";
        let found = self.bmc.slots().map_err(|error| failed(step, &error))?;
        let cds = found.iter().filter(|slot| slot.is_cd).count();
        let both = match slots {
            model::Slots::One => false,
            model::Slots::Auto => cds >= 2,
            model::Slots::Two => true,
        };
        let phase = Phase::new(op::MOUNT_MAINTENANCE, MOUNT);
        let options = MediaOptions::default();
        // What an earlier job or a person left in another slot could be taken for this job's task.
        for slot in found.iter().skip(if both { 2 } else { 1 }) {
            self.bmc.eject(phase, slot).await.map_err(|error| failed(step, &error))?;
        }
        let first = if both { &media.maintenance } else { &media.boot };
        self.insert(phase, &found[0], first, options, step).await?;
        let mut used = vec![found[0].id.clone()];
        if both {
            let step = "redfish.mount.task";
            let second = found.get(1).ok_or_else(|| Failure {
                step: step.to_owned(),
                code: errors::BMC_NO_VIRTUAL_MEDIA.to_owned(),
                detail: "the server's record asks for two slots and the BMC has one".to_owned(),
            })?;
            self.insert(phase.named(op::MOUNT_TASK), second, &media.task, options, step).await?;
            used.push(second.id.clone());
        }
        Ok(used)
    }

    async fn insert(
        &self,
        phase: Phase,
        slot: &redfish::Slot,
        url: &Url,
        options: MediaOptions,
        step: &str,
    ) -> Result<InsertOutcome, Failure> {
        self.bmc.insert(phase, slot, url, options).await.map_err(|error| failed(step, &error))
    }

    /// Boots from CD the next time. What is not quite as asked for comes back as text.
    pub(crate) async fn boot_from_cd(&self) -> Result<Vec<String>, Failure> {
        let phase = Phase::new(op::BOOT_OVERRIDE, OVERRIDE);
        let set = self
            .bmc
            .boot_once_from_cd(phase, self.boot_mode)
            .await
            .map_err(|error| failed("redfish.boot-override", &error))?;
        Ok(set.warnings.iter().map(|warning| format!("{warning:?}")).collect())
    }

    /// Off: politely first where an operating system may be running, then by cutting the power.
    pub(crate) async fn switch_off(&self, politely: bool) -> Result<(), Failure> {
        let phase = Phase::new(op::RESET, SWITCH_OFF);
        let failed = |error: redfish::Error| failed("redfish.reset", &error);
        if self.power(phase).await.map_err(failed)? == PowerState::Off {
            return Ok(());
        }
        if politely
            && !self.power_off_grace.is_zero()
            && self.bmc.reset(phase, ResetIntent::GracefulShutdown).await.is_ok()
        {
            let grace = Phase::new(op::RESET, self.power_off_grace);
            if self.bmc.wait_for_power(grace, PowerState::Off).await.is_ok() {
                return Ok(());
            }
        }
        self.bmc.reset(phase, ResetIntent::ForceOff).await.map_err(failed)?;
        self.bmc.wait_for_power(phase, PowerState::Off).await.map_err(failed)
    }

    /// On, if it is off.
    pub(crate) async fn switch_on(&self) -> Result<(), Failure> {
        let phase = Phase::new(op::RESET, SWITCH_ON);
        let failed = |error: redfish::Error| failed("redfish.reset", &error);
        if self.power(phase).await.map_err(failed)? == PowerState::On {
            return Ok(());
        }
        self.bmc.reset(phase, ResetIntent::On).await.map_err(failed)?;
        self.bmc.wait_for_power(phase, PowerState::On).await.map_err(failed)
    }

    /// The power state.
    pub(crate) async fn observe(&self) -> Result<PowerState, Failure> {
        self.power(Phase::new(op::POWER, OBSERVE)).await.map_err(|error| failed("redfish.poll", &error))
    }

    async fn power(&self, phase: Phase) -> Result<PowerState, redfish::Error> {
        self.bmc.power_state(phase.named(op::POWER)).await
    }

    /// Ejects what is in the slots that jobs use.
    pub(crate) async fn eject(&self) -> Result<(), Failure> {
        let step = "cleanup.unmount";
        let phase = Phase::new(op::CLEANUP_UNMOUNT, UNMOUNT);
        // The task first: the maintenance OS may still be reading its own.
        for slot in self.bmc.slots().map_err(|error| failed(step, &error))?.iter().take(2).rev() {
            self.bmc.eject(phase, slot).await.map_err(|error| failed(step, &error))?;
        }
        Ok(())
    }

    /// No override any more.
    pub(crate) async fn clear_override(&self) -> Result<(), Failure> {
        let phase = Phase::new(op::CLEANUP_UNMOUNT, UNMOUNT);
        self.bmc.clear_boot_override(phase).await.map(drop).map_err(|error| failed("cleanup.unmount", &error))
    }

    /// Logs out; a BMC has few sessions.
    pub(crate) async fn close(self) {
        let phase = Phase::new(op::SESSION_LOGOUT, Duration::from_secs(10));
        if let Err(error) = self.bmc.close(phase).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a BMC session stays open");
        }
    }
}

/// Whether a maker has filled a serial number in.
fn says_something(name: &str) -> bool {
    const EMPTY: [&str; 6] = ["", "unknown", "not specified", "to be filled by o.e.m.", "default string", "none"];
    !EMPTY.contains(&name.trim().to_lowercase().as_str())
}

/// The word for a power state.
pub(crate) fn power_word(power: PowerState) -> &'static str {
    match power {
        PowerState::On => "On",
        PowerState::Off => "Off",
        PowerState::PoweringOn => "PoweringOn",
        PowerState::PoweringOff => "PoweringOff",
        PowerState::Unknown => "Unknown",
    }
}

fn failed(step: &str, error: &redfish::Error) -> Failure {
    use redfish::Error;
    let code = match error {
        Error::Unreachable { .. } | Error::NoAnswer { .. } => errors::BMC_UNREACHABLE,
        Error::Tls { .. } => errors::BMC_TLS,
        Error::NoCommonCipher { .. } => errors::BMC_TLS_NO_CIPHER,
        Error::Auth { .. } => errors::BMC_AUTH,
        Error::NoSystem { .. } | Error::AmbiguousSystem { .. } => errors::BMC_SYSTEM,
        Error::NoVirtualMedia { .. } => errors::BMC_NO_VIRTUAL_MEDIA,
        Error::MediaUnreachable { .. } => errors::BMC_MEDIA_UNREACHABLE,
        Error::Timeout { source: Some(source), .. } => return failed(step, source),
        Error::Timeout { .. } => errors::BMC_TIMEOUT,
        Error::Http { .. } | Error::Protocol { .. } | Error::Unsupported { .. } => errors::BMC_ERROR,
    };
    Failure { step: step.to_owned(), code: code.to_owned(), detail: chain(error) }
}

/// Counts requests.
struct Watcher(Metrics);

impl Observer for Watcher {
    fn request(&self, op: &'static str, vendor: &str, code: Code, duration: Duration) {
        let code = code.to_string();
        self.0.bmc_requests.with([op, &code, vendor]).inc();
        self.0.bmc_duration.with([op, vendor]).observe(duration.as_secs_f64());
        tracing::debug!(
            op,
            code,
            vendor,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "BMC request"
        );
    }

    fn retry(&self, op: &'static str, vendor: &str) {
        self.0.bmc_retries.with([op, vendor]).inc();
    }
}
