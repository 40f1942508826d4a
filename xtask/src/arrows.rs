//! Which crate may depend on which. The rooms are the folders at the top of the workspace.
//!
//! ```text
//! app → layers, lab, base, core      layers, lab → libs, base, core      guest → libs, base/host, core
//! base → base, core                  libs → nothing                      core → nothing
//! ```
//!
//! Layers never see each other. Between crates of base the order is free: Cargo itself refuses circles. testkit, tests
//! and xtask may depend on anything; a product crate may have testkit as a dev-dependency and nothing else of theirs.
//! A dev-dependency of a library may be another library.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo;

/// A dependency between two crates of the workspace, by their folders.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrow {
    from: String,
    to: String,
    dev: bool,
}

/// Reads `cargo metadata`; gives back the number of arrows, or fails naming every forbidden one.
pub(crate) fn check() -> Result<usize> {
    let mut metadata = cargo::cargo(&["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&testkit::process::run(&mut metadata)?).context("cargo metadata")?;
    let arrows = arrows(&metadata)?;
    let wrong: Vec<String> = arrows.iter().filter(|arrow| !allowed(arrow)).map(describe).collect();
    ensure!(wrong.is_empty(), "forbidden arrows (see ARCHITECTURE.md):\n{}", wrong.join("\n"));
    Ok(arrows.len())
}

fn arrows(metadata: &Value) -> Result<Vec<Arrow>> {
    let root = metadata["workspace_root"].as_str().context("workspace_root")?;
    let folder = |path: &str| {
        let inside = Path::new(path).strip_prefix(root).with_context(|| format!("{path} is outside of {root}"))?;
        Ok::<_, anyhow::Error>(inside.display().to_string())
    };
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let manifest = package["manifest_path"].as_str().context("manifest_path")?;
        let from = folder(manifest.trim_end_matches("/Cargo.toml"))?;
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            // Only dependencies on our own crates have a path.
            let Some(path) = dependency["path"].as_str() else { continue };
            arrows.push(Arrow { from: from.clone(), to: folder(path)?, dev: dependency["kind"] == "dev" });
        }
    }
    Ok(arrows)
}

fn allowed(arrow: &Arrow) -> bool {
    let (from, to) = (room(&arrow.from), room(&arrow.to));
    if matches!(from, "testkit" | "tests" | "xtask" | "fuzz" | "benches") {
        return true;
    }
    if arrow.dev && (to == "testkit" || (from, to) == ("libs", "libs")) {
        return true;
    }
    match from {
        "app" => matches!(to, "layers" | "lab" | "base" | "core"),
        "layers" | "lab" => matches!(to, "libs" | "base" | "core"),
        "guest" => matches!(to, "libs" | "core") || arrow.to == "base/host",
        "base" => matches!(to, "base" | "core"),
        _ => false,
    }
}

fn room(folder: &str) -> &str {
    folder.split('/').next().unwrap_or_default()
}

fn describe(arrow: &Arrow) -> String {
    let kind = if arrow.dev { " (dev-dependency)" } else { "" };
    format!("  {} → {}{kind}", arrow.from, arrow.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &str, to: &str, dev: bool) -> Arrow {
        Arrow { from: from.to_owned(), to: to.to_owned(), dev }
    }

    #[test]
    fn the_plan_is_allowed() {
        for (from, to) in [
            ("app", "layers/metal"),
            ("app", "base/store"),
            ("layers/metal", "libs/recipe"),
            ("layers/metal", "base/host"),
            ("layers/metal", "core"),
            ("lab", "libs/redfish"),
            ("guest/dispatcher", "libs/recipe"),
            ("guest/dispatcher", "base/host"),
            ("base/web", "base/observe"),
            ("base/store", "core"),
            ("tests", "testkit"),
            ("xtask", "testkit"),
        ] {
            assert!(allowed(&arrow(from, to, false)), "{from} → {to}");
        }
        assert!(allowed(&arrow("layers/metal", "testkit", true)));
        assert!(allowed(&arrow("libs/redfish", "libs/recipe", true)));
    }

    #[test]
    fn anything_else_is_not() {
        for (from, to) in [
            ("layers/metal", "layers/vm"),
            ("layers/metal", "testkit"),
            ("layers/metal", "app"),
            ("app", "libs/recipe"),
            ("base/web", "libs/recipe"),
            ("base/web", "layers/metal"),
            ("core", "base/host"),
            ("libs/redfish", "libs/recipe"),
            ("libs/redfish", "core"),
            ("guest/dispatcher", "base/store"),
            ("guest/dispatcher", "layers/metal"),
            ("app", "xtask"),
        ] {
            assert!(!allowed(&arrow(from, to, false)), "{from} → {to}");
        }
        assert!(!allowed(&arrow("layers/metal", "layers/vm", true)));
        assert!(!allowed(&arrow("layers/metal", "xtask", true)));
        assert!(!allowed(&arrow("core", "base/host", true)));
    }

    #[test]
    fn metadata_becomes_arrows() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "packages": [{
                "manifest_path": "/w/layers/metal/Cargo.toml",
                "dependencies": [
                    {"name": "serde", "kind": null},
                    {"name": "vm", "kind": null, "path": "/w/layers/vm"},
                    {"name": "testkit", "kind": "dev", "path": "/w/testkit"},
                ],
            }],
        });
        let arrows = arrows(&metadata).unwrap();
        assert_eq!(arrows, [arrow("layers/metal", "layers/vm", false), arrow("layers/metal", "testkit", true)]);
        let wrong: Vec<String> = arrows.iter().filter(|arrow| !allowed(arrow)).map(describe).collect();
        assert_eq!(wrong, ["  layers/metal → layers/vm"]);
    }
}
