//! Names: of VMs, of customers, and the number from which everything of a VM on this host is derived.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text is no name of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: {rule}")]
pub struct InvalidName {
    /// What it would have named.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// Id of a VM: `ud-` and 16 hexadecimal digits when we choose it; otherwise 1 to 40 letters, digits and hyphens, which
/// Firecracker takes as an id, a file system as a directory and a process list as a word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

impl VmId {
    /// Longest id, so that names made from it stay within every limit.
    pub const LONGEST: usize = 40;

    /// A new random id.
    pub fn random() -> Self {
        Self(format!("ud-{:016x}", rand::random::<u64>()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The network namespace of this VM (guide, "Network Exhaustion": `^ns_vm_`).
    pub fn namespace(&self) -> String {
        format!("ns_vm_{}", self.0)
    }
}

impl FromStr for VmId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // A jail of that name is what the guide's clean-up removes (seed 000, "Disk Cleanup").
        let is_swept = text == "firecracker";
        let fits = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !text.starts_with('-')
            && !is_swept;
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let rule = "1 to 40 letters, digits and hyphens, no hyphen in front, and not the word firecracker";
        Err(InvalidName { kind: "id of a VM", text: text.to_owned(), rule })
    }
}

/// Who owns a VM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CustomerId(String);

impl CustomerId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CustomerId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let rule = "1 to 64 letters, digits, hyphens, underscores and dots";
        Err(InvalidName { kind: "customer", text: text.to_owned(), rule })
    }
}

macro_rules! text_conversions {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}

text_conversions!(VmId, CustomerId);

/// A place on this host, from 0. A VM holds one from its creation until nothing of it is left; user and group, addresses
/// and the name of its link follow from it. The lowest free one that was let go longest ago is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// The host's end of the VM's link (guide, "Network Connectivity Issues": `ip link show | grep tap`).
    pub fn link(self) -> String {
        format!("tapv{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_be_trouble_elsewhere_are_refused() {
        for good in ["a", "ud-0123456789abcdef", "Web-1", &"x".repeat(40)] {
            assert_eq!(good.parse::<VmId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a/b", "..", "a b", "a_b", "é", &"x".repeat(41), "a\n", "firecracker"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
        }
        let random = VmId::random();
        assert_eq!((random.as_str().len(), &random.as_str()[..3]), (19, "ud-"));
        assert!(random.as_str().parse::<VmId>().is_ok());
        assert!("ns".parse::<VmId>().unwrap().namespace().len() + VmId::LONGEST < 64);
    }

    #[test]
    fn links_have_names_that_the_kernel_takes() {
        assert_eq!(Slot(0).link(), "tapv0");
        assert!(Slot(u32::MAX).link().len() <= 15);
    }
}
