//! From a flake to a derivation.

use std::time::Duration;

use super::expression::{HOSTS, NO_SYSTEM, is_host_name, system};
use super::program::{Failed, Where, says};
use super::{Error, Evaluated, Nix};

/// What Nix and its collector of memory say when there is none left. A flake could say so too, and would fool nobody but
/// its own reader.
const NO_MEMORY: [&str; 4] = ["error: out of memory", "GC Warning: Out of Memory", "Out of Memory!", "std::bad_alloc"];
/// How long a question to the store may take.
const QUERY: Duration = Duration::from_secs(60);

impl Nix {
    /// Evaluates `nixosConfigurations.<host>` of a flake, which has to be named by commit or hash: nothing counts but what
    /// the flake holds (pure evaluation). The derivation is held here under `root`.
    ///
    /// It runs in a process of its own; so many at once, each with so much memory, as the settings say. Others wait, and
    /// their `limit` begins when it is their turn.
    ///
    /// # Errors
    /// [`Error::UnknownHost`] with the hosts that there are, [`Error::NoSystem`], [`Error::EvaluationOutOfMemory`],
    /// [`Error::Evaluation`], [`Error::Timeout`].
    pub async fn evaluate(&self, flake: &str, host: &str, root: &str, limit: Duration) -> Result<Evaluated, Error> {
        if !is_host_name(host) {
            return Err(Error::HostName { host: host.to_owned() });
        }
        let link = self.derivation_root(root)?;
        // Whoever closes the semaphore is nobody.
        let _turn = self.evaluations.acquire().await.ok();
        host::remove_if_present(&link)?;
        let command = self
            .command("nix-instantiate", Where::Here, limit)
            .args(["--option", "pure-eval", "true", "--add-root"])
            .arg(link.display().to_string())
            .args(["--indirect", "--expr"])
            .arg(system(flake, host));
        let memory = self.settings.evaluation_memory;
        match self.run("evaluate", command, Some(memory), None).await {
            Ok(_) => {}
            Err(Failed::Error(error)) => return Err(error),
            Err(Failed::Exit { code, tail }) => return Err(understand(host, memory, code, tail)),
        }
        let derivation = std::fs::read_link(&link).map_err(host::FileError::at("read", &link))?.display().to_string();
        let query = self.command("nix-store", Where::Here, QUERY).args(["--query", "--outputs", &derivation]);
        let output = match self.run("look into the store", query, None, None).await {
            Ok(output) => output.text(),
            Err(Failed::Error(error)) => return Err(error),
            Err(Failed::Exit { tail, .. }) => return Err(Error::Evaluation { host: host.to_owned(), tail }),
        };
        let no_system = || Error::NoSystem { host: host.to_owned() };
        let output = output.lines().next().ok_or_else(no_system)?.to_owned();
        Ok(Evaluated { derivation, output })
    }
}

fn understand(host: &str, memory: u64, code: Option<i32>, tail: Vec<String>) -> Error {
    let host = host.to_owned();
    let hosts = tail.iter().rev().find_map(|line| line.split_once(HOSTS));
    // The expression is repeated in a trace, with the word as it is written there and nothing that is a list behind it.
    if let Some(hosts) = hosts.and_then(|(_, list)| serde_json::from_str(list.trim().trim_end_matches('\'')).ok()) {
        return Error::UnknownHost { host, hosts };
    }
    if says(&tail, &NO_MEMORY) || code.is_none() {
        // A signal that nobody here has sent: the kernel's, or the program's own when it has no memory even to say so.
        return Error::EvaluationOutOfMemory { host, memory };
    }
    let is_thrown = |line: &String| line.trim_start().starts_with("error:") && line.contains(NO_SYSTEM);
    if tail.iter().any(is_thrown) {
        return Error::NoSystem { host };
    }
    Error::Evaluation { host, tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Option<i32>, lines: &[&str]) -> Error {
        understand("web9", 1 << 30, code, lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn failures_are_told_apart() {
        let error = of(Some(1), &[r#"error: cairn-flake-hosts:["web1","web2"]"#]);
        assert_eq!(error.to_string(), "the flake has no host web9; it has web1, web2");
        let error = of(Some(1), &["error: cairn-flake-hosts:[]"]);
        assert_eq!(error.to_string(), "the flake has no host web9; it has none");
        assert!(matches!(of(Some(1), &["error: cairn-flake-no-system"]), Error::NoSystem { .. }));
        assert!(matches!(of(Some(1), &["error: out of memory"]), Error::EvaluationOutOfMemory { .. }));
        assert!(matches!(of(None, &[]), Error::EvaluationOutOfMemory { .. }));
        let error = of(Some(1), &["error:", "       … while", "       error: attribute 'x' missing", "       at a:1"]);
        assert_eq!(error.to_string(), "cannot evaluate web9: attribute 'x' missing");
        assert_eq!(error.tail().len(), 4);
    }
}
