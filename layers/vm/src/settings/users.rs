//! Users for VMs: a block of numbers that nobody else on this host has.

use std::fmt;
use std::str::FromStr;

/// Numbers of users and of groups, both ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// User and group of the VM in slot 0.
    pub first: u32,
    /// Of the last one that is possible.
    pub last: u32,
}

/// Files of this host that say which numbers are taken, as text; empty where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accounts<'a> {
    /// `/etc/passwd` (passwd(5)).
    pub passwd: &'a str,
    /// `/etc/group` (group(5)).
    pub group: &'a str,
    /// `/etc/subuid` (subuid(5)).
    pub subuid: &'a str,
    /// `/etc/subgid` (subgid(5)).
    pub subgid: &'a str,
}

/// Below this are users of the system and of people.
const LEAST: u32 = 65_536;
/// The user whose entries in subuid(5) reserve the range for us: `useradd` then gives it to nobody else.
pub const RESERVED_BY: &str = "metald";

impl UidRange {
    /// How many VMs can have a user of their own.
    pub fn count(self) -> u32 {
        self.last - self.first + 1
    }

    /// Who on this host has a number of the range already, as a sentence. Entries of [`RESERVED_BY`] are ours.
    pub fn taken(self, accounts: Accounts<'_>) -> Option<String> {
        let single = [("/etc/passwd", accounts.passwd), ("/etc/group", accounts.group)].into_iter();
        let single = single.flat_map(|(file, text)| ids(text).map(move |(name, id)| (file, name, id, id)));
        let blocks = [("/etc/subuid", accounts.subuid), ("/etc/subgid", accounts.subgid)].into_iter();
        let blocks = blocks.flat_map(|(file, text)| blocks_of(text).map(move |(name, a, b)| (file, name, a, b)));
        single
            .chain(blocks.filter(|(_, name, _, _)| *name != RESERVED_BY))
            .find(|(_, _, first, last)| *first <= self.last && self.first <= *last)
            .map(|(file, name, first, last)| match first == last {
                true => format!("{file} gives {first} to {name}"),
                false => format!("{file} gives {first} to {last} to {name}"),
            })
    }

    /// A range of the same size, above this one, of which nothing is taken.
    pub fn free(self, accounts: Accounts<'_>) -> Option<Self> {
        let size = self.count();
        // Far above what useradd(8) gives out by itself (600,100,000), and below what has a meaning of its own.
        let starts = (self.first..2_000_000_000).step_by(usize::try_from(size).ok()?);
        let range = |first: u32| Some(Self { first, last: first.checked_add(size - 1)? });
        starts.take(40_000).filter_map(range).find(|range| range.taken(accounts).is_none())
    }
}

/// `name:x:ID:…`, of both passwd(5) and group(5).
fn ids(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        Some((parts.next()?, parts.nth(1)?.parse().ok()?))
    })
}

/// `name:FIRST:COUNT`.
fn blocks_of(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut parts = line.trim().split(':');
        let name = parts.next()?;
        let (first, count): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (count > 0).then(|| (name, first, first.saturating_add(count - 1)))
    })
}

impl FromStr for UidRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("FIRST-LAST was expected, both from {LEAST} on and below 4294967295");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let range = Self { first: number(first)?, last: number(last)? };
        // The last number of all means "no user" to the kernel.
        if range.first < LEAST || range.last < range.first || range.last == u32::MAX { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: UidRange = UidRange { first: 200_000, last: 265_535 };

    fn accounts<'a>(passwd: &'a str, subuid: &'a str) -> Accounts<'a> {
        Accounts { passwd, subuid, ..Accounts::default() }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!("200000-265535".parse(), Ok(RANGE));
        assert_eq!((RANGE.count(), RANGE.to_string()), (65_536, "200000-265535".to_owned()));
        for bad in ["", "200000", "a-b", "1000-2000", "300000-200000", "200000-4294967295", "200000--1"] {
            assert!(bad.parse::<UidRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn who_has_a_number_of_the_range_is_named() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbackup:x:200007:1::/:/bin/false\nbroken\n";
        assert_eq!(RANGE.taken(accounts(passwd, "")).unwrap(), "/etc/passwd gives 200007 to backup");
        // What the second user of a usual Debian gets.
        let subuid = "alice:100000:65536\nbob:165536:65536\n";
        assert_eq!(RANGE.taken(accounts("", subuid)).unwrap(), "/etc/subuid gives 165536 to 231071 to bob");
        assert_eq!(RANGE.taken(accounts("root:x:0:0::/:/\n", "alice:100000:65536\n")), None);
        assert_eq!(RANGE.taken(accounts("", "metald:200000:65536\n")), None, "our own reservation");
        let group = Accounts { group: "staff:x:200000:\n", ..Accounts::default() };
        assert_eq!(RANGE.taken(group).unwrap(), "/etc/group gives 200000 to staff");
    }

    #[test]
    fn the_next_free_range_is_found() {
        let subuid = "bob:165536:65536\ncarol:265536:65536\n";
        let free = RANGE.free(accounts("", subuid)).unwrap();
        assert_eq!(free.taken(accounts("", subuid)), None);
        assert_eq!(free, UidRange { first: 331_072, last: 396_607 });
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<UidRange>();
            let accounts = Accounts { passwd: &text, group: &text, subuid: &text, subgid: &text };
            let _ = RANGE.taken(accounts);
        }

        #[test]
        fn a_free_range_is_free(firsts in proptest::collection::vec(100_000_u32..2_000_000, 0..20)) {
            let subuid: String = firsts.iter().map(|first| format!("u:{first}:65536\n")).collect();
            let free = RANGE.free(accounts("", &subuid)).unwrap();
            prop_assert_eq!(free.taken(accounts("", &subuid)), None);
            prop_assert_eq!(free.count(), RANGE.count());
        }
    }
}
