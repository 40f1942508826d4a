//! Sizes as a recipe writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size of a partition or disk. `K`, `M`, `G`, `T`, `P`, alone or with `B` or `iB`, are powers of 1024, as in sgdisk;
/// a number without a unit counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, at least one.
    Bytes(u64),
    /// So many percent, 1 to 100, of what the fixed sizes leave.
    Percent(u8),
}

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not of the form that a recipe allows.
    #[error("{0:?} is not a size: a number with K, M, G, T or P, or 1% to 100%, was expected")]
    Form(String),
    /// More bytes than 64 bits hold.
    #[error("{0:?} is more than any disk holds")]
    TooLarge(String),
}

/// Units from the largest to the smallest, with the power of two that each stands for.
const UNITS: [(char, u32); 5] = [('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let form = || SizeError::Form(text.to_owned());
        if let Some(percent) = text.strip_suffix('%') {
            return match digits(percent).and_then(|digits| digits.parse::<u8>().ok()) {
                Some(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(form()),
            };
        }
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = digits(number).ok_or_else(form)?.parse().map_err(|_| SizeError::TooLarge(text.to_owned()))?;
        let shift = match unit {
            "" | "B" => 0,
            _ => {
                let letter = unit.chars().next().unwrap_or_default();
                let (_, shift) = UNITS.iter().find(|(name, _)| *name == letter).ok_or_else(form)?;
                if !matches!(&unit[1..], "" | "B" | "iB") {
                    return Err(form());
                }
                *shift
            }
        };
        let bytes = number.checked_mul(1 << shift).ok_or_else(|| SizeError::TooLarge(text.to_owned()))?;
        Ok(Self::Bytes(bytes))
    }
}

/// The text itself when it is a positive decimal number without leading zeros.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => match UNITS.iter().find(|(_, shift)| bytes % (1 << shift) == 0) {
                Some((letter, shift)) => write!(f, "{}{letter}", bytes >> shift),
                None => write!(f, "{bytes}"),
            },
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("1", 1),
            ("512B", 512),
            ("4K", 4096),
            ("512M", 512 << 20),
            ("2GiB", 2 << 30),
            ("3TB", 3 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("100%".parse(), Ok(Size::Percent(100)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "0", "0%", "101%", "%", "-1", "1.5G", "512m", "5 G", "5X", "5Gi", "5iB", "012", "5GBB"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Form(text.to_owned())), "{text}");
        }
        for text in ["16384P", "99999999999999999999"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge(text.to_owned())), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_size_reads_back(bytes in 1u64.., percent in 1u8..=100) {
            for size in [Size::Bytes(bytes), Size::Percent(percent)] {
                proptest::prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
        }
    }
}
