//! Which names are taken, which two are the same, and what they are called in 8.3.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::joliet;

/// Longest volume id of the primary descriptor.
const MAX_VOLUME_ID: usize = 32;
/// Level 1: eight characters, a full stop, three characters (ECMA-119 10.1).
const STEM_CHARACTERS: usize = 8;
const EXTENSION_CHARACTERS: usize = 3;

/// A volume id of a-characters (ECMA-119 7.4.1) that Joliet takes too, so that no field needs another.
pub(crate) fn check_volume_id(volume_id: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::VolumeId { volume_id: volume_id.to_owned(), reason });
    if volume_id.is_empty() {
        return refuse("empty");
    }
    if volume_id.len() > MAX_VOLUME_ID {
        return refuse("longer than 32 characters");
    }
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " !\"%&'()+,-.<=>_".contains(c);
    if !volume_id.chars().all(allowed) {
        return refuse("takes only A-Z, 0-9, space and !\"%&'()+,-.<=>_");
    }
    if volume_id.starts_with(' ') || volume_id.ends_with(' ') {
        return refuse("starts or ends with a space, which readers take for padding");
    }
    Ok(())
}

/// A file name that reads back the same from Rock Ridge and from Joliet.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Name { name: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("empty");
    }
    if name.chars().any(|c| c.is_control() || joliet::FORBIDDEN.contains(&c)) {
        return refuse("holds a control character or one of * / : ; ? \\");
    }
    if name.chars().any(|c| u32::from(c) > 0xffff) {
        return refuse("holds a character above U+FFFF, which UCS-2 does not have");
    }
    if name.ends_with('.') || name.starts_with(' ') || name.ends_with(' ') {
        return refuse("starts or ends with a space or ends with a full stop, which readers drop");
    }
    let length = name.chars().count();
    if length > joliet::MAX_NAME_CHARACTERS {
        return Err(Error::NameTooLong { name: name.to_owned(), length, limit: joliet::MAX_NAME_CHARACTERS });
    }
    Ok(())
}

/// What two names have in common when they differ at most in case. Normalisation forms stay apart.
pub(crate) fn without_case(name: &str) -> String {
    // Up and down again: some letters meet only in one of the two.
    name.to_uppercase().to_lowercase()
}

/// A name of level 1 in its two parts, without the full stop between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level1 {
    // The order of the fields is the order of records: every d-character is above the space with
    // which ECMA-119 9.3 pads the shorter name.
    stem: String,
    extension: String,
}

impl Level1 {
    /// The identifier of a directory record: both separators are always there (ECMA-119 7.5.1).
    pub(crate) fn identifier(&self) -> String {
        format!("{}.{};1", self.stem, self.extension)
    }

    /// The nearest name of level 1, and whether it says all that `name` says but for case.
    fn nearest(name: &str) -> (Self, bool) {
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => (stem, extension),
            _ => (name, ""),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let map = |part: &str, limit| -> String {
            part.chars().take(limit).map(|c| if allowed(c) { c.to_ascii_uppercase() } else { '_' }).collect()
        };
        let fits = |part: &str, limit| part.len() <= limit && part.chars().all(allowed);
        let exact = fits(stem, STEM_CHARACTERS) && fits(extension, EXTENSION_CHARACTERS);
        (Self { stem: map(stem, STEM_CHARACTERS), extension: map(extension, EXTENSION_CHARACTERS) }, exact)
    }
}

/// Names of level 1 for `names`, one each, all different. A name that fits keeps its own; among the
/// others the first in the given order gets the plain cut and the next ones a number at the end.
pub(crate) fn level_1(names: &[&str]) -> Vec<Level1> {
    let nearest: Vec<_> = names.iter().map(|name| Level1::nearest(name)).collect();
    let mut taken: BTreeSet<Level1> =
        nearest.iter().filter(|(_, exact)| *exact).map(|(short, _)| short.clone()).collect();
    let mut last_number: BTreeMap<Level1, u32> = BTreeMap::new();
    nearest
        .into_iter()
        .map(|(short, exact)| {
            if exact || taken.insert(short.clone()) {
                return short;
            }
            let number = last_number.entry(short.clone()).or_default();
            loop {
                *number += 1;
                let digits = number.to_string();
                let kept = short.stem.len().min(STEM_CHARACTERS - digits.len());
                let stem = format!("{}{digits}", &short.stem[..kept]);
                let numbered = Level1 { stem, extension: short.extension.clone() };
                if taken.insert(numbered.clone()) {
                    return numbered;
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifiers(names: &[&str]) -> Vec<String> {
        level_1(names).iter().map(Level1::identifier).collect()
    }

    #[test]
    fn usual_names_become_8_3() {
        assert_eq!(
            identifiers(&["recipe.json", "recipe.schema.json", "user-data", "ks.cfg", ".hidden", "Über.tar.gz"]),
            ["RECIPE.JSO;1", "RECIPE_S.JSO;1", "USER_DAT.;1", "KS.CFG;1", "_HIDDEN.;1", "_BER_TAR.GZ;1"]
        );
    }

    #[test]
    fn equal_cuts_get_numbers_and_exact_names_stay() {
        assert_eq!(
            identifiers(&["recipe-a.json", "recipe-b.json", "recipe_1.jso", "recipe_a.jsonl", "recipe_a.jso"]),
            ["RECIPE_2.JSO;1", "RECIPE_B.JSO;1", "RECIPE_1.JSO;1", "RECIPE_3.JSO;1", "RECIPE_A.JSO;1"]
        );
    }

    #[test]
    fn volume_ids_are_taken_whole_or_not_at_all() {
        for good in ["TASK_0123456789ABCDEF0123456789A", "CAIRN_MAINT", "A", "TASK-1 (2)"] {
            check_volume_id(good).unwrap();
        }
        for bad in ["", "task", "TASK_0123456789ABCDEF0123456789ABC", " A", "A ", "A:B", "A*", "Ä", "A\n"] {
            assert!(matches!(check_volume_id(bad), Err(Error::VolumeId { .. })), "{bad:?}");
        }
    }

    #[test]
    fn names_that_a_tree_cannot_carry_are_refused() {
        for bad in
            ["", ".", "..", "a/b", "a;1", "a:b", "a*", "a?", "a\\b", "a\0", "a\u{7f}", "a.", " a", "a ", "\u{1f600}"]
        {
            assert!(matches!(check(bad), Err(Error::Name { .. })), "{bad:?}");
        }
        check(&"ü".repeat(64)).unwrap();
        assert!(matches!(check(&"ü".repeat(65)), Err(Error::NameTooLong { length: 65, limit: 64, .. })));
    }
}
