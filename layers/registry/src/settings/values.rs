//! What single values of the settings mean, and how they are read.

use std::str::FromStr;

use oci_registry::RepositoryName;
use settings::parse_size;
use url::Url;

/// How people log in to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all.
    None,
    /// HTTP Basic: users file where there is one, else the API's login.
    Basic,
    /// HTTP Basic with the users file.
    Htpasswd,
    /// Bearer tokens for the same users.
    Token,
}

impl FromStr for AuthMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "basic" => Ok(Self::Basic),
            "htpasswd" => Ok(Self::Htpasswd),
            "token" => Ok(Self::Token),
            _ => Err("none, basic, htpasswd or token was expected".to_owned()),
        }
    }
}

/// Room that pushes leave free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// So much of the disk.
    Percent(u8),
}

impl MinFree {
    /// In bytes, on a disk of `total` bytes.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl FromStr for MinFree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 0..=50) => Ok(Self::Percent(percent)),
                _ => Err("a size such as 10GiB, or 0% to 50% was expected".to_owned()),
            },
            None => parse_size(text).map(Self::Bytes),
        }
    }
}

/// Who may push where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushAllow(Vec<(String, Vec<String>)>);

impl PushAllow {
    /// Whether this user may change this repository. A prefix is whole parts of a name: `tools` is `tools` and
    /// `tools/x`, not `toolshed`. An empty list allows everybody everything.
    pub fn allows(&self, user: &str, repository: &RepositoryName) -> bool {
        let under = |prefix: &String| {
            prefix == "*"
                || repository.as_str().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.0.is_empty()
            || self.0.iter().any(|(who, prefixes)| (who == "*" || who == user) && prefixes.iter().any(under))
    }
}

impl PushAllow {
    /// Whether this user may change every repository there can be.
    pub fn allows_everything(&self, user: &str) -> bool {
        let everything = |prefixes: &[String]| prefixes.iter().any(|prefix| prefix == "*");
        self.0.is_empty() || self.0.iter().any(|(who, prefixes)| (who == "*" || who == user) && everything(prefixes))
    }
}

impl FromStr for PushAllow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(|rule| {
            let (user, prefixes) = rule
                .split_once('=')
                .filter(|(user, _)| !user.trim().is_empty())
                .ok_or_else(|| format!("{rule:?} is not USER=PREFIX,PREFIX"))?;
            let prefixes: Vec<String> = prefixes.split(',').map(prefix).collect::<Result<_, _>>()?;
            Ok::<_, String>((user.trim().to_owned(), prefixes))
        });
        let rules: Vec<_> = rules.collect::<Result<_, _>>()?;
        // No rule at all would let everybody push, which nobody means who sets a list.
        if rules.is_empty() { Err("USER=PREFIX,PREFIX was expected".to_owned()) } else { Ok(Self(rules)) }
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    if text == "*" {
        return Ok(text.to_owned());
    }
    text.parse::<RepositoryName>().map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A part of the names whose content comes from a registry elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// Repositories below this name.
    pub prefix: RepositoryName,
    /// Where they come from.
    pub upstream: Url,
}

/// Reads `PREFIX=https://HOST`, separated by commas; each prefix once.
pub(super) fn cache_rules(text: &str) -> Result<Vec<CacheRule>, String> {
    let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    let rules: Vec<CacheRule> = rules.map(cache_rule).collect::<Result<_, _>>()?;
    for (at, rule) in rules.iter().enumerate() {
        if rules[..at].iter().any(|other| other.prefix == rule.prefix) {
            return Err(format!("{} is there twice", rule.prefix));
        }
    }
    Ok(rules)
}

fn cache_rule(text: &str) -> Result<CacheRule, String> {
    let wrong = || format!("{text:?} is not PREFIX=https://HOST");
    let (prefix, url) = text.split_once('=').ok_or_else(wrong)?;
    let upstream: Url = url.trim().parse().map_err(|_| wrong())?;
    if !is_address(&upstream) {
        return Err(format!("{text:?}: http(s)://host[:port] was expected, without credentials and query"));
    }
    let prefix = prefix.trim().parse::<RepositoryName>().map_err(|error| error.to_string())?;
    Ok(CacheRule { prefix, upstream })
}

/// Whether paths can be put behind this URL.
pub(super) fn is_address(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_prefix_is_whole_parts_of_a_name() {
        let allow: PushAllow = "alice=tools,os-images/debian/ ; *=scratch; root=*".parse().unwrap();
        for (user, repository, allowed) in [
            ("alice", "tools", true),
            ("alice", "tools/disk", true),
            ("alice", "toolshed", false),
            ("alice", "os-images/debian", true),
            ("alice", "os-images/fedora", false),
            ("bob", "tools", false),
            ("bob", "scratch/x", true),
            ("root", "anything/at/all", true),
        ] {
            assert_eq!(allow.allows(user, &repository.parse().unwrap()), allowed, "{user} {repository}");
        }
        assert!(PushAllow::default().allows("bob", &"x".parse().unwrap()));
    }

    #[test]
    fn room_is_told_in_bytes_or_percent() {
        assert_eq!("10GiB".parse::<MinFree>().unwrap().bytes(1), 10 << 30);
        assert_eq!("5%".parse::<MinFree>().unwrap().bytes(1000), 50);
        assert_eq!("0".parse::<MinFree>().unwrap().bytes(1000), 0);
    }
}
