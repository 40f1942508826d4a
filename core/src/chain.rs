//! An error with its causes, in one line.

use std::error::Error;

/// The error and what caused it, separated by colons. Errors here never repeat their source, so nothing is said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {path}")]
    struct Unreadable {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn causes_follow_their_effects() {
        let error = Unreadable { path: "/x", source: std::io::Error::other("the disk is gone") };
        assert_eq!(chain(&error), "cannot read /x: the disk is gone");
    }
}
