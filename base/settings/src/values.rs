//! Values with units.

use std::time::Duration;

/// `true`, `yes`, `on`, `1` and their opposites, in any case.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("true or false was expected".to_owned()),
    }
}

/// `250ms`, `30s`, `10m`, `4h`, `14d`; parts may follow each other (`1h30m`); a plain number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "a duration such as 250ms, 30s, 10m, 4h or 14d was expected; a plain number is seconds";
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or(EXPECTED)?;
        let unit_length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_length);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(EXPECTED.to_owned()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or("this duration is too long")?;
        rest = next;
    }
    if text.is_empty() { Err(EXPECTED.to_owned()) } else { Ok(total) }
}

/// Bytes: `512`, `10K` = `10KiB`, `20GiB`, `1GB` (powers of 1000 with a `B` alone).
pub fn parse_size(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "a size in bytes such as 512, 10KiB, 20GiB or 1GB was expected";
    let (number, unit) = split_number(text.trim()).ok_or(EXPECTED)?;
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base): (&str, u64) = match unit.as_str() {
        "" | "b" => ("", 1),
        long if long.ends_with("ib") => (&long[..long.len() - 2], 1024),
        long if long.ends_with('b') => (&long[..long.len() - 1], 1000),
        short => (short, 1024),
    };
    let power = match letter {
        "" if base == 1 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(EXPECTED.to_owned()),
    };
    number.checked_mul(base.pow(power)).ok_or_else(|| "this size is too large".to_owned())
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(length);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("30", 30.0),
            ("30s", 30.0),
            ("10m", 600.0),
            ("4h", 14_400.0),
            ("14d", 1_209_600.0),
            ("1h30m", 5_400.0),
            ("250ms", 0.25),
            ("0", 0.0),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "s", "1.5h", "-1", "10 m", "4 hours", "5x", "99999999999999999999d", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("10K", 10_240),
            ("10KiB", 10_240),
            ("1kB", 1000),
            ("20GiB", 20 << 30),
            ("20 G", 20 << 30),
            ("21474836480", 20 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5G", "-1", "10X", "ib", "1ib", "99999999P"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(parse_boolean("TRUE"), Ok(true));
        assert_eq!(parse_boolean("off"), Ok(false));
        assert!(parse_boolean("maybe").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "\\PC*") {
            let _ = (parse_duration(&text), parse_size(&text), parse_boolean(&text));
        }

        #[test]
        fn whole_units_read_back(number in 0u64..1_000_000) {
            prop_assert_eq!(parse_duration(&format!("{number}m")).unwrap().as_secs(), number * 60);
            prop_assert_eq!(parse_size(&format!("{number}MiB")).unwrap(), number << 20);
        }
    }
}
