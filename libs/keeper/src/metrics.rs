//! Metrics: a hypervisor writes what has changed, one JSON object a line; here it is added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line, in bytes; longer ones are not counted.
const LONGEST_LINE: usize = 1 << 20;
/// Most paths; more are not counted, so that nobody can fill disks with them.
const MOST_COUNTERS: usize = 4096;

/// Everything that was told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Lines that were added.
    pub lines: u64,
    /// Lines that were none: cut off, too long, not an object.
    pub ignored: u64,
    /// By path: names of the objects and the value, joined with dots.
    pub counters: BTreeMap<String, Counter>,
}

/// One number of every line. What it means is for the reader to know: Firecracker tells counters as what was added since
/// the line before, and latencies and times as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Sum over all lines.
    pub total: u64,
    /// As the last line had it.
    pub last: u64,
}

impl Totals {
    /// Adds a line. Only whole numbers from 0 count.
    pub fn add(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(fields)) => {
                self.lines += 1;
                for (name, value) in &fields {
                    self.add_value(name, value);
                }
            }
            _ => self.ignored += 1,
        }
    }

    fn add_value(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add_value(&format!("{path}.{name}"), value);
                }
            }
            Value::Number(number) => {
                let Some(number) = number.as_u64() else { return };
                if self.counters.len() >= MOST_COUNTERS && !self.counters.contains_key(path) {
                    return;
                }
                let counter = self.counters.entry(path.to_owned()).or_default();
                counter.total = counter.total.saturating_add(number);
                counter.last = number;
            }
            _ => {}
        }
    }
}

/// Makes lines of pieces.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Adds to `totals` what has become whole with this piece; gives back whether anything has.
    pub fn feed(&mut self, mut piece: &[u8], totals: &mut Totals) -> bool {
        let mut changed = false;
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.append(&piece[..end]);
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.begun);
            if std::mem::take(&mut self.too_long) {
                totals.ignored += 1;
            } else if !line.trim_ascii().is_empty() {
                totals.add(&line);
            }
            changed = true;
        }
        self.append(piece);
        changed
    }

    fn append(&mut self, piece: &[u8]) {
        self.too_long |= self.begun.len() + piece.len() > LONGEST_LINE;
        if self.too_long {
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_added_up_by_path() {
        let mut totals = Totals::default();
        let mut lines = Lines::default();
        let text =
            b"{\"utc_timestamp_ms\":5,\"net\":{\"rx\":3,\"x\":-1,\"s\":\"t\"}}\n{\"net\":{\"rx\":4}}\nno\n[]\n\n{\"a\"";
        assert!(lines.feed(text, &mut totals));
        assert!(!lines.feed(b":1}", &mut totals));
        assert!(lines.feed(b"\n", &mut totals));
        assert_eq!((totals.lines, totals.ignored), (3, 2));
        assert_eq!(totals.counters["net.rx"], Counter { total: 7, last: 4 });
        assert_eq!(totals.counters["a"], Counter { total: 1, last: 1 });
        assert_eq!(totals.counters.keys().collect::<Vec<_>>(), ["a", "net.rx", "utc_timestamp_ms"]);
    }

    #[test]
    fn neither_a_long_line_nor_many_names_fill_anything() {
        let (mut totals, mut lines) = (Totals::default(), Lines::default());
        for _ in 0..20 {
            lines.feed(&[b'x'; 100_000], &mut totals);
            assert!(lines.begun.len() <= LONGEST_LINE);
        }
        lines.feed(b"\n{\"b\":1}\n", &mut totals);
        assert_eq!((totals.lines, totals.ignored), (1, 1));
        for number in 0..MOST_COUNTERS * 2 {
            totals.add(format!("{{\"n{number}\":1}}").as_bytes());
        }
        assert_eq!(totals.counters.len(), MOST_COUNTERS);
        assert_eq!(totals.counters["b"].total, 1);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes: Vec<u8>, cuts: Vec<prop::sample::Index>) {
            let (mut whole, mut parts) = (Totals::default(), Totals::default());
            Lines::default().feed(&bytes, &mut whole);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            for pair in cuts.windows(2) {
                lines.feed(&bytes[pair[0]..pair[1]], &mut parts);
            }
            prop_assert_eq!(whole, parts);
        }
    }
}
