//! Volume descriptors (ECMA-119 8), the ordinary one and the one that Joliet adds.

use crate::SECTOR_BYTES;
use crate::date::{Date, UNSPECIFIED};
use crate::joliet;
use crate::record::{
    DirectoryRecord, FLAG_DIRECTORY, ROOT_PATH_TABLE_BYTES, SELF_IDENTIFIER, Span, both_orders_16, both_orders_32,
};

/// Every descriptor starts with its type and these five letters (ECMA-119 8.1.2).
pub(crate) const STANDARD_IDENTIFIER: &[u8; 5] = b"CD001";
/// Sector of the first descriptor: the sixteen before it are the system area (ECMA-119 6.2.1).
pub(crate) const FIRST_DESCRIPTOR: u32 = 16;
/// Type of the primary volume descriptor.
pub(crate) const TYPE_PRIMARY: u8 = 1;
const TYPE_SUPPLEMENTARY: u8 = 2;
/// Type of the descriptor that ends the set.
pub(crate) const TYPE_TERMINATOR: u8 = 255;

// Fixed, and without a version: an upgrade that writes the same structures writes the same bytes.
const PUBLISHER: &str = "CAIRN";
const DATA_PREPARER: &str = "CAIRN ISO9660";
const APPLICATION: &str = "CAIRN ISO9660";

/// Which of the two trees a descriptor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// ISO 9660 level 1, with Rock Ridge.
    Primary,
    /// UCS-2 level 3 names (Joliet Specification, version 1, 22 May 1995).
    Joliet,
}

impl Tree {
    /// Writes `text` into `field` and fills what is left with spaces.
    fn fill(self, field: &mut [u8], text: &str) {
        match self {
            Self::Primary => {
                field.fill(b' ');
                field[..text.len()].copy_from_slice(text.as_bytes());
            }
            Self::Joliet => joliet::fill(field, text),
        }
    }
}

/// A volume descriptor to be written.
pub(crate) struct VolumeDescriptor<'a> {
    pub(crate) tree: Tree,
    pub(crate) volume_id: &'a str,
    /// Size of the volume in logical blocks.
    pub(crate) volume_blocks: u32,
    /// Block of the little-endian path table; the big-endian one is in the next block.
    pub(crate) path_tables: u32,
    pub(crate) root: Span,
    pub(crate) date: Date,
}

impl VolumeDescriptor<'_> {
    /// The sector of the descriptor (ECMA-119 8.4 and 8.5).
    pub(crate) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        self.encode_head(&mut sector);
        self.encode_location(&mut sector);
        self.encode_identifiers(&mut sector);
        sector[813..830].copy_from_slice(&self.date.long());
        sector[830..847].copy_from_slice(&self.date.long());
        sector[847..864].copy_from_slice(&UNSPECIFIED); // expiration
        sector[864..881].copy_from_slice(&UNSPECIFIED); // effective: at once
        sector[881] = 1; // version of the file structure
        sector
    }

    fn encode_head(&self, sector: &mut [u8; SECTOR_BYTES]) {
        sector[0] = match self.tree {
            Tree::Primary => TYPE_PRIMARY,
            Tree::Joliet => TYPE_SUPPLEMENTARY,
        };
        sector[1..6].copy_from_slice(STANDARD_IDENTIFIER);
        sector[6] = 1;
        self.tree.fill(&mut sector[8..40], "");
        self.tree.fill(&mut sector[40..72], self.volume_id);
        if self.tree == Tree::Joliet {
            sector[88..91].copy_from_slice(joliet::ESCAPE_SEQUENCE);
        }
    }

    fn encode_location(&self, sector: &mut [u8; SECTOR_BYTES]) {
        sector[80..88].copy_from_slice(&both_orders_32(self.volume_blocks));
        sector[120..124].copy_from_slice(&both_orders_16(1)); // volumes in the set
        sector[124..128].copy_from_slice(&both_orders_16(1)); // this one's number
        sector[128..132].copy_from_slice(&both_orders_16(SECTOR_BYTES as u16));
        sector[132..140].copy_from_slice(&both_orders_32(ROOT_PATH_TABLE_BYTES));
        sector[140..144].copy_from_slice(&self.path_tables.to_le_bytes());
        sector[148..152].copy_from_slice(&(self.path_tables + 1).to_be_bytes());
        let root = DirectoryRecord {
            identifier: SELF_IDENTIFIER,
            span: self.root,
            flags: FLAG_DIRECTORY,
            date: self.date,
            system_use: &[],
        };
        sector[156..190].copy_from_slice(&root.encode());
    }

    fn encode_identifiers(&self, sector: &mut [u8; SECTOR_BYTES]) {
        let fields = [
            (190..318, ""), // volume set
            (318..446, PUBLISHER),
            (446..574, DATA_PREPARER),
            (574..702, APPLICATION),
            (702..739, ""), // file with the copyright
            (739..776, ""), // file with the abstract
            (776..813, ""), // file with the bibliography
        ];
        for (range, text) in fields {
            self.tree.fill(&mut sector[range], text);
        }
    }
}

/// The sector that ends the set of descriptors (ECMA-119 8.3).
pub(crate) fn terminator() -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    sector[0] = TYPE_TERMINATOR;
    sector[1..6].copy_from_slice(STANDARD_IDENTIFIER);
    sector[6] = 1;
    sector
}
