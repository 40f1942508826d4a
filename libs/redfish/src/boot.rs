//! The boot override: from the CD once, and back to normal.

use serde_json::{Value, json};

use crate::client::Call;
use crate::discovery::Bmc;
use crate::error::Error;
use crate::model::{Boot, System};
use crate::options::Phase;
use crate::retry::Poll;
use crate::vendor::Vendor;

/// Supermicro boards whose virtual CD is `Cd` although they list `UsbCd` (from reports, not tried).
const SUPERMICRO_CD: [&str; 1] = ["ARS-111GL-NHR"];

/// Firmware interface to boot with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    Uefi,
    /// BIOS.
    Legacy,
}

impl BootMode {
    fn name(self) -> &'static str {
        match self {
            Self::Uefi => "UEFI",
            Self::Legacy => "Legacy",
        }
    }
}

/// The override as it read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootOverride {
    /// `BootSourceOverrideEnabled`.
    pub enabled: Option<String>,
    /// `BootSourceOverrideTarget`.
    pub target: Option<String>,
    /// `BootSourceOverrideMode`.
    pub mode: Option<String>,
    /// What is not as it was asked for.
    pub warnings: Vec<BootWarning>,
}

/// Something about an override that the caller may want to log; it does not keep the machine from booting the CD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootWarning {
    /// `Once` was asked for and `Continuous` reads back: the override has to be cleared before the next boot.
    OnceReadsContinuous,
    /// The mode was refused; the machine boots in the one it has.
    ModeRefused,
    /// The change is pending until the next reset and cannot be seen before.
    Pending,
}

impl Bmc {
    /// Makes the next boot, and only that, start from the virtual CD. Insert the image first: some services refuse the
    /// other order.
    ///
    /// `mode` of `None` leaves the mode alone, except on iDRAC, iLO and Supermicro, which want one: they get the mode
    /// they have, UEFI where they do not say.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the BMC lists no CD among its boot sources, [`Error::Protocol`] when it accepts the
    /// order and another source reads back, and those of any request.
    pub async fn boot_once_from_cd(&self, phase: Phase, mode: Option<BootMode>) -> Result<BootOverride, Error> {
        let system: System = self.client.get(phase, &self.system).await?.value;
        let boot = system.boot.clone().unwrap_or_default();
        let target = cd_target(self.client.vendor, system.model.as_deref(), boot.allowed.as_deref())?;
        let plain = json!({ "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target });
        let mut forms = vec![plain.clone()];
        if let Some(mode) = mode_to_send(self.client.vendor, mode, boot.mode.as_deref()) {
            let mut with_mode = plain;
            with_mode["BootSourceOverrideMode"] = mode.into();
            forms.insert(0, with_mode);
        }
        let places = self.places(&system);
        let mut first = None;
        let mut left = forms.len() * places.len();
        for (place, form) in combinations(&places, &forms) {
            left -= 1;
            if let Err(error) = self.write_boot(phase, place, form, left > 0).await {
                if !is_refusal(&error) {
                    return Err(error);
                }
                first.get_or_insert(error);
                continue;
            }
            let mut result = self.read_back(phase, place, target).await?;
            if let Some(mode) = mode
                && result.mode.as_deref().is_some_and(|read| read != mode.name())
            {
                result.warnings.push(BootWarning::ModeRefused);
            }
            return Ok(result);
        }
        Err(first.unwrap_or(Error::Unsupported { what: "a boot override".to_owned() }))
    }

    /// Takes the override back, so that the machine boots as its own order says. Returns what reads back.
    ///
    /// Services differ in what they take: `Disabled` alone, with target `None`, with another target (iLO); one that
    /// knows no `Disabled` at all gets the disk as its target, which does no harm. Every form is checked by reading.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the override still points elsewhere, the first refusal when every form was refused, and
    /// those of any request.
    pub async fn clear_boot_override(&self, phase: Phase) -> Result<BootOverride, Error> {
        let system: System = self.client.get(phase, &self.system).await?.value;
        let mut boot = system.boot.clone().unwrap_or_default();
        if is_harmless(&boot) {
            return Ok(BootOverride::of(&boot));
        }
        let places = self.places(&system);
        let mut refusal = None;
        let mut accepted = false;
        for form in clearing_forms(self.client.vendor) {
            for place in &places {
                match self.write_boot(phase, place, &form, true).await {
                    Ok(()) => accepted = true,
                    Err(error) if is_refusal(&error) => {
                        refusal.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                // Services that take a moment get two looks; longer waits are for those that obey.
                let mut poll = Poll::new(phase.within(self.client.options.poll.0 * 3), self.client.options.poll);
                loop {
                    boot = self.read_boot(phase, place).await?;
                    if is_harmless(&boot) {
                        return Ok(BootOverride::of(&boot));
                    }
                    if !poll.wait().await {
                        break;
                    }
                }
            }
        }
        match refusal {
            Some(refusal) if !accepted => Err(refusal),
            _ => Err(self.unexpected("the boot override cannot be cleared", &boot)),
        }
    }

    /// Where the override may be written, the likelier place first. AMI takes it at the settings object only; the others
    /// have one for other purposes and may refuse it there.
    fn places(&self, system: &System) -> Vec<String> {
        let settings = system.settings.as_ref().and_then(|settings| settings.object.as_ref()?.address());
        let mut places = vec![self.system.clone()];
        if let Some(settings) = settings.filter(|settings| *settings != self.system) {
            let at = if self.client.vendor == Vendor::Ami { 0 } else { 1 };
            places.insert(at, settings.to_owned());
        }
        places
    }

    async fn write_boot(&self, phase: Phase, place: &str, boot: &Value, probe: bool) -> Result<(), Error> {
        let body = json!({ "Boot": boot });
        let call = Call::patch(phase, place, &body);
        self.client.write(&if probe { call.probe() } else { call }).await.map(|_| ())
    }

    async fn read_boot(&self, phase: Phase, place: &str) -> Result<Boot, Error> {
        let system: System = self.client.get(phase, place).await?.value;
        Ok(system.boot.unwrap_or_default())
    }

    /// Waits until the override reads back. At a settings object one look has to do: the system follows at its reset.
    async fn read_back(&self, phase: Phase, place: &str, target: &str) -> Result<BootOverride, Error> {
        let mut poll = Poll::new(phase.within(self.client.options.settle), self.client.options.poll);
        loop {
            let boot = self.read_boot(phase, place).await?;
            let mut result = BootOverride::of(&boot);
            let aimed = boot.target.as_deref() == Some(target) && boot.enabled.as_deref() != Some("Disabled");
            if aimed {
                if boot.enabled.as_deref() == Some("Continuous") {
                    result.warnings.push(BootWarning::OnceReadsContinuous);
                }
                return Ok(result);
            }
            if place != self.system {
                result.warnings.push(BootWarning::Pending);
                return Ok(result);
            }
            if !poll.wait().await {
                return Err(self.unexpected("the boot override was accepted and not kept", &boot));
            }
        }
    }

    fn unexpected(&self, problem: &str, boot: &Boot) -> Error {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        let problem = format!("{problem}: it reads {} {}", shown(&boot.enabled), shown(&boot.target));
        Error::protocol(&self.client.clean(&self.system), self.client.clean(&problem))
    }
}

impl BootOverride {
    fn of(boot: &Boot) -> Self {
        Self {
            enabled: boot.enabled.clone(),
            target: boot.target.clone(),
            mode: boot.mode.clone(),
            warnings: Vec::new(),
        }
    }
}

/// The service says that it does not take this form, here.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Http { status: 400 | 403 | 404 | 405 | 409 | 412 | 422 | 500 | 501, .. })
}

/// The override makes the machine boot nothing but its own order or its disk.
fn is_harmless(boot: &Boot) -> bool {
    boot.enabled.as_deref() == Some("Disabled") || matches!(boot.target.as_deref(), None | Some("" | "None" | "Hdd"))
}

/// Every form at the first place, then every form at the next.
fn combinations<'a>(places: &'a [String], forms: &'a [Value]) -> Vec<(&'a String, &'a Value)> {
    places.iter().flat_map(|place| forms.iter().map(move |form| (place, form))).collect()
}

/// Ways to take an override back, the standard's first.
fn clearing_forms(vendor: Vendor) -> Vec<Value> {
    let with = |target: &str| json!({ "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": target });
    let mut forms = vec![json!({ "BootSourceOverrideEnabled": "Disabled" }), with("None")];
    if vendor == Vendor::Ilo {
        forms.insert(1, with("Pxe"));
    }
    forms.push(json!({ "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Hdd" }));
    forms
}

/// The name of the virtual CD among the boot sources. A service that lists none is believed to know `Cd`.
fn cd_target(vendor: Vendor, model: Option<&str>, allowed: Option<&[String]>) -> Result<&'static str, Error> {
    let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) else { return Ok("Cd") };
    let usb = vendor == Vendor::Supermicro && !model.is_some_and(|model| SUPERMICRO_CD.contains(&model));
    let order = if usb { ["UsbCd", "Cd"] } else { ["Cd", "UsbCd"] };
    let found = order.into_iter().find(|target| allowed.iter().any(|known| known == target));
    found.ok_or_else(|| Error::Unsupported { what: format!("booting from a CD: it knows only {}", allowed.join(", ")) })
}

/// The mode to send along, where one is asked for or the family wants one.
fn mode_to_send(vendor: Vendor, asked: Option<BootMode>, current: Option<&str>) -> Option<String> {
    let wants_one = matches!(vendor, Vendor::Idrac | Vendor::Ilo | Vendor::Supermicro);
    match asked {
        Some(mode) => Some(mode.name().to_owned()),
        None if wants_one => Some(current.unwrap_or("UEFI").to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_vendor_and_list() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let both = list(&["None", "UsbCd", "Cd"]);
        assert_eq!(cd_target(Vendor::Generic, None, None).unwrap(), "Cd");
        assert_eq!(cd_target(Vendor::Generic, None, Some(&both)).unwrap(), "Cd");
        assert_eq!(cd_target(Vendor::Supermicro, Some("X12"), Some(&both)).unwrap(), "UsbCd");
        assert_eq!(cd_target(Vendor::Supermicro, Some("ARS-111GL-NHR"), Some(&both)).unwrap(), "Cd");
        assert_eq!(cd_target(Vendor::Generic, None, Some(&list(&["UsbCd"]))).unwrap(), "UsbCd");
        let error = cd_target(Vendor::Generic, None, Some(&list(&["Pxe", "Hdd"]))).unwrap_err();
        assert_eq!(error.to_string(), "the BMC cannot do this: booting from a CD: it knows only Pxe, Hdd");
    }

    #[test]
    fn a_mode_is_sent_only_where_it_is_wanted() {
        assert_eq!(mode_to_send(Vendor::Generic, None, Some("UEFI")), None);
        assert_eq!(mode_to_send(Vendor::Generic, Some(BootMode::Legacy), Some("UEFI")).as_deref(), Some("Legacy"));
        assert_eq!(mode_to_send(Vendor::Ilo, None, Some("Legacy")).as_deref(), Some("Legacy"));
        assert_eq!(mode_to_send(Vendor::Supermicro, None, None).as_deref(), Some("UEFI"));
    }
}
