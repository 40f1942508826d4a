//! Repository names and tags, by the grammar of distribution-spec 1.1 ("Pulling manifests").

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::{Digest, InvalidDigest};

/// Longest repository name, in bytes: together with a host name it still fits what clients can handle.
const LONGEST_NAME: usize = 255;
/// Longest tag, in bytes (distribution-spec).
const LONGEST_TAG: usize = 128;

/// The text is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a repository name: lower-case letters and digits in parts separated by '/', inside a part also '.', '_', '__' or '-'"
)]
pub struct InvalidName(pub String);

/// The text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a tag: a letter, digit or '_', then up to 127 letters, digits, '.', '_' or '-'")]
pub struct InvalidTag(pub String);

/// Name of a repository, nested to any depth, for example `os-images/debian/13`. No part is empty, `.` or `..`, and
/// none begins with `_`: safe as a relative path beside the registry's own directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RepositoryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= LONGEST_NAME && text.split('/').all(is_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else { return false };
    if !is_word(first) || !is_word(last) {
        return false;
    }
    text.as_bytes()
        .split(|byte| is_word(*byte))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

/// A tag, for example `13.1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag that is meant where none is given.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text.bytes().next().is_some_and(is_word);
        if begins && text.len() <= LONGEST_TAG && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTag(text.to_owned()))
        }
    }
}

/// What picks one manifest of a repository: a tag or a digest (`<reference>` in distribution-spec).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Whatever the tag points to now.
    Tag(Tag),
    /// Exactly this content.
    Digest(Digest),
}

/// The text is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// It has no colon, so it was read as a tag.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// It has a colon, so it was read as a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text.contains(':') { Self::Digest(text.parse()?) } else { Self::Tag(text.parse()?) })
    }
}

impl From<Digest> for Selector {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<Tag> for Selector {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for name in ["a", "0", "os-images/debian/13", "a.b/c_d/e__f/g---h", "refs/blobs/uploads/tags/list"] {
            assert_eq!(name.parse::<RepositoryName>().unwrap().as_str(), name);
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(256);
        for name in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "A", "a b", "_a", "a_", "a___b", "a..b",
            "a._b", "-a", "a-", "a%2fb", "a\\b", "a\0b", "ä", &long,
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name}");
        }
    }

    #[test]
    fn tags() {
        for tag in ["latest", "V1.0-rc_2", "_x", &"t".repeat(128)] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", ".", "..", ".a", "-a", "a/b", "a:b", "ä", &"t".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}
