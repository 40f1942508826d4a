//! Names of artifacts as people write them: `host:port/repository:tag@digest`.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, InvalidDigest, InvalidName, InvalidTag, RepositoryName, Selector, Tag};

/// The text does not name an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The part before the first `/` looks like a host but is none.
    #[error("{0:?} is not a registry host with an optional port")]
    Host(String),
    /// The repository's name is wrong.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The part after the last `:` is no tag.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// The part after `@` is no digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

/// Where an artifact is: `[oci://][host[:port]/]repository[:tag][@digest]`.
///
/// The part before the first `/` is a host when it has a `.` or a `:`, is in brackets or is `localhost`; otherwise it
/// belongs to the repository, and the registry is one that the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `host` or `host:port`; `None` where the caller's own registry is meant.
    pub registry: Option<String>,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag, where one is written.
    pub tag: Option<Tag>,
    /// The digest, where one is written; it decides even when there is a tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference; see the type.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, rest)) if looks_like_host(host) => (Some(checked_host(host)?), rest),
            _ => (None, rest),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.parse()?)),
            None => (rest, None),
        };
        Ok(Self { registry, repository: name.parse()?, tag, digest })
    }

    /// What to ask the registry for: the digest, else the tag, else `latest`.
    pub fn selector(&self) -> Selector {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Selector::Digest(digest.clone()),
            (None, Some(tag)) => Selector::Tag(tag.clone()),
            (None, None) => Selector::Tag(Tag::latest()),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn looks_like_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn checked_host(text: &str) -> Result<String, InvalidReference> {
    let invalid = || InvalidReference::Host(text.to_owned());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    let port_is_valid = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if host_is_valid && port_is_valid { Ok(text.to_owned()) } else { Err(invalid()) }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<String>) {
        let reference = Reference::parse(text).unwrap();
        (reference.registry, reference.repository.to_string(), reference.tag.map(|tag| tag.to_string()))
    }

    fn expected(
        registry: Option<&str>,
        repository: &str,
        tag: Option<&str>,
    ) -> (Option<String>, String, Option<String>) {
        (registry.map(str::to_owned), repository.to_owned(), tag.map(str::to_owned))
    }

    #[test]
    fn a_host_is_told_from_the_first_part_of_a_name() {
        for (text, want) in [
            ("debian", expected(None, "debian", None)),
            ("debian:13", expected(None, "debian", Some("13"))),
            ("os-images/debian:13", expected(None, "os-images/debian", Some("13"))),
            ("localhost/debian", expected(Some("localhost"), "debian", None)),
            ("192.0.2.1:8080/os-images/debian:13", expected(Some("192.0.2.1:8080"), "os-images/debian", Some("13"))),
            ("oci://registry.example/a/b/c", expected(Some("registry.example"), "a/b/c", None)),
            ("oci://a/b:1", expected(None, "a/b", Some("1"))),
            ("[2001:db8::1]:5000/a:1", expected(Some("[2001:db8::1]:5000"), "a", Some("1"))),
            ("[2001:db8::1]/a", expected(Some("[2001:db8::1]"), "a", None)),
            ("host:5000/a", expected(Some("host:5000"), "a", None)),
        ] {
            assert_eq!(parts(text), want, "{text}");
        }
    }

    #[test]
    fn the_digest_decides() {
        let digest = Digest::sha256_of(b"x");
        let reference = Reference::parse(&format!("localhost:5000/a:1@{digest}")).unwrap();
        assert_eq!(reference.selector(), Selector::Digest(digest));
        assert_eq!(Reference::parse("a").unwrap().selector(), Selector::Tag(Tag::latest()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            ":",
            "@",
            "a:",
            "a@",
            "a@sha256:00",
            "host.example/",
            "host.example:99999/a",
            "host:x/a",
            "[::1/a",
            "-a.b/c",
            "http://host.example/a",
            "a b",
            "a/../b",
            "oci://",
            "oci://oci://a",
            "user@host.example/a",
            "A/b",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            registry in proptest::option::of("(localhost|[a-z][a-z0-9]{0,8}\\.[a-z]{2,5}|10\\.0\\.2\\.2)(:[1-9][0-9]{0,3})?"),
            name in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}",
            more in "(/[a-z0-9]{1,6}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,20}"),
            with_digest: bool,
        ) {
            // Without a host in front, a first part with a dot or the word localhost would itself be the host.
            prop_assume!(registry.is_some() || more.is_empty() || !looks_like_host(&name));
            let reference = Reference {
                registry,
                repository: format!("{name}{more}").parse().unwrap(),
                tag: tag.map(|tag| tag.parse().unwrap()),
                digest: with_digest.then(|| Digest::sha256_of(name.as_bytes())),
            };
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(Reference::parse(&format!("oci://{reference}")).unwrap(), reference);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|[a-z0-9:/@.%_-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert!(!reference.repository.as_str().contains(".."));
            }
        }
    }
}
