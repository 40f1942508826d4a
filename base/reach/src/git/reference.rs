//! Commits, and the names of them. Pure.

use std::fmt;

use super::Error;

/// The full id of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit(String);

impl Commit {
    /// Takes a full id: 40 hexadecimal digits, or 64 in a repository with SHA-256.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// This very commit.
    Commit(Commit),
    /// A reference by its full name, or what the repository calls `HEAD`.
    Full(String),
    /// A branch or a tag of this name.
    Short(String),
}

impl Wanted {
    pub(super) fn parse(name: &str) -> Result<Self, Error> {
        if let Some(commit) = Commit::parse(name) {
            return Ok(Self::Commit(commit));
        }
        if let Some(reason) = objection(name) {
            return Err(Error::Reference { reference: name.to_owned(), reason });
        }
        if name == "HEAD" || name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
            return Ok(Self::Full(name.to_owned()));
        }
        if name.starts_with("refs/") {
            let reason = "only refs/heads/… and refs/tags/… are followed";
            return Err(Error::Reference { reference: name.to_owned(), reason });
        }
        Ok(Self::Short(name.to_owned()))
    }

    /// The full names that can be meant.
    pub(super) fn candidates(&self) -> Vec<String> {
        match self {
            Self::Commit(_) => Vec::new(),
            Self::Full(name) => vec![name.clone()],
            Self::Short(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        }
    }
}

/// What git-check-ref-format(1) has against a name, and what would be an option.
fn objection(name: &str) -> Option<&'static str> {
    let part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if name.is_empty() || name.len() > 255 {
        return Some("it is empty or longer than 255 bytes");
    }
    if name.starts_with('-') {
        return Some("it begins with a hyphen");
    }
    if name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c)) || name.contains("..") || name.contains("@{") {
        return Some("it holds a character that no branch or tag can have");
    }
    (name.split('/').any(part) || name.ends_with('.') || name == "@").then_some("no branch or tag can have this name")
}

/// What a remote calls one of its references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) name: String,
    pub(super) id: String,
}

/// Reads what `git ls-remote` prints and keeps what has exactly one of these names: git itself goes by the end of them.
pub(super) fn offered(output: &str, names: &[String]) -> Vec<Offered> {
    let lines = output.lines().filter_map(|line| line.split_once('\t'));
    let exact = lines.filter(|(_, name)| names.iter().any(|wanted| wanted == name));
    exact.map(|(id, name)| Offered { name: name.to_owned(), id: id.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_commits() {
        let id = "0123456789abcdef0123456789ABCDEF01234567";
        assert!(matches!(Wanted::parse(id).unwrap(), Wanted::Commit(commit) if commit.short() == "0123456789ab"));
        assert_eq!(Wanted::parse("0123456").unwrap(), Wanted::Short("0123456".to_owned()));
        assert_eq!(Wanted::parse("refs/tags/v1").unwrap().candidates(), ["refs/tags/v1"]);
        assert_eq!(Wanted::parse("a/b").unwrap().candidates(), ["refs/heads/a/b", "refs/tags/a/b"]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "",
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a:b",
            "+a",
            "a~1",
            "a^{}",
            "a*",
            "a.lock",
            "/a",
            "a//b",
            ".a",
            "a/.b",
            "a.",
            "@",
            "a@{1}",
            "refs/pull/1/head",
            "refs/",
            "a\n",
            "$(x)\u{7f}",
        ] {
            if name == "+a" {
                // A branch may be called so; it is never given to git without refs/heads/ in front.
                continue;
            }
            assert!(matches!(Wanted::parse(name), Err(Error::Reference { .. })), "{name:?}");
        }
    }

    #[test]
    fn only_exact_names_count() {
        let id = "a".repeat(40);
        let output = format!("{id}\trefs/heads/main\n{id}\trefs/remotes/refs/heads/main\n{id}\trefs/tags/main^{{}}\n");
        let found = offered(&output, &Wanted::parse("main").unwrap().candidates());
        assert_eq!(found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["refs/heads/main"]);
    }
}
