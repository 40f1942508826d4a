//! Secrets of an inventory: values in the file itself, or in files of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use host::FileError;
use kube::core::ObjectMeta;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::node::{Node, Tree};
use super::schema::Check;

/// A Secret of Kubernetes has at most 1 MiB; nothing here needs more.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// A Secret. Its values cannot be printed.
pub struct Secret {
    /// Name, namespace and annotations.
    pub metadata: ObjectMeta,
    values: BTreeMap<String, SecretSlice<u8>>,
}

impl Secret {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Names of its values.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A value.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&SecretSlice<u8>> {
        self.values.get(key)
    }

    /// A value that is text. A newline at its end is left out unless it is a private key, which must have one.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<SecretString> {
        let text = std::str::from_utf8(self.values.get(key)?.expose_secret()).ok()?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Some(if text.starts_with("-----BEGIN ") { format!("{line}\n").into() } else { line.into() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("name", &self.metadata.name)
            .field("keys", &self.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Whether an object has values in it, so that nobody else may read the file.
pub(super) fn has_values(object: &Node) -> bool {
    ["data", "stringData"].iter().any(|field| object.get(field).is_some_and(|values| !values.keys().is_empty()))
}

/// Makes a Secret of an object; `directory` is where names of files begin.
pub(super) fn secret(object: &Node, metadata: ObjectMeta, directory: &Path, check: &mut Check<'_>) -> Secret {
    let known = ["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData", "secretFiles"];
    check.names(object, "", &known);
    let mut values = BTreeMap::new();
    for field in ["data", "stringData", "secretFiles"] {
        if let Some(given) = object.get(field).filter(|given| !matches!(given.tree, Tree::Map(_) | Tree::Null)) {
            let problem = (check.at)(given.line, field, "is not a map".to_owned(), None);
            check.problems.push(problem);
        }
        for key in object.get(field).map_or(&[][..], Node::keys) {
            let name = format!("{field}.{}", key.name);
            let mut wrong = |reason: String, hint: Option<&str>| {
                let problem = (check.at)(key.line, &name, reason, hint.map(str::to_owned));
                check.problems.push(problem);
            };
            // Never with the value in it: it is one even if it stands in the wrong place.
            let Some(text) = key.value.text() else {
                wrong("is not text".to_owned(), Some("put it in quotes"));
                continue;
            };
            let value = match field {
                "data" => {
                    let packed: String = text.split_ascii_whitespace().collect();
                    match STANDARD.decode(packed) {
                        Ok(value) => value,
                        Err(_) => {
                            wrong("is not base64".to_owned(), Some("plain text goes into stringData"));
                            continue;
                        }
                    }
                }
                "stringData" => text.as_bytes().to_vec(),
                _ => match private_file(&directory.join(text)) {
                    Ok(value) => value,
                    Err((reason, hint)) => {
                        wrong(reason, hint);
                        continue;
                    }
                },
            };
            if values.insert(key.name.clone(), value.into()).is_some() && field == "secretFiles" {
                wrong("is in data or stringData, too".to_owned(), None);
            }
        }
    }
    Secret { metadata, values }
}

/// What a file with secrets says that others can read.
pub(super) const EXPOSED: (&str, &str) = ("has secrets, and others can read it", "chmod 600");

/// Whether others than the owner can do anything with an open file.
pub(super) fn exposed(file: &File) -> std::io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

fn private_file(path: &Path) -> Result<Vec<u8>, (String, Option<&'static str>)> {
    let file = File::open(path);
    let told = |error| {
        let FileError { source, .. } = FileError::at("read", path)(error);
        (format!("cannot read {}: {source}", path.display()), None)
    };
    let file = file.map_err(told)?;
    if exposed(&file).map_err(told)? {
        return Err((format!("{} can be read by others", path.display()), Some(EXPOSED.1)));
    }
    let mut value = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut value).map_err(told)?;
    if value.len() as u64 > SIZE_LIMIT {
        return Err((format!("{} is larger than 1 MiB", path.display()), None));
    }
    Ok(value)
}
