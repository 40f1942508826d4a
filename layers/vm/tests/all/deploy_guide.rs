//! The table of the guide's lines in docs/layers/vm.md agrees with those that the scenario `vm-guide` runs.

use std::fs;

use crate::deploy::repository;

const LINES: &str = "tests/src/vm/guide/lines.sh";
/// In the table, in the place of words that were left out.
const LEFT_OUT: char = '…';

/// Cells of a row; a bar within one is written `\|`.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_matches('|').replace("\\|", "\0");
    row.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// Whether a line has these words in this order.
fn has(line: &str, words: &str) -> bool {
    let mut rest = line;
    words.split(LEFT_OUT).map(str::trim).all(|part| {
        let found = rest.split_once(part);
        rest = found.map_or("", |(_, after)| after);
        found.is_some()
    })
}

#[test]
fn every_line_that_is_said_to_run_is_run() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).unwrap();
    // Continued lines are one.
    let lines = read(LINES).replace("\\\n", " ");
    let page = read("docs/layers/vm.md");
    let table = page.split("## Every line of the guide").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<String>> = table.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    let mut run = 0;
    for row in &rows {
        let [what, _, how] = row.as_slice() else { panic!("not three cells: {row:?}") };
        if what == "line" || !how.starts_with("yes") {
            assert!(["run", "no: ", "with ", "the first"].iter().any(|word| how.starts_with(word)), "{row:?}");
            continue;
        }
        for words in what.split('`').skip(1).step_by(2) {
            assert!(lines.lines().any(|line| has(line, words)), "not run: {words}");
            run += 1;
        }
    }
    assert!(run > 50, "{run} of {} rows", rows.len());
}
