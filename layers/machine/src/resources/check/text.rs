//! Strings of users, by what they are used as. No answer here repeats more of a string than a person needs to find it.

use std::net::IpAddr;

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

type Checked = Result<(), Wrong>;

/// What every text has in common: something is there, it could not be taken for an option, nothing in it is invisible.
pub(super) fn argument(text: &str) -> Checked {
    if text.is_empty() {
        return Err(Wrong::new("is empty"));
    }
    if text.starts_with('-') {
        return Err(Wrong::new(format!("{text:?} begins with `-`: a program would take it for an option")));
    }
    if let Some(character) = text.chars().find(|character| character.is_control()) {
        return Err(Wrong::new(format!("has the character {character:?}")));
    }
    Ok(())
}

/// The first character that is not allowed.
fn only(text: &str, allowed: impl Fn(char) -> bool, what: &str) -> Checked {
    match text.chars().find(|character| !allowed(*character)) {
        Some(character) => Err(Wrong::new(format!("{text:?} has {character:?}; {what}"))),
        None => Ok(()),
    }
}

/// A name of a host or an IP address.
pub(super) fn host(text: &str) -> Checked {
    argument(text)?;
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if text.starts_with('[') {
        return Err(Wrong::new(format!("{text:?} is in brackets")).hint("write an IPv6 address without them"));
    }
    if let Some((_, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(Wrong::new(format!("{text:?} has a port")).hint("the port has a field of its own: sshPort"));
    }
    if text.contains('@') {
        return Err(Wrong::new(format!("{text:?} has a user")).hint("the user has a field of its own: sshUser"));
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    only(text, allowed, "a host is a name of letters, digits, `.`, `-` and `_`, or an IP address")?;
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    for label in labels {
        if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(Wrong::new(format!("{text:?} is neither a host name nor an IP address")));
        }
    }
    Ok(())
}

/// A user or group of a Linux system.
pub(super) fn account(text: &str) -> Checked {
    argument(text)?;
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    only(text.strip_suffix('$').unwrap_or(text), allowed, "a user has letters, digits, `.`, `-` and `_`")?;
    if text.len() > 32 {
        return Err(Wrong::new(format!("{text:?} is longer than 32 characters")));
    }
    Ok(())
}

/// A name of a Kubernetes object: a DNS subdomain.
pub(super) fn object_name(text: &str) -> Checked {
    argument(text)?;
    let allowed = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '.')
    };
    only(text, allowed, "a name has small letters, digits, `-` and `.`")?;
    let ends = |character: char| character.is_ascii_alphanumeric();
    if text.len() > 253 || !text.split('.').all(|part| part.starts_with(ends) && part.ends_with(ends)) {
        return Err(Wrong::new(format!("{text:?} is not a name of an object")));
    }
    Ok(())
}

/// A name of a namespace: a DNS label.
pub(super) fn namespace(text: &str) -> Checked {
    object_name(text)?;
    if text.len() > 63 || text.contains('.') {
        return Err(Wrong::new(format!("{text:?} is not a name of a namespace")));
    }
    Ok(())
}

/// A key within a Secret.
pub(super) fn secret_key(text: &str) -> Checked {
    argument(text)?;
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    only(text, allowed, "a key has letters, digits, `.`, `-` and `_`")?;
    if text == "." || text.starts_with("..") {
        return Err(Wrong::new(format!("{text:?} is not a key of a Secret")));
    }
    Ok(())
}

/// A path that stays below the directory it is joined to.
pub(super) fn relative_path(text: &str) -> Checked {
    argument(text)?;
    if text.starts_with('/') {
        return Err(Wrong::new(format!("{text:?} is absolute")).hint("write it without the leading `/`"));
    }
    if text.contains('\\') {
        return Err(Wrong::new(format!("{text:?} has a backslash")));
    }
    for part in text.split('/') {
        if part == ".." {
            return Err(Wrong::new(format!("{text:?} leads out of its directory")));
        }
        if part.eq_ignore_ascii_case(".git") {
            return Err(Wrong::new(format!("{text:?} leads into Git's own directory")));
        }
    }
    Ok(())
}

/// A path of a file below a directory: like [`relative_path`], and it names something.
pub(super) fn file_path(text: &str) -> Checked {
    relative_path(text)?;
    if text.ends_with('/') || text.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(Wrong::new(format!("{text:?} names a directory")));
    }
    Ok(())
}

/// A branch, tag or commit, after the rules of `git check-ref-format`.
pub(super) fn git_reference(text: &str) -> Checked {
    argument(text)?;
    let forbidden = |character: char| " ~^:?*[\\".contains(character);
    only(text, |character| !forbidden(character), "no reference of Git has that")?;
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if text.contains("..") || text.contains("@{") || text == "@" || text.ends_with('.') || text.split('/').any(bad_part)
    {
        return Err(Wrong::new(format!("{text:?} is not a name of a branch or tag")));
    }
    Ok(())
}

/// A name of a unit of systemd.
pub(super) fn unit(text: &str) -> Checked {
    argument(text)?;
    let allowed = |character: char| character.is_ascii_alphanumeric() || ":_.\\@-".contains(character);
    only(text, allowed, "that is not in a name of a unit")?;
    let kinds =
        ["service", "socket", "target", "mount", "automount", "timer", "path", "slice", "scope", "swap", "device"];
    match text.rsplit_once('.') {
        Some((name, kind)) if !name.is_empty() && kinds.contains(&kind) => Ok(()),
        _ => {
            Err(Wrong::new(format!("{text:?} has no kind of unit at its end")).hint(format!("such as {text}.service")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(check: fn(&str) -> Checked, texts: &[&str]) {
        for text in texts {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[track_caller]
    fn bad(check: fn(&str) -> Checked, texts: &[&str]) {
        for text in texts {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts() {
        good(host, &["web", "web-1.example.org.", "10.0.0.1", "2001:db8::1", "under_score"]);
        bad(
            host,
            &[
                "",
                "-oProxyCommand=x",
                "a b",
                "a;b",
                "$(x)",
                "[::1]",
                "web:22",
                "root@web",
                "a..b",
                "-a.b",
                "a-.b",
                "ü",
                "a\nb",
            ],
        );
        assert!(host("web:22").unwrap_err().hint.unwrap().contains("sshPort"));
    }

    #[test]
    fn accounts_and_names() {
        good(account, &["root", "deploy", "a.b-c_d", "host$"]);
        bad(account, &["", "-l", "a b", "a;b", "root'", "DOMAIN\\user", "a:b", &"a".repeat(33)]);
        good(object_name, &["web", "web-1.example", "0"]);
        bad(object_name, &["", "Web", "-a", "a-", "a..b", "a/b", "../a", &"a".repeat(254)]);
        good(namespace, &["default"]);
        bad(namespace, &["a.b", &"a".repeat(64)]);
        good(secret_key, &["ssh-privatekey", "id_ed25519.pub"]);
        bad(secret_key, &["", "a/b", "..", "..data", "."]);
    }

    #[test]
    fn paths_stay_below() {
        good(file_path, &["a", "hosts/web/secrets.nix", "./a", "a.git/b", "..a", "a..b"]);
        bad(
            file_path,
            &["", "/etc/passwd", "../a", "a/../../b", "a/..", "-a", "a/", ".", "a\0b", ".git/config", "a\\b"],
        );
        good(relative_path, &[".", "hosts/", "a/b"]);
    }

    #[test]
    fn references_of_git() {
        good(git_reference, &["main", "refs/heads/main", "v1.2", "feature/a-b", &"a".repeat(40)]);
        bad(
            git_reference,
            &["", "--upload-pack=x", "a b", "a..b", "a~1", "HEAD^", "a:b", "@{-1}", "a.lock", "a/", "/a", "@", "a."],
        );
    }

    #[test]
    fn units() {
        good(unit, &["nginx.service", "getty@tty1.service", "multi-user.target", r"dev-disk-by\x2did.device"]);
        bad(unit, &["nginx", "", "-x.service", "a;b.service", ".service", "a/b.service"]);
    }
}
