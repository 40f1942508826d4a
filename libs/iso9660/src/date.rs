//! The two date formats of ECMA-119, both always in UTC here.

use crate::Error;

const SECONDS_PER_DAY: i64 = 86_400;
/// Days from 1900-01-01 to 1970-01-01.
const DAYS_1900_TO_1970: i64 = 25_567;
/// A directory record counts years from 1900 in one byte.
const LAST_YEAR: u16 = 1900 + 255;

/// The one instant that every date field of an image carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Date {
    /// `seconds` since 1970-01-01 00:00:00 UTC.
    pub(crate) fn from_seconds(seconds: i64) -> Result<Self, Error> {
        let outside = || Error::Timestamp { seconds };
        let since_midnight = seconds.rem_euclid(SECONDS_PER_DAY);
        let days = seconds.div_euclid(SECONDS_PER_DAY) + DAYS_1900_TO_1970;
        let mut days = u32::try_from(days).map_err(|_| outside())?;

        let mut year = 1900;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
            if year > LAST_YEAR {
                return Err(outside());
            }
        }
        let mut month = 1;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        Ok(Self {
            year,
            month,
            day: days as u8 + 1,
            hour: (since_midnight / 3600) as u8,
            minute: (since_midnight / 60 % 60) as u8,
            second: (since_midnight % 60) as u8,
        })
    }

    /// The form in directory records and Rock Ridge `TF` (ECMA-119 9.1.5).
    pub(crate) fn short(self) -> [u8; 7] {
        let years_since_1900 = (self.year - 1900) as u8;
        [years_since_1900, self.month, self.day, self.hour, self.minute, self.second, 0]
    }

    /// The form in volume descriptors (ECMA-119 8.4.26.1): digits, hundredths, offset from UTC.
    pub(crate) fn long(self) -> [u8; 17] {
        let Self { year, month, day, hour, minute, second } = self;
        let digits = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
        let mut field = UNSPECIFIED;
        field[..16].copy_from_slice(digits.as_bytes());
        field
    }
}

/// The long form of "no date" (ECMA-119 8.4.26.1): sixteen digits zero and a zero byte.
pub(crate) const UNSPECIFIED: [u8; 17] = *b"0000000000000000\0";

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u16) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u16, month: u8) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(seconds: i64) -> String {
        String::from_utf8(Date::from_seconds(seconds).unwrap().long()[..16].to_vec()).unwrap()
    }

    #[test]
    fn known_instants_have_their_dates() {
        assert_eq!(long(0), "1970010100000000");
        assert_eq!(long(-1), "1969123123595900");
        assert_eq!(long(951_782_400), "2000022900000000");
        assert_eq!(long(1_700_000_000), "2023111422132000");
        assert_eq!(long(4_107_542_399), "2100022823595900");
        assert_eq!(long(4_107_542_400), "2100030100000000");
        assert_eq!(Date::from_seconds(1_700_000_000).unwrap().short(), [123, 11, 14, 22, 13, 20, 0]);
    }

    #[test]
    fn the_range_ends_where_the_year_byte_ends() {
        assert_eq!(long(-2_208_988_800), "1900010100000000");
        assert_eq!(long(5_869_583_999), "2155123123595900");
        for outside in [-2_208_988_801, 5_869_584_000, i64::MIN, i64::MAX] {
            assert!(matches!(Date::from_seconds(outside), Err(Error::Timestamp { seconds }) if seconds == outside));
        }
    }
}
