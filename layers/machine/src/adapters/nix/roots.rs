//! What the collector must not take away.

use std::path::PathBuf;
use std::time::Duration;

use reach::ssh::{Command, Connection};

use super::{Error, Nix};

/// How long a link on a machine may take.
const LIMIT: Duration = Duration::from_secs(60);

impl Nix {
    /// The link here that holds a derivation.
    pub(super) fn derivation_root(&self, root: &str) -> Result<PathBuf, Error> {
        Ok(self.settings.state.join("roots").join(format!("{}.drv", word(root)?)))
    }

    /// The link here that holds a result.
    pub(super) fn output_root(&self, root: &str) -> Result<PathBuf, Error> {
        Ok(self.settings.state.join("roots").join(word(root)?))
    }

    /// Gives up what is held here under this name.
    ///
    /// # Errors
    /// The links cannot be removed.
    pub fn release(&self, root: &str) -> Result<(), Error> {
        host::remove_if_present(&self.output_root(root)?)?;
        Ok(host::remove_if_present(&self.derivation_root(root)?)?)
    }

    /// Holds paths on a machine before they are there: a link to what is not there yet is passed over by the collector, and
    /// counts from the moment that the path arrives.
    pub(super) async fn hold_there(&self, connection: &Connection, root: &str, paths: &[&str]) -> Result<(), Error> {
        for path in paths {
            let link = self.link_there(root, path.ends_with(".drv"))?;
            let command = Command::new("ln").args(["-sfn", "--", store_path(path)?, link.as_str()]).as_root();
            run(connection, "hold a root", &command).await?;
        }
        Ok(())
    }

    /// Gives up what is held on a machine under this name.
    ///
    /// # Errors
    /// The machine does not answer, or the links cannot be removed.
    pub async fn release_there(&self, connection: &Connection, root: &str) -> Result<(), Error> {
        let links = [self.link_there(root, false)?, self.link_there(root, true)?];
        run(connection, "give up a root", &Command::new("rm").args(["-f", "--"]).args(links).as_root()).await
    }

    fn link_there(&self, root: &str, is_derivation: bool) -> Result<String, Error> {
        let end = if is_derivation { ".drv" } else { "" };
        Ok(format!("{}/cairn-{}{end}", self.settings.remote_roots, word(root)?))
    }
}

async fn run(connection: &Connection, operation: &'static str, command: &Command) -> Result<(), Error> {
    let output = connection.run(command, &[], LIMIT).await?;
    if output.exit.is_success() {
        return Ok(());
    }
    let (place, message) = (connection.name().to_owned(), output.stderr_text());
    if message.contains("No space left on device") {
        return Err(Error::DiskFull { place: Some(place) });
    }
    Err(Error::Remote { place, operation, message })
}

/// A name of a root: letters, digits and hyphens.
fn word(root: &str) -> Result<&str, Error> {
    let is_word = !root.is_empty() && root.len() <= 100 && !root.starts_with('-');
    let is_plain = root.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_word && is_plain { Ok(root) } else { Err(Error::Word { word: root.to_owned() }) }
}

/// A path right below a store: what programs take for a path and nothing else.
pub(super) fn store_path(path: &str) -> Result<&str, Error> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let has_hash =
        name.len() > 33 && name.as_bytes()[32] == b'-' && name[..32].bytes().all(|b| b.is_ascii_alphanumeric());
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-._?=".contains(&byte));
    let is_path = path.starts_with('/') && has_hash && is_plain && !path.split('/').any(|part| part == "..");
    if is_path { Ok(path) } else { Err(Error::Word { word: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_stores_and_plain_words_are_taken() {
        let name = format!("{}-nixos-system-web1-24.11", "a".repeat(32));
        assert!(store_path(&format!("/nix/store/{name}")).is_ok());
        for path in [name.as_str(), "/nix/store/x", "-x", "", &format!("/nix/../{name}"), &format!("/nix/{name} x")] {
            assert!(matches!(store_path(path), Err(Error::Word { .. })), "{path:?}");
        }
        assert!(word("0192-ab_c").is_ok());
        for root in ["", "a/b", "..", "-f", "a b"] {
            assert!(matches!(word(root), Err(Error::Word { .. })), "{root:?}");
        }
    }
}
