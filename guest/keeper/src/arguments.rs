//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the keeper is told besides what is in the directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The directory of one VM.
    pub(crate) directory: PathBuf,
    /// Control groups begin with this; nothing for a keeper in a unit of its own.
    pub(crate) groups: Option<String>,
    /// Goes on in the background.
    pub(crate) detach: bool,
    /// Is the one in the background: standard error is a pipe that is let go once the process has begun.
    pub(crate) detached: bool,
}

impl Arguments {
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut groups, mut detach, mut detached, mut directory) = (None, false, false, None);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--groups") => groups = words.next().and_then(|word| word.into_string().ok()),
                Some("--detach") => detach = true,
                Some("--detached") => detached = true,
                Some(option) if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ if directory.is_none() => directory = Some(PathBuf::from(word)),
                _ => return Err("one directory, not more".to_owned()),
            }
        }
        let directory = directory.ok_or("usage: cairn-keeper [--groups PREFIX [--detach]] DIRECTORY")?;
        // The keeper changes its working directory.
        let directory = std::path::absolute(directory).map_err(|error| error.to_string())?;
        if detach && groups.is_none() {
            return Err(
                "--detach needs --groups: otherwise the keeper would stay in its starter's control group".to_owned()
            );
        }
        Ok(Self { directory, groups, detach, detached })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arguments, String> {
        Arguments::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn words_are_understood_or_refused() {
        let plain = parse("/a/b").unwrap();
        assert_eq!(plain, Arguments { directory: "/a/b".into(), groups: None, detach: false, detached: false });
        let full = parse("--groups metald --detach /a").unwrap();
        assert_eq!((full.groups.as_deref(), full.detach), (Some("metald"), true));
        for bad in ["", "--groups", "--detach /a", "--what /a", "/a /b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
