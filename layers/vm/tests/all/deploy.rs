//! What tests of the files around the daemon share.

use std::path::PathBuf;

use testkit::process::exists;

/// Directory of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file or directory below `deploy/metald`.
pub(crate) fn path(name: &str) -> PathBuf {
    repository().join("deploy/metald").join(name)
}

/// The text of a file below `deploy/metald`.
pub(crate) fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether these programs are there; what is not is said.
pub(crate) fn has(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !exists(program)).collect();
    if !missing.is_empty() {
        eprintln!("NOT RUN: {test}: {} missing", missing.join(", "));
    }
    missing.is_empty()
}

/// A YAML file below `deploy/metald`.
pub(crate) fn yaml(name: &str) -> serde_json::Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
