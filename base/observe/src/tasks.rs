//! What this process is doing right now, for a person who wonders why it hangs (metald's guide: `/debug/pprof/goroutine`
//! and `kill -QUIT`). Like the log, the list of tasks belongs to the process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

static TASKS: LazyLock<Mutex<Tasks>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Tasks {
    next: u64,
    live: BTreeMap<u64, (String, Instant)>,
}

fn tasks() -> MutexGuard<'static, Tasks> {
    TASKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a task off the list however it ends.
struct Entry(u64);

impl Entry {
    fn new(name: String) -> Self {
        let mut tasks = tasks();
        let id = tasks.next;
        tasks.next += 1;
        tasks.live.insert(id, (name, Instant::now()));
        Self(id)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        tasks().live.remove(&self.0);
    }
}

/// Runs a future under a name, which says what it does and to what: `vm ud-1: boot`. It stands on the list until it ends.
pub async fn named<F: Future>(name: impl Into<String>, future: F) -> F::Output {
    let _entry = Entry::new(name.into());
    future.await
}

/// Tasks that the runtime of the caller has; 0 outside a runtime.
pub fn alive() -> usize {
    tokio::runtime::Handle::try_current().map_or(0, |handle| handle.metrics().num_alive_tasks())
}

/// The list as text: named tasks, the oldest first, then the threads of the process with their state (proc_pid_stat(5)).
pub fn dump() -> String {
    let mut text = String::new();
    let live: Vec<_> = tasks().live.values().cloned().collect();
    // Writing to a text cannot fail.
    let _ = writeln!(text, "tasks: {} in this runtime, {} with a name", alive(), live.len());
    for (name, since) in live {
        let _ = writeln!(text, "{:>12.3} s  {name}", since.elapsed().as_secs_f64());
    }
    let threads = threads();
    let _ = writeln!(text, "\nthreads: {}", threads.len());
    for line in threads {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn threads() -> Vec<String> {
    let Ok(directory) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut threads: Vec<u32> =
        directory.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    threads.sort_unstable();
    threads
        .into_iter()
        // A thread that ended meanwhile is none.
        .filter_map(|thread| {
            let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
            let wait = fs::read_to_string(format!("/proc/self/task/{thread}/wchan")).unwrap_or_default();
            thread_line(thread, &stat, wait.trim())
        })
        .collect()
}

/// `state` and processor time of a thread; `wait` is the kernel's function that it sleeps in, where the kernel says so.
fn thread_line(thread: u32, stat: &str, wait: &str) -> Option<String> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The state is field 3 of the manual page, user and kernel time are 14 and 15.
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    let seconds = (ticks(14)? + ticks(15)?) / rustix::param::clock_ticks_per_second() as f64;
    let wait = if wait == "0" { "" } else { wait };
    Some(format!("{thread:>12}    {}  {name:<16} {seconds:>10.2} s  {wait}", fields.first()?).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_listed_for_as_long_as_it_lives() {
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (tell, started) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(named("vm ud-7: boot", async move {
            let _ = tell.send(());
            let _ = wait.await;
        }));
        started.await.unwrap();
        let text = dump();
        assert!(text.contains("s  vm ud-7: boot\n"), "{text}");
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        assert!(threads >= 1 && text.contains("\nthreads: "), "{text}");
        drop(go);
        task.await.unwrap();
        assert!(!dump().contains("ud-7"));
    }

    #[test]
    fn a_thread_is_told_with_its_state() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 9 0 1000";
        assert_eq!(
            thread_line(7, stat, "ep_poll").unwrap(),
            "           7    S  a ) b                  0.00 s  ep_poll"
        );
        assert!(thread_line(7, stat, "0").unwrap().ends_with(" s"));
        assert_eq!(thread_line(7, "nonsense", ""), None);
    }
}
