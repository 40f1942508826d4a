//! Where the memory of this process is (metald's guide: "Enable memory profiling").

use std::fs;
use std::io;

/// What the kernel says about the memory of this process: sizes from proc_pid_status(5), and what is shared, private and
/// swapped from `smaps_rollup`.
///
/// # Errors
/// /proc cannot be read.
pub fn report() -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    // The kernel may have been built without it.
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    Ok(compose(&status, &rollup))
}

fn compose(status: &str, rollup: &str) -> String {
    let interesting = |line: &&str| line.starts_with("Vm") || line.starts_with("Rss") || line.starts_with("Threads");
    let mut text = String::from("# /proc/self/status\n");
    for line in status.lines().filter(interesting) {
        text.push_str(line);
        text.push('\n');
    }
    // The first line of the other is the range of addresses.
    let mut rollup = rollup.lines().skip(1).peekable();
    if rollup.peek().is_some() {
        text.push_str("\n# /proc/self/smaps_rollup\n");
    }
    for line in rollup {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_is_told() {
        let text = compose("Name:\tcairn\nVmRSS:\t  12 kB\nUid:\t0\nThreads:\t3\n", "0-f ---p [rollup]\nPss: 4 kB\n");
        assert_eq!(text, "# /proc/self/status\nVmRSS:\t  12 kB\nThreads:\t3\n\n# /proc/self/smaps_rollup\nPss: 4 kB\n");
        assert_eq!(compose("VmRSS:\t1 kB\n", ""), "# /proc/self/status\nVmRSS:\t1 kB\n");
    }

    #[test]
    fn this_process_can_be_asked() {
        assert!(report().unwrap().contains("VmRSS:"));
    }
}
