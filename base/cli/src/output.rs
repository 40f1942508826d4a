//! What commands print: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a command's result goes. Progress and warnings go to standard error.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// JSON instead of tables.
    pub json: bool,
    /// Text instead of standard output and standard error.
    taken: Option<Arc<Mutex<String>>>,
}

impl Output {
    /// To standard output.
    pub fn new(json: bool) -> Self {
        Self { json, taken: None }
    }

    /// Into a text that [`Output::taken`] gives, for callers that are no terminal.
    pub fn into_text(json: bool) -> Self {
        Self { json, taken: Some(Arc::default()) }
    }

    /// What went into the text so far.
    pub fn taken(&self) -> String {
        self.taken.as_ref().map(|text| text.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// A line of the result. A reader that went away (`| head`) is no error; a disk that is full is.
    pub fn line(&self, text: impl std::fmt::Display) {
        let text = for_a_terminal(&text.to_string());
        if let Some(taken) = &self.taken {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push_str(&text);
            taken.push('\n');
        } else if let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.note(format_args!("error: cannot write the result: {error}"));
            std::process::exit(1);
        }
    }

    /// A line beside the result.
    pub fn note(&self, text: impl std::fmt::Display) {
        if self.taken.is_some() {
            return self.line(format_args!("(beside) {text}"));
        }
        let _ = writeln!(std::io::stderr().lock(), "{}", for_a_terminal(&text.to_string()));
    }

    /// The result as JSON.
    pub fn json<T: serde::Serialize>(&self, value: &T) {
        self.line(serde_json::to_string_pretty(value).unwrap_or_default());
    }

    /// Whether somebody watches standard error.
    pub fn is_watched(&self) -> bool {
        self.taken.is_none() && std::io::stderr().is_terminal()
    }

    /// Rows under a head, in columns as wide as they need to be.
    pub fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) {
        let mut widths = head.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: [&str; N]| {
            let mut text = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            text.trim_end().to_owned()
        };
        self.line(line(head));
        for row in rows {
            self.line(line(row.each_ref().map(String::as_str)));
        }
    }
}

/// A size as people read it.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A BMC, a machine, a registry elsewhere or a label may say anything: what steers a terminal or turns text around is
/// shown, not obeyed.
pub fn for_a_terminal(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown_and_not_obeyed() {
        assert_eq!(for_a_terminal("a\u{1b}[2Jb\tc\nd"), "a\u{fffd}[2Jb\tc\nd");
        assert_eq!(for_a_terminal("x\u{202e}y"), "x\u{fffd}y");
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 20 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20.0 GiB", "16384.0 PiB"]);
    }
}
