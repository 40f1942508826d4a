//! Files that settings come from.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::SettingsError;

/// A text file and whether every user can read it.
pub(crate) struct TextFile {
    pub(crate) text: String,
    pub(crate) world_readable: bool,
}

pub(crate) fn read(path: &Path) -> Result<TextFile, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    // The mode of what was opened, not of what the name means by then.
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(TextFile { text, world_readable: mode & 0o004 != 0 })
}

/// The content of a file that holds nothing but a secret; one line end after it does not count.
pub(crate) fn read_secret(path: &Path) -> Result<String, SettingsError> {
    let file = read(path)?;
    if file.world_readable {
        return Err(SettingsError::WorldReadable { path: path.to_owned() });
    }
    let text = file.text.strip_suffix('\n').unwrap_or(&file.text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
