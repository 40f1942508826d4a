//! Which names are accepted.

use super::error::Cause;

/// Longest name of a link, in bytes (`IFNAMSIZ` less the zero at its end).
const LINK_NAME: usize = 15;
/// Longest alternative name of a link, in bytes (`ALTIFNAMSIZ` less one).
const ALTERNATIVE_NAME: usize = 127;
/// Longest name of a namespace: it is a file name.
const NAMESPACE_NAME: usize = 255;

/// A link's name: 1 to 15 bytes, no space, slash or colon.
pub(super) fn link(name: &str) -> Result<(), Cause> {
    check(name, LINK_NAME, "link", |byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
}

/// An alternative name of a link: the same, but up to 127 bytes.
pub(super) fn alternative(name: &str) -> Result<(), Cause> {
    check(name, ALTERNATIVE_NAME, "link", |byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
}

/// A namespace's name: a file name without spaces.
pub(super) fn namespace(name: &str) -> Result<(), Cause> {
    check(name, NAMESPACE_NAME, "namespace", |byte| byte.is_ascii_graphic() && byte != b'/')
}

/// A key below `/proc/sys/net`: parts between slashes, none of them `.` or `..`.
pub(super) fn sysctl(key: &str) -> Result<(), Cause> {
    for part in key.split('/') {
        check(part, NAMESPACE_NAME, "setting", |byte| byte.is_ascii_graphic())?;
    }
    Ok(())
}

fn check(name: &str, longest: usize, what: &str, allowed: impl Fn(u8) -> bool) -> Result<(), Cause> {
    let invalid = |why: String| Err(Cause::Invalid(format!("{name:?} is no name for a {what}: {why}")));
    if name.is_empty() || name == "." || name == ".." {
        return invalid("it is empty or stands for a directory".to_owned());
    }
    if name.len() > longest {
        return invalid(format!("it has {} bytes, {longest} is the most", name.len()));
    }
    match name.bytes().find(|byte| !allowed(*byte)) {
        Some(byte) => invalid(format!("it contains {:?}", char::from(byte))),
        None => Ok(()),
    }
}
