//! What commands are given.

use std::io::Read;
use std::path::Path;

use cairn_core::ErrorKind;
use secrecy::SecretString;
use url::Url;
use web::Problem;

/// A mistake in how the command was called.
pub fn usage(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail)
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())))
}

/// A secret from a file, or from standard input for `-`; one line end at its end is not part of it.
///
/// # Errors
/// It cannot be read, or is empty.
pub fn read_secret(path: &Path) -> Result<SecretString, Problem> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut text)
            .map_err(|error| usage(format!("cannot read standard input: {error}")))?;
    } else {
        text = read_text(path)?;
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(usage(format!("{} holds no password", path.display())));
    }
    Ok(secret.to_owned().into())
}

/// A text as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut url = Url::parse("http://x/").unwrap_or_else(|_| unreachable!("a constant address"));
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}
