//! `oci_url`: where an artifact lies.

use std::fmt;
use std::str::FromStr;

/// A reference to an artifact: `[scheme://][registry/]repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// `http`, `https`, `oci` or `docker`, when given.
    pub scheme: Option<String>,
    /// Host and port; without one, the controller's own registry is meant.
    pub registry: Option<String>,
    /// Repository, lower case.
    pub repository: String,
    /// Tag, when given.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits, when given.
    pub digest: Option<String>,
}

/// The text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no artifact: {reason}")]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl OciReference {
    /// What a manifest is asked for by: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl FromStr for OciReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |reason| ReferenceError { text: text.to_owned(), reason };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https" | "oci" | "docker"), rest)) => (Some(scheme.to_owned()), rest),
            Some(_) => return Err(error("the scheme is none of oci, docker, http, https")),
            None => (None, text),
        };
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(error("the digest is not sha256: with 64 hexadecimal digits")),
            None => (rest, None),
        };
        let (registry, path) = match rest.split_once('/') {
            // `oci://` only says what kind of reference it is; the others are addresses, which begin with a host.
            Some((first, path)) if scheme.as_deref().is_some_and(|scheme| scheme != "oci") || is_host(first) => {
                (Some(first.to_owned()), path)
            }
            _ if scheme.as_deref().is_some_and(|scheme| scheme != "oci") => {
                return Err(error("a repository is missing after the registry"));
            }
            _ => (None, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(error("the tag has a letter that tags may not have")),
            None => (path, None),
        };
        if !repository.split('/').all(is_component) {
            return Err(error("the repository has to be lower-case words with slashes between them"));
        }
        Ok(Self { scheme, registry, repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether the first word of a reference is a host: it has a dot or a port, or is `localhost`.
fn is_host(word: &str) -> bool {
    word == "localhost" || word.contains('.') || word.contains(':')
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// OCI distribution specification 1.1, "Pulling manifests": `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    matches!(text.len(), 1..=128)
        && text.bytes().next().is_some_and(letters)
        && text.bytes().all(|byte| letters(byte) || matches!(byte, b'.' | b'-'))
}

/// One word of a repository name.
fn is_component(word: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    ends(word.bytes().next())
        && ends(word.bytes().last())
        && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, String) {
        let reference: OciReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        (reference.registry.clone(), reference.repository.clone(), reference.reference().to_owned())
    }

    #[test]
    fn registry_repository_and_tag_are_told_apart() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let own = |registry: &str| Some(registry.to_owned());
        assert_eq!(parts("os-images/debian"), (None, "os-images/debian".into(), "latest".into()));
        assert_eq!(parts("debian:13"), (None, "debian".into(), "13".into()));
        assert_eq!(parts("controller:8080/os/debian:13"), (own("controller:8080"), "os/debian".into(), "13".into()));
        assert_eq!(parts("https://registry/debian"), (own("registry"), "debian".into(), "latest".into()));
        assert_eq!(parts("oci://os-images/debian"), (None, "os-images/debian".into(), "latest".into()));
        assert_eq!(parts(&format!("h.example/a/b:1@{digest}")), (own("h.example"), "a/b".into(), digest));
    }

    #[test]
    fn broken_references_are_refused() {
        for text in
            ["", "Debian", "a//b", "ftp://h/a", "h.example/", "a@sha256:00", "https://registry", "a:b c", "-a/b"]
        {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }
}
