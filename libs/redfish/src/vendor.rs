//! Which family of BMC answers, and what is different about it.
//!
//! The differences are written by hand from public reports about these families; none was tried on such a machine.

use std::time::Duration;

use crate::model::{ServiceRoot, System};
use crate::options::Retry;

/// A family of BMCs that needs a way of its own somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Dell iDRAC.
    Idrac,
    /// HPE iLO.
    Ilo,
    /// Lenovo XClarity Controller.
    Xcc,
    /// Supermicro.
    Supermicro,
    /// NVIDIA DGX.
    Dgx,
    /// AMI MegaRAC and boards built on it.
    Ami,
    /// Everything else: what the standard says.
    Generic,
}

impl Vendor {
    /// What service root and system say about the maker. Board makers are looked at before the firmware's maker,
    /// because several of them ship AMI firmware with manners of their own.
    pub(crate) fn detect(root: &ServiceRoot, system: Option<&System>) -> Self {
        let maker = system.and_then(|system| system.manufacturer.as_deref());
        let model = system.and_then(|system| system.model.as_deref()).unwrap_or_default().to_lowercase();
        let words: String = [maker, root.vendor.as_deref(), root.product.as_deref()]
            .into_iter()
            .flatten()
            .map(|word| format!("{} ", word.to_lowercase()))
            .collect();
        let keys = root.oem.iter().chain(system.and_then(|system| system.oem.as_ref()));
        let oem: Vec<String> = keys.flat_map(|oem| oem.keys().map(|key| key.to_lowercase())).collect();
        let says =
            |word: &str| words.split([' ', ',', '.']).any(|part| part == word) || oem.iter().any(|key| key == word);
        if says("dell") || words.contains("idrac") {
            Self::Idrac
        } else if says("hpe") || says("hp") || words.contains("hewlett") {
            Self::Ilo
        } else if says("lenovo") {
            Self::Xcc
        } else if says("supermicro") {
            Self::Supermicro
        } else if says("nvidia") && model.contains("dgx") {
            Self::Dgx
        } else if says("ami") || says("asrockrack") || words.contains("megarac") {
            Self::Ami
        } else {
            Self::Generic
        }
    }

    /// The family with this [`Vendor::name`], in any case; `None` for any other word.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Idrac, Self::Ilo, Self::Xcc, Self::Supermicro, Self::Dgx, Self::Ami]
            .into_iter()
            .find(|vendor| vendor.name().is_some_and(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Lower-case name; `None` for [`Vendor::Generic`], which is many makers.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Idrac => "idrac",
            Self::Ilo => "ilo",
            Self::Xcc => "xcc",
            Self::Supermicro => "supermicro",
            Self::Dgx => "dgx",
            Self::Ami => "ami",
            Self::Generic => return None,
        })
    }

    /// Retry profile of this family.
    pub(crate) fn retry(self) -> Retry {
        let (attempts, cap) = match self {
            Self::Idrac => (7, 15),
            Self::Ilo => (6, 12),
            Self::Supermicro => (5, 10),
            _ => return Retry::default(),
        };
        Retry { attempts, cap: Duration::from_secs(cap), ..Retry::default() }
    }
}

/// A metric label made of free text: lower case, `[a-z0-9_]`, at most 32 characters, `unknown` when nothing is left.
pub(crate) fn label(vendor: Vendor, manufacturer: Option<&str>) -> String {
    if let Some(name) = vendor.name() {
        return name.to_owned();
    }
    let mut label = String::new();
    for character in manufacturer.unwrap_or_default().chars().take(32) {
        if character.is_ascii_alphanumeric() {
            label.push(character.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('_') {
            label.push('_');
        }
    }
    let label = label.trim_end_matches('_');
    if label.is_empty() { "unknown".to_owned() } else { label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(root: &str, system: &str) -> Vendor {
        Vendor::detect(&serde_json::from_str(root).unwrap(), Some(&serde_json::from_str(system).unwrap()))
    }

    #[test]
    fn families_are_told_apart() {
        for (root, system, vendor) in [
            (r#"{"Oem":{"Dell":{}}}"#, "{}", Vendor::Idrac),
            (r#"{"Product":"Integrated Dell Remote Access Controller"}"#, "{}", Vendor::Idrac),
            (r#"{"Oem":{"Hpe":{}}}"#, "{}", Vendor::Ilo),
            (r#"{"Vendor":"Lenovo"}"#, "{}", Vendor::Xcc),
            (r#"{"Vendor":"AMI"}"#, r#"{"Manufacturer":"Supermicro"}"#, Vendor::Supermicro),
            (r#"{"Vendor":"AMI"}"#, r#"{"Manufacturer":"NVIDIA","Model":"DGX H100"}"#, Vendor::Dgx),
            (r#"{"Product":"AMI Redfish Server"}"#, "{}", Vendor::Ami),
            (r#"{"Oem":null,"Vendor":7}"#, r#"{"Manufacturer":"Amitech"}"#, Vendor::Generic),
        ] {
            assert_eq!(detect(root, system), vendor, "{root} {system}");
        }
    }

    #[test]
    fn a_label_is_sanitised() {
        assert_eq!(label(Vendor::Generic, Some("Sushy Emulator")), "sushy_emulator");
        assert_eq!(label(Vendor::Generic, Some(" {\"evil\"}=1 ")), "evil_1");
        assert_eq!(label(Vendor::Generic, None), "unknown");
        assert_eq!(label(Vendor::Generic, Some("…")), "unknown");
        assert_eq!(label(Vendor::Ilo, Some("HPE")), "ilo");
    }
}
