//! JUnit reports, as far as the conformance programmes write them: one `testcase` per check, with its outcome as `status`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// What a conformance programme found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many checks passed.
    pub passed: usize,
    /// Names, once per check.
    pub failed: Vec<String>,
    /// Names, with how many checks share one.
    pub skipped: BTreeMap<String, usize>,
}

impl Report {
    /// Reads a report; one that tells of no check is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read the report {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the report {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        // Output of the checks lies between the elements and is escaped there.
        for tag in text.split("<testcase ").skip(1) {
            let tag = tag.split_once('>').context("an element without an end")?.0;
            let tag = &format!(" {tag}");
            let name = attribute(tag, "name").context("a testcase without a name")?;
            match attribute(tag, "status").context("a testcase without a status")?.as_str() {
                "passed" => report.passed += 1,
                "skipped" | "pending" => *report.skipped.entry(name).or_default() += 1,
                "failure" | "failed" | "error" | "panicked" | "timedout" | "interrupted" => report.failed.push(name),
                other => bail!("unknown status {other} of {name}"),
            }
        }
        ensure!(report.passed + report.failed.len() > 0, "it tells of no check that ran");
        Ok(report)
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
    Some(
        value
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&#34;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_and_names_told() {
        let text = r#"<testsuites tests="9"><testsuite>
            <testcase name="a &amp; b" classname="x" status="passed" time="0.1"></testcase>
            <testcase name="c/d" classname="" time="0.1" status="failure"><system-out>&lt;testcase </system-out></testcase>
            <testcase name="e" status="skipped"><skipped message="why"></skipped></testcase>
            <testcase name="e" status="skipped"></testcase></testsuite></testsuites>"#;
        let report = Report::parse(text).unwrap();
        assert_eq!((report.passed, report.failed.as_slice()), (1, ["c/d".to_owned()].as_slice()));
        assert_eq!(report.skipped, BTreeMap::from([("e".to_owned(), 2)]));
        assert_eq!(attribute(r#" name="a &amp; b""#, "name").unwrap(), "a & b");
        assert!(Report::parse("<testsuites></testsuites>").is_err());
        assert!(Report::parse(r#"<testcase name="a" status="odd">"#).is_err());
    }
}
