//! Waiting for something that announces itself to nobody: a look now and then, always with a limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Looks every `every` until `look` finds something, and fails naming `what` after `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        pause(every);
    }
}

/// Lets time pass between two looks.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for: a daemon, a guest or a file is watched")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_at_the_third_look_and_names_what_never_comes() {
        let mut looks = 0;
        let found = until("three", Duration::from_secs(60), Duration::ZERO, || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
        let missing = until::<()>("Godot", Duration::ZERO, Duration::ZERO, || Ok(None));
        assert_eq!(missing.unwrap_err().to_string(), "waited 0 s for Godot");
    }
}
