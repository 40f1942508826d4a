//! Directory records, path tables and the number formats they share (ECMA-119 7, 9.1 and 9.4).

use crate::SECTOR_BYTES;
use crate::date::Date;

/// Bytes of a directory record before its identifier.
pub(crate) const RECORD_HEADER_BYTES: usize = 33;
/// The length of a record is one byte, and always even.
pub(crate) const MAX_RECORD_BYTES: usize = 254;
/// Identifier of the record of a directory about itself (ECMA-119 6.8.2.2).
pub(crate) const SELF_IDENTIFIER: &[u8] = &[0];
/// Identifier of the record of a directory about its parent.
pub(crate) const PARENT_IDENTIFIER: &[u8] = &[1];
/// File flag: the record is about a directory (ECMA-119 9.1.6).
pub(crate) const FLAG_DIRECTORY: u8 = 0x02;
/// File flag: another record with the next part of the same file follows.
pub(crate) const FLAG_MULTI_EXTENT: u8 = 0x80;

/// 16 bits, little-endian and then big-endian (ECMA-119 7.2.3).
pub(crate) fn both_orders_16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// 32 bits, little-endian and then big-endian (ECMA-119 7.3.3).
pub(crate) fn both_orders_32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Sectors that `bytes` fill, the last one perhaps in part.
pub(crate) fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(SECTOR_BYTES as u64)
}

/// Where something lies, in the units of a directory record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    /// First logical block.
    pub(crate) block: u32,
    /// Length in bytes.
    pub(crate) length: u32,
}

/// A directory record to be written.
pub(crate) struct DirectoryRecord<'a> {
    pub(crate) identifier: &'a [u8],
    pub(crate) span: Span,
    pub(crate) flags: u8,
    pub(crate) date: Date,
    pub(crate) system_use: &'a [u8],
}

/// Bytes of a record up to its system use field, with the byte that makes that field start even.
pub(crate) fn system_use_offset(identifier_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + identifier_bytes).next_multiple_of(2)
}

impl DirectoryRecord<'_> {
    /// The bytes of the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let system_use = system_use_offset(self.identifier.len());
        let length = (system_use + self.system_use.len()).next_multiple_of(2);
        debug_assert!(length <= MAX_RECORD_BYTES);
        let mut record = vec![0; length];
        record[0] = length as u8;
        record[2..10].copy_from_slice(&both_orders_32(self.span.block));
        record[10..18].copy_from_slice(&both_orders_32(self.span.length));
        record[18..25].copy_from_slice(&self.date.short());
        record[25] = self.flags;
        record[28..32].copy_from_slice(&both_orders_16(1));
        record[32] = self.identifier.len() as u8;
        record[RECORD_HEADER_BYTES..][..self.identifier.len()].copy_from_slice(self.identifier);
        record[system_use..][..self.system_use.len()].copy_from_slice(self.system_use);
        record
    }

    /// Appends the record to `directory`. A record never crosses a sector (ECMA-119 6.8.1.1): the
    /// rest of a sector that is too small for it stays zero.
    pub(crate) fn append_to(&self, directory: &mut Vec<u8>) {
        let record = self.encode();
        append_within_sector(directory, &record);
    }
}

/// Appends `bytes`, at most a sector of them, at the next place where they do not cross a sector
/// boundary; answers with that place.
pub(crate) fn append_within_sector(area: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let used = area.len() % SECTOR_BYTES;
    if used + bytes.len() > SECTOR_BYTES {
        pad_to_sector(area);
    }
    let place = area.len();
    area.extend_from_slice(bytes);
    place
}

/// Fills the last sector with zeros.
pub(crate) fn pad_to_sector(area: &mut Vec<u8>) {
    area.resize(area.len().next_multiple_of(SECTOR_BYTES), 0);
}

/// Bytes of a path table that has the root only.
pub(crate) const ROOT_PATH_TABLE_BYTES: u32 = 10;

/// A path table with the root as its only record, its own parent (ECMA-119 9.4), in one sector each
/// for little-endian (L) and big-endian (M).
pub(crate) fn root_path_tables(root_block: u32) -> Vec<u8> {
    let mut tables = vec![0; 2 * SECTOR_BYTES];
    let (little, big) = tables.split_at_mut(SECTOR_BYTES);
    little[0] = 1;
    little[2..6].copy_from_slice(&root_block.to_le_bytes());
    little[6..8].copy_from_slice(&1_u16.to_le_bytes());
    big[0] = 1;
    big[2..6].copy_from_slice(&root_block.to_be_bytes());
    big[6..8].copy_from_slice(&1_u16.to_be_bytes());
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_recorded_in_both_orders() {
        assert_eq!(both_orders_16(0x1234), [0x34, 0x12, 0x12, 0x34]);
        assert_eq!(both_orders_32(0x1234_5678), [0x78, 0x56, 0x34, 0x12, 0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn records_are_even_and_their_system_use_starts_even() {
        let date = Date::from_seconds(0).unwrap();
        for identifier in [&b"A.;1"[..], b"AB.;1"] {
            for system_use in [&b""[..], b"odd", b"even"] {
                let record = DirectoryRecord { identifier, span: Span::default(), flags: 0, date, system_use }.encode();
                assert_eq!(record.len() % 2, 0);
                assert_eq!(record.len(), usize::from(record[0]));
                assert_eq!(&record[38..][..system_use.len()], system_use);
            }
        }
    }

    #[test]
    fn nothing_crosses_a_sector() {
        let mut area = vec![1; SECTOR_BYTES - 10];
        assert_eq!(append_within_sector(&mut area, &[2; 10]), SECTOR_BYTES - 10);
        assert_eq!(append_within_sector(&mut area, &[3; 10]), SECTOR_BYTES);
        assert_eq!(append_within_sector(&mut area, &[4; 2039]), 2 * SECTOR_BYTES);
        assert_eq!(area[SECTOR_BYTES + 10..2 * SECTOR_BYTES], [0; SECTOR_BYTES - 10]);
    }
}
