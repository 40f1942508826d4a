//! `recipe.env`: the recipe as systemd's `EnvironmentFile=` reads it.

use std::collections::BTreeMap;

use recipe::{Recipe, TargetDisk};

use crate::workspace::Workflow;

/// The file, sorted by name. Names are those that the steps of the original maintenance system know.
pub(crate) fn environment_file(recipe: &Recipe, workflow: &Workflow) -> String {
    let mut variables = recipe.environment();
    for (name, value) in own(recipe, workflow) {
        variables.insert(name.to_owned(), value);
    }
    variables.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect()
}

fn own(recipe: &Recipe, workflow: &Workflow) -> BTreeMap<&'static str, String> {
    let disk = match &recipe.target_disk {
        None => String::new(),
        Some(TargetDisk::Device(path)) => path.clone(),
        // The hints are plain data; writing them as JSON does not fail.
        Some(TargetDisk::Hints(hints)) => serde_json::to_string(hints).unwrap_or_default(),
    };
    BTreeMap::from([
        ("DISPATCHER_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ("FIRMWARE_URL", recipe.firmware_url.clone().unwrap_or_default()),
        ("OCI_URL", recipe.oci_url.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("SCHEMA_ID", workflow.schema_id.clone().unwrap_or_default()),
        ("SCHEMA_VERSION", recipe.schema_version.clone().unwrap_or_default()),
        ("SERIAL_NUMBER", workflow.serial.clone()),
        ("TARGET_DISK", disk),
        ("TASK_TARGET", workflow.task_target.clone()),
        ("WIM_INDEX", recipe.wim_index.to_string()),
        ("WORKFLOW_STARTED_AT", workflow.started_at.clone()),
    ])
}

/// A value in double quotes, where a backslash keeps the next `"`, `\`, `` ` `` and `$` (systemd.exec(5),
/// "EnvironmentFile=").
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for letter in value.chars() {
        if matches!(letter, '"' | '\\' | '`' | '$') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_sorted_quoted_and_keeps_reserved_names() {
        let recipe = recipe::parse(&serde_json::json!({
            "task_target": "install-windows.target",
            "target_disk": {"serial": "S1", "min_size": "1K"},
            "oci_url": "win:11",
            "wim_index": 2,
            "env": {"greeting": "say \"hi\" for $5 \\ `now`", "task_target": "evil.target", "Path": "/evil"}
        }))
        .unwrap();
        let workflow = Workflow {
            task_target: "install-windows.target".into(),
            schema_id: Some("https://example.test/schema".into()),
            started_at: "2026-01-02T03:04:05Z".into(),
            serial: "SN 7".into(),
        };
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            r#"DISPATCHER_VERSION="{version}"
FIRMWARE_URL=""
GREETING="say \"hi\" for \$5 \\ \`now\`"
OCI_URL="win:11"
SCHEMA_ID="https://example.test/schema"
SCHEMA_VERSION=""
SERIAL_NUMBER="SN 7"
TARGET_DISK="{{\"serial\":\"S1\",\"min_size\":1024}}"
TASK_TARGET="install-windows.target"
WIM_INDEX="2"
WORKFLOW_STARTED_AT="2026-01-02T03:04:05Z"
"#
        );
        assert_eq!(environment_file(&recipe, &workflow), expected);
    }
}
