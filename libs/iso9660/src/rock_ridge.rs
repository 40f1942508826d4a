//! Rock Ridge, written: POSIX names, modes and times in the system use field of directory records
//! (SUSP, IEEE P1281; RRIP, IEEE P1282, in the version that names itself RRIP_1991A).

use crate::date::Date;
use crate::record::{MAX_RECORD_BYTES, append_within_sector, both_orders_32, system_use_offset};

const MODE_DIRECTORY: u32 = 0o040_555;
const MODE_FILE: u32 = 0o100_444;
/// `TF` with times of modification, access and attribute change.
const TIMES_PRESENT: u8 = 0x02 | 0x04 | 0x08;

// The texts that RRIP prescribes for its `ER` entry.
const EXTENSION_ID: &[u8] = b"RRIP_1991A";
const EXTENSION_DESCRIPTOR: &[u8] =
    b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
const EXTENSION_SOURCE: &[u8] = b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  \
SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION.";

/// What does not fit into the directory records themselves.
pub(crate) struct ContinuationArea {
    first_block: u32,
    bytes: Vec<u8>,
}

impl ContinuationArea {
    /// An empty area that will lie at `first_block`.
    pub(crate) fn at(first_block: u32) -> Self {
        Self { first_block, bytes: Vec::new() }
    }

    /// The area's bytes, the last sector perhaps in part.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Stores `entries` and answers with the `CE` entry that points to them. They stay within one
    /// sector, for that is all that some readers load.
    fn store(&mut self, entries: &[u8]) -> Vec<u8> {
        let place = append_within_sector(&mut self.bytes, entries);
        let block = self.first_block + (place / crate::SECTOR_BYTES) as u32;
        let offset = (place % crate::SECTOR_BYTES) as u32;
        let fields = [block, offset, entries.len() as u32].map(both_orders_32).concat();
        entry(b"CE", &fields)
    }
}

/// System use of the root's record about itself: announces SUSP and, by continuation, Rock Ridge.
pub(crate) fn root(date: Date, area: &mut ContinuationArea) -> Vec<u8> {
    let lengths = [EXTENSION_ID, EXTENSION_DESCRIPTOR, EXTENSION_SOURCE].map(|text| text.len() as u8);
    let reference = [&lengths[..], &[1], EXTENSION_ID, EXTENSION_DESCRIPTOR, EXTENSION_SOURCE].concat();
    let continuation = area.store(&entry(b"ER", &reference));
    [entry(b"SP", &[0xbe, 0xef, 0]), attributes(MODE_DIRECTORY, 2), times(date), continuation].concat()
}

/// System use of the root's record about its parent, which is the root again.
pub(crate) fn parent(date: Date) -> Vec<u8> {
    [attributes(MODE_DIRECTORY, 2), times(date)].concat()
}

/// System use of a regular file whose record has an identifier of `identifier_bytes`.
pub(crate) fn file(name: &str, date: Date, identifier_bytes: usize, area: &mut ContinuationArea) -> Vec<u8> {
    // A flags byte of zero: the name is whole, and neither the directory itself nor its parent.
    let name = entry(b"NM", &[&[0], name.as_bytes()].concat());
    let rest = [attributes(MODE_FILE, 1), times(date)].concat();
    let fits = system_use_offset(identifier_bytes) + name.len() + rest.len() <= MAX_RECORD_BYTES;
    if fits { [name, rest].concat() } else { [rest, area.store(&name)].concat() }
}

fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
    let length = 4 + data.len();
    [signature, &[length as u8, 1][..], data].concat()
}

/// `PX`: mode, links, user and group, the last two zero.
fn attributes(mode: u32, links: u32) -> Vec<u8> {
    entry(b"PX", &[mode, links, 0, 0].map(both_orders_32).concat())
}

fn times(date: Date) -> Vec<u8> {
    entry(b"TF", &[&[TIMES_PRESENT][..], &date.short(), &date.short(), &date.short()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_lengths_of_their_specification() {
        let date = Date::from_seconds(0).unwrap();
        assert_eq!(EXTENSION_DESCRIPTOR.len(), 84);
        assert_eq!(EXTENSION_SOURCE.len(), 135);
        assert_eq!(attributes(MODE_FILE, 1).len(), 36);
        assert_eq!(times(date).len(), 26);
        let mut area = ContinuationArea::at(7);
        assert_eq!(root(date, &mut area).len(), 7 + 36 + 26 + 28);
        assert_eq!(area.into_bytes().len(), 237);
    }

    #[test]
    fn a_name_too_long_for_its_record_goes_to_the_continuation_area() {
        let date = Date::from_seconds(0).unwrap();
        let identifier = b"LONGNAME.TXT;1".len();
        let mut area = ContinuationArea::at(7);
        let room = MAX_RECORD_BYTES - system_use_offset(identifier) - 36 - 26 - 5;
        let inline = file(&"a".repeat(room), date, identifier, &mut area);
        assert!(inline.starts_with(b"NM"));
        let continued = file(&"a".repeat(room + 1), date, identifier, &mut area);
        assert!(continued.starts_with(b"PX"));
        assert_eq!(&continued[62..66], b"CE\x1c\x01");
        assert!(area.into_bytes().starts_with(b"NM"));
    }
}
