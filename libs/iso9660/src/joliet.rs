//! Joliet: a second tree with UCS-2 names, big-endian (Joliet Specification, version 1, 22 May 1995).
//!
//! Names are recorded without the version `;1` of ECMA-119 7.5.1, as the writers in use do: readers
//! that know versions take a name without one, and readers that do not would show it.

/// Longest file name, in UCS-2 characters.
pub(crate) const MAX_NAME_CHARACTERS: usize = 64;
/// UCS-2 level 3, the level without restrictions.
pub(crate) const ESCAPE_SEQUENCE: &[u8; 3] = b"%/E";

/// Characters that no Joliet identifier may hold, besides control characters.
pub(crate) const FORBIDDEN: [char; 6] = ['*', '/', ':', ';', '?', '\\'];

/// `text` as UCS-2, big-endian. The caller has made sure that every character is one 16-bit unit.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Writes as much of `text` into `field` as it holds, and spaces behind it. A field of odd length
/// ends in a zero byte.
pub(crate) fn fill(field: &mut [u8], text: &str) {
    let mut units = text.encode_utf16().chain(std::iter::repeat(u16::from(b' ')));
    let mut pairs = field.chunks_exact_mut(2);
    for (pair, unit) in pairs.by_ref().zip(units.by_ref()) {
        pair.copy_from_slice(&unit.to_be_bytes());
    }
    pairs.into_remainder().fill(0);
}

/// Sort key of a file: name before extension, as ECMA-119 9.3 orders records. UCS-2 in big-endian
/// order sorts as its bytes do, and a shorter name sorts as if it were padded with zeros.
pub(crate) fn order(name: &str) -> (Vec<u8>, Vec<u8>) {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    (encode(stem), encode(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_takes_what_fits_and_pads_with_wide_spaces() {
        let mut field = [0xff; 9];
        fill(&mut field, "AB");
        assert_eq!(&field, b"\0A\0B\0 \0 \0");
        fill(&mut field, "ABCDEF");
        assert_eq!(&field, b"\0A\0B\0C\0D\0");
    }

    #[test]
    fn names_sort_before_extensions() {
        let mut names = ["a-b.txt", "a.txt", "a.cfg", "a", "b"];
        names.sort_by_key(|name| order(name));
        assert_eq!(names, ["a", "a.cfg", "a.txt", "a-b.txt", "b"]);
    }
}
