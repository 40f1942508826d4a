//! The OCI's own programme for registries. What counts is its report: no check failed, and none was skipped that is not
//! explained here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use testkit::junit::Report;
use testkit::peers::{CONFORMANCE, CONFORMANCE_1_0};

use super::daemon::{Access, PASSWORD, Registry, USER};

/// What [`newest`] needs.
pub(crate) const NEEDS: &[&str] = &["htpasswd", CONFORMANCE];
/// What [`one_zero`] needs.
pub(crate) const NEEDS_1_0: &[&str] = &["htpasswd", CONFORMANCE_1_0];

/// Features of 1.1 that its checks leave out unless they are asked for, and that are claimed.
const CLAIMED: [&str; 4] = [
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
];
/// What the report of 1.1 may say of a feature besides that it passes, and why.
const FEATURES: &[(&str, &str)] =
    &[("Sparse Manifests: Disabled", "optional; a manifest whose content is missing is refused")];
/// What the suite of 1.0 may skip, without the words that all names begin with, and why.
const SKIPPED_1_0: &[(&str, &str)] = &[
    ("Content Discovery Setup Populate registry with test tags (no push)", "the tags are pushed"),
    ("Pull Setup Get tag name from environment", "the tag is pushed"),
    (
        "Push Cross-Repository Blob Mount Cross-mounting of nonexistent blob should yield session id",
        "it follows only where the mount before it is not made",
    ),
    (
        "Push Cross-Repository Blob Mount Cross-mounting without from, and automatic content discovery disabled should \
         return a 202",
        "the discovery works: the check for that runs",
    ),
];
/// What names in the report of 1.0 begin with.
const PREFIX_1_0: &str = "[It] OCI Distribution Conformance Tests ";

/// The checks of 1.1, with a password and with tokens. None is skipped.
pub(crate) fn newest(work: &Path) -> Result<()> {
    let results = checks(work, Access::Basic)?;
    let text = std::fs::read_to_string(results.join("results.yaml")).context("read the programme's results.yaml")?;
    features(&text)?;
    checks(work, Access::Token).map(drop)
}

/// Gives back where the results lie.
fn checks(work: &Path, access: Access) -> Result<PathBuf> {
    let registry = Registry::start(&work.join(format!("{access:?}").to_lowercase()), access)?;
    let results = registry.work().join("results");
    let mut command = registry.client(CONFORMANCE);
    command.env("OCI_REGISTRY", registry.authority()).env("OCI_TLS", "disabled").env("OCI_VERSION", "1.1");
    command.env("OCI_USERNAME", USER).env("OCI_PASSWORD", PASSWORD).env("OCI_RESULTS_DIR", &results);
    command.envs(CLAIMED.map(|name| (name, "true")));
    judge(CONFORMANCE, command, &results, &[]).with_context(|| format!("access {access:?}"))?;
    Ok(results)
}

/// `apis` and `data` of the results: a line for each feature, with its state.
fn features(text: &str) -> Result<()> {
    let states = ["Pass", "Skip", "Disabled", "FAIL", "Error", "Unknown"];
    let is_state = |line: &&str| line.rsplit_once(": ").is_some_and(|(_, state)| states.contains(&state));
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).map(str::trim).filter(is_state).collect();
    let others: Vec<&str> = lines.iter().filter(|line| !line.ends_with(": Pass")).copied().collect();
    println!("{CONFORMANCE}: {} features pass", lines.len() - others.len());
    for line in &others {
        println!("  {line}: {}", reason(FEATURES, line));
    }
    ensure!(lines.len() > others.len(), "no feature in {text}");
    ensure!(others.iter().eq(FEATURES.iter().map(|(line, _)| line)), "other features are left out than are explained");
    Ok(())
}

/// Why this is allowed.
fn reason<'r>(allowed: &[(&str, &'r str)], name: &str) -> &'r str {
    allowed.iter().find(|(other, _)| *other == name).map_or("NOT ALLOWED", |(_, reason)| reason)
}

/// The suite of 1.0, which also runs where the newest programme cannot be had.
pub(crate) fn one_zero(work: &Path) -> Result<()> {
    let registry = Registry::start(work, Access::Basic)?;
    let mut command = registry.client(CONFORMANCE_1_0);
    command.env("OCI_ROOT_URL", format!("http://{}", registry.authority())).env("OCI_REPORT_DIR", work);
    command.env("OCI_USERNAME", USER).env("OCI_PASSWORD", PASSWORD);
    command.env("OCI_NAMESPACE", "conformance/one").env("OCI_CROSSMOUNT_NAMESPACE", "conformance/two");
    // Without it the suite tries neither that a mount without `from` works nor that it does not.
    command.env("OCI_AUTOMATIC_CROSSMOUNT", "1");
    for part in ["PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT"] {
        command.env(format!("OCI_TEST_{part}"), "1");
    }
    judge(CONFORMANCE_1_0, command, work, SKIPPED_1_0)
}

/// Runs a programme and judges its report in `results`.
fn judge(name: &str, mut command: Command, results: &Path, allowed: &[(&str, &str)]) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    let report = Report::read(&results.join("junit.xml"))
        .with_context(|| format!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    let count: usize = report.skipped.values().sum();
    println!("{name}: {} passed, {} failed, {count} skipped", report.passed, report.failed.len());
    for name in &report.failed {
        println!("  failed: {name}");
    }
    let skipped: BTreeMap<&str, usize> =
        report.skipped.iter().map(|(name, count)| (name.trim_start_matches(PREFIX_1_0), *count)).collect();
    for (name, count) in &skipped {
        println!("  skipped: {name} ({count}): {}", reason(allowed, name));
    }
    ensure!(report.failed.is_empty(), "{} checks failed", report.failed.len());
    ensure!(output.status.success(), "no check failed, but the programme ended with {}", output.status);
    let explained: BTreeSet<&str> = allowed.iter().map(|(name, _)| *name).collect();
    ensure!(
        skipped.keys().copied().collect::<BTreeSet<_>>() == explained,
        "other checks are skipped than are explained"
    );
    Ok(())
}
