//! What the output of tests says, and the account at the end.

use std::time::Duration;

/// What one part came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// What could not run, with its reason.
    pub not_run: Vec<String>,
    /// What was tried twice.
    pub retried: Vec<String>,
    /// Names of the tests that failed.
    pub failures: Vec<String>,
    /// What cargo wants to be told to run each failed target again: `-p keeper --test all`.
    pub targets: Vec<String>,
    /// The list of failures that is being read; it holds when the result follows it.
    listed: Vec<String>,
}

/// A part that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub name: &'static str,
    pub time: Duration,
    pub counts: Counts,
    /// Why it failed.
    pub error: Option<String>,
}

impl Counts {
    /// Takes in one line of a test program's output.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("NOT RUN: ") {
            self.not_run.push(rest.trim().to_owned());
        }
        if let Some(rest) = line.strip_prefix("SECOND TRY: ") {
            self.retried.push(rest.trim().to_owned());
        }
        if line == "failures:" {
            self.listed.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.listed.push(name.to_owned());
        }
        if let Some((_, rest)) = line.split_once("test failed, to rerun pass `") {
            self.targets.push(rest.trim_end_matches('`').to_owned());
        }
        if let Some(rest) = line.trim_start().strip_prefix("test result: ") {
            let listed = std::mem::take(&mut self.listed);
            if rest.starts_with("FAILED") {
                self.failures.extend(listed);
            }
            let number = |word: &str| {
                let before = rest.split(word).next().unwrap_or_default();
                before.trim_end().rsplit([' ', '.']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
            };
            self.passed += number("passed");
            self.failed += number("failed");
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run.extend(other.not_run);
        self.retried.extend(other.retried);
        self.failures.extend(other.failures);
        self.targets.extend(other.targets);
    }
}

/// The account of all parts; its last line is `N passed, N failed`. A check without tests of its own counts as one.
pub(crate) fn account(parts: &[Ended]) -> (String, bool) {
    let mut text = String::from("\n  minutes  part\n");
    let mut all = Counts::default();
    for part in parts {
        let word = if part.error.is_some() { "FAILED" } else { "ok" };
        text.push_str(&format!("{:9.1}  {:12} {word}\n", part.time.as_secs_f64() / 60.0, part.name));
        let mut counts = part.counts.clone();
        if counts.passed + counts.failed == 0 && part.error.is_none() {
            counts.passed = 1;
        }
        // A part that failed without a failed test (it did not build, for example) is a failure too.
        if counts.failed == 0 && part.error.is_some() {
            counts.failed = 1;
        }
        all.join(counts);
    }
    for part in parts {
        if let Some(error) = &part.error {
            text.push_str(&format!("\nFAILED {}: {error}\n", part.name));
        }
    }
    all.not_run.sort();
    all.not_run.dedup();
    if !all.not_run.is_empty() {
        text.push_str(&format!("\n{} not run:\n", all.not_run.len()));
        for line in &all.not_run {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if !all.retried.is_empty() {
        text.push_str(&format!("\n{} tried twice:\n  {}\n", all.retried.len(), all.retried.join("\n  ")));
    }
    text.push_str(&format!("\n{} passed, {} failed", all.passed, all.failed));
    (text, all.failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &'static str, counts: Counts, error: Option<&str>) -> Ended {
        Ended { name, time: Duration::from_secs(90), counts, error: error.map(str::to_owned) }
    }

    #[test]
    fn results_and_what_did_not_run_are_read() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "NOT RUN: pulls_with_skopeo: skopeo is missing",
            "test store::tests::a ... NOT RUN: b: promtool is missing",
            "SECOND TRY: scenario install: see above",
            "failures:",
            "---- a::b stdout ----",
            "    not a name",
            "failures:",
            "    a::b",
            "",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored",
            "error: test failed, to rerun pass `-p keeper --test all`",
        ] {
            counts.line(line);
        }
        assert_eq!((counts.passed, counts.failed), (14, 3));
        assert_eq!(counts.retried, ["scenario install: see above"]);
        assert_eq!(
            (counts.failures, counts.targets),
            (vec!["a::b".to_owned()], vec!["-p keeper --test all".to_owned()])
        );
        assert_eq!(counts.not_run, ["pulls_with_skopeo: skopeo is missing", "b: promtool is missing"]);
    }

    #[test]
    fn the_account_hides_nothing() {
        let tests = Counts { passed: 5, failed: 2, not_run: vec!["x: y is missing".to_owned()], ..Counts::default() };
        let parts = [
            ended("fmt", Counts::default(), None),
            ended("clippy", Counts::default(), Some("exit status: 101")),
            ended("tests", tests, Some("exit status: 101")),
        ];
        let (text, good) = account(&parts);
        assert!(!good);
        assert!(text.contains("      1.5  clippy       FAILED\n"), "{text}");
        assert!(text.contains("FAILED clippy: exit status: 101"), "{text}");
        assert!(text.contains("1 not run:\n  x: y is missing\n"), "{text}");
        assert!(text.ends_with("\n6 passed, 3 failed"), "{text}");
        assert!(account(&parts[..1]).1);
    }
}
