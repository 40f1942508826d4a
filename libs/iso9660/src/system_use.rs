//! Rock Ridge, read: what the system use field of a directory record says (SUSP, IEEE P1281; RRIP,
//! IEEE P1282). Fields that are cut or unknown are passed over, never trusted.

/// Longest name that is put together from `NM` entries, in bytes: what POSIX systems allow.
const MAX_NAME_BYTES: usize = 255;
/// `NM` flags: the name is that of the directory itself (2) or of its parent (4).
const NAME_IS_RELATIVE: u8 = 0x02 | 0x04;
const MODE_TYPE: u32 = 0o170_000;
const MODE_REGULAR: u32 = 0o100_000;
const MODE_DIRECTORY: u32 = 0o040_000;

/// Where a system use field goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Continuation {
    pub(crate) block: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// What Rock Ridge adds to a record.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    name: Vec<u8>,
    mode: Option<u32>,
    /// The record is the true place of a directory that appears elsewhere in the tree.
    pub(crate) relocated: bool,
}

impl Attributes {
    /// Takes in one area and answers where the next one is.
    pub(crate) fn absorb(&mut self, area: &[u8]) -> Option<Continuation> {
        let mut continuation = None;
        for (signature, data) in entries(area) {
            match signature {
                b"NM" => self.absorb_name(data),
                b"PX" => self.mode = little_endian_32(data, 0),
                b"RE" => self.relocated = true,
                b"CE" => continuation = parse_continuation(data),
                _ => {}
            }
        }
        continuation
    }

    fn absorb_name(&mut self, data: &[u8]) {
        if let Some((flags, part)) = data.split_first()
            && flags & NAME_IS_RELATIVE == 0
            && self.name.len() + part.len() <= MAX_NAME_BYTES
        {
            self.name.extend_from_slice(part);
        }
    }

    /// The POSIX name, where there is one.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        (!self.name.is_empty()).then_some(&self.name)
    }

    /// Whether the mode is that of something else than a regular file or a directory.
    pub(crate) fn is_special(&self) -> bool {
        self.mode.is_some_and(|mode| !matches!(mode & MODE_TYPE, MODE_REGULAR | MODE_DIRECTORY))
    }
}

/// Whether the field of the root's record about itself announces SUSP, and then how many bytes other
/// users of the field keep at the start of it in every other record.
pub(crate) fn announcement(area: &[u8]) -> Option<usize> {
    let (signature, data) = entries(area).next()?;
    match data {
        [0xbe, 0xef, skip, ..] if signature == b"SP" => Some(usize::from(*skip)),
        _ => None,
    }
}

fn parse_continuation(data: &[u8]) -> Option<Continuation> {
    Some(Continuation {
        block: little_endian_32(data, 0)?,
        offset: little_endian_32(data, 8)?,
        length: little_endian_32(data, 16)?,
    })
}

fn little_endian_32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The entries of an area: signature and what follows length and version. Ends at `ST`, at padding
/// and at the first entry that does not fit.
fn entries(mut area: &[u8]) -> impl Iterator<Item = (&[u8; 2], &[u8])> {
    std::iter::from_fn(move || {
        let (signature, after) = area.split_first_chunk::<2>()?;
        let length = usize::from(*after.first()?);
        let data = area.get(4..length)?;
        if signature == b"ST" {
            return None;
        }
        area = &area[length..];
        Some((signature, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name_are_joined_and_relative_ones_ignored() {
        let mut attributes = Attributes::default();
        assert_eq!(attributes.absorb(b"NM\x08\x01\x01abcNM\x07\x01\x00deNM\x05\x01\x02XX\x04\x01"), None);
        assert_eq!(attributes.name(), Some(&b"abcde"[..]));
    }

    #[test]
    fn cut_and_empty_entries_end_an_area() {
        for area in
            [&b""[..], b"N", b"NM", b"NM\x00\x01", b"NM\x03\x01", b"NM\xff\x01\x00a", b"ST\x04\x01NM\x06\x01\x00a"]
        {
            let mut attributes = Attributes::default();
            assert_eq!(attributes.absorb(area), None);
            assert_eq!(attributes.name(), None, "{area:?}");
        }
    }

    #[test]
    fn names_do_not_grow_without_bound() {
        let mut attributes = Attributes::default();
        let part = [&b"NM\xff\x01\x01"[..], &[b'a'; 250]].concat();
        for _ in 0..10 {
            attributes.absorb(&part);
        }
        assert_eq!(attributes.name().unwrap().len(), 250);
    }
}
