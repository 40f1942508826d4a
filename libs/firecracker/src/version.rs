//! Versions of Firecracker and of the jailer.

use std::fmt;
use std::str::FromStr;

/// A version, as `1.16.0` or `1.17.0-dev`. A version with a suffix counts as older than the one without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 1 in `1.16.0`.
    pub major: u32,
    /// 16 in `1.16.0`.
    pub minor: u32,
    /// 0 in `1.16.0`.
    pub patch: u32,
    /// `dev` in `1.17.0-dev`.
    pub suffix: Option<String>,
}

impl Version {
    /// The oldest that is supported: since 1.12.0 Ctrl-Alt-Del reaches guests with ACPI, which is how a guest is asked
    /// to end, and a snapshot can be loaded onto another tap device.
    pub const MINIMUM: Self = Self { major: 1, minor: 12, patch: 0, suffix: None };

    /// Finds the version in what `firecracker --version` or `jailer --version` prints: `Firecracker v1.16.0` on the
    /// first line.
    ///
    /// # Errors
    /// When the first line is not of that form.
    pub fn of_output(output: &str) -> Result<Self, VersionError> {
        let line = output.lines().next().unwrap_or_default().trim();
        let version = line.strip_prefix("Firecracker v").or_else(|| line.strip_prefix("Jailer v"));
        version.ok_or_else(|| VersionError { text: line.to_owned() })?.parse()
    }

    fn key(&self) -> (u32, u32, u32, bool, Option<&str>) {
        (self.major, self.minor, self.patch, self.suffix.is_none(), self.suffix.as_deref())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)?;
        match &self.suffix {
            Some(suffix) => write!(formatter, "-{suffix}"),
            None => Ok(()),
        }
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no version of Firecracker")]
pub struct VersionError {
    /// The text.
    pub text: String,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError { text: text.to_owned() };
        let (numbers, suffix) = match text.split_once('-') {
            Some((numbers, suffix)) => (numbers, Some(suffix.to_owned())),
            None => (text, None),
        };
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        if suffix.as_deref() == Some("") {
            return Err(wrong());
        }
        Ok(Self { major, minor, patch, suffix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_programs_say_their_version() {
        let version = Version::of_output("Firecracker v1.17.0-dev\n\n").unwrap();
        assert_eq!(version.to_string(), "1.17.0-dev");
        assert_eq!(Version::of_output("Jailer v1.12.0\n").unwrap(), Version::MINIMUM);
        for bad in ["", "firecracker 1.2.3", "Firecracker v1.2", "Firecracker v1.2.3.4", "Firecracker v1.2.3-"] {
            assert!(Version::of_output(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_in_order() {
        let ordered = ["1.9.9", "1.12.0-dev", "1.12.0", "1.12.1", "1.17.0-dev", "2.0.0"];
        let versions: Vec<Version> = ordered.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert!(versions[1] < Version::MINIMUM && versions[2] >= Version::MINIMUM);
    }

    proptest! {
        #[test]
        fn any_text_is_a_version_or_an_error(text in ".{0,40}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
            }
        }
    }
}
