//! Firecracker and its jailer for tests: the fakes always, the real ones where they are named.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::environment;
use crate::process;

/// A pair of programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Firecracker, or the one that plays it.
    pub firecracker: PathBuf,
    /// The jailer; the real one can be missing.
    pub jailer: Option<PathBuf>,
    /// Whether they are the fakes, which take [`Order`]s.
    pub fake: bool,
}

/// The fakes, built by cargo when they are not yet.
pub fn fakes() -> Result<Programs> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let directory = directory.as_ref().map_err(|error| anyhow::anyhow!("build the fakes: {error}"))?;
    let jailer = Some(directory.join("fake-jailer"));
    Ok(Programs { firecracker: directory.join("fake-firecracker"), jailer, fake: true })
}

/// The real ones, when `$CAIRN_TEST_FIRECRACKER` names one and the processor can be virtualised here. Err says why not.
pub fn real() -> Result<Programs, String> {
    let firecracker = environment::firecracker().ok_or("CAIRN_TEST_FIRECRACKER is not set")?;
    if !firecracker.is_file() {
        return Err(format!("{} is missing", firecracker.display()));
    }
    if !Path::new("/dev/kvm").exists() {
        return Err("/dev/kvm is missing".to_owned());
    }
    Ok(Programs { firecracker, jailer: environment::jailer(), fake: false })
}

/// Cargo builds the programs of a package with its own tests only, so a test of another package asks for them.
fn build() -> Result<PathBuf> {
    let program = std::env::current_exe().context("the path of the running program")?;
    // <target>/<profile>/deps/<test>
    let profile = program.ancestors().nth(2).context("the test lies in no target directory")?;
    let target = profile.parent().context("the test lies in no target directory")?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(environment::cargo());
    cargo.args(["build", "--quiet", "--bins", "--manifest-path", manifest, "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    Ok(profile.to_owned())
}

/// What a fake Firecracker is told to do wrong. Orders stand in the file `<socket>.orders`, one on each line, and are
/// read before every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Answers such a request late.
    Slow {
        /// Which.
        request: Pattern,
        /// How late.
        milliseconds: u64,
    },
    /// Never answers such a request, nor any after it; connections are still taken.
    Hang {
        /// Which.
        request: Pattern,
    },
    /// Refuses such a request with status 400.
    Refuse {
        /// Which.
        request: Pattern,
        /// The fault.
        fault: String,
    },
    /// Ends, without a word, once it has answered so many requests.
    Crash {
        /// Exit code.
        code: u8,
        /// Requests.
        after: u64,
    },
    /// Adds to a counter at each metrics line.
    Count {
        /// Group, such as `net_eth0`.
        group: String,
        /// Name, such as `rx_bytes_count`.
        name: String,
        /// How much.
        number: u64,
    },
    /// The guest powers off when Ctrl-Alt-Del is pressed; it takes no notice otherwise.
    ObeyCtrlAltDel,
}

/// Which requests an order is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Method, or `*`.
    pub method: String,
    /// Path, or `*`.
    pub path: String,
}

impl Pattern {
    /// Any request.
    pub fn any() -> Self {
        Self::of("*", "*")
    }

    /// Requests of a method and path.
    pub fn of(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned() }
    }

    /// Whether a request is meant.
    pub fn fits(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && (self.path == "*" || self.path == path)
    }
}

/// Where a fake that listens at `socket` looks for orders.
pub fn orders_file(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".orders");
    path.into()
}

/// Gives a fake new orders in the place of the old ones.
pub fn order(socket: &Path, orders: &[Order]) -> Result<()> {
    let path = orders_file(socket);
    let text: String = orders.iter().map(|order| format!("{order}\n")).collect();
    // By a rename, so that the fake never reads half of them.
    let part = path.with_extension("part");
    std::fs::write(&part, text).with_context(|| format!("write {}", part.display()))?;
    std::fs::rename(&part, &path).with_context(|| format!("rename {}", part.display()))
}

/// The orders of a fake that listens at `socket`; none where there is no file.
pub fn orders(socket: &Path) -> Result<Vec<Order>> {
    let path = orders_file(socket);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().filter(|line| !line.trim().is_empty()).map(str::parse).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { request, milliseconds } => write!(formatter, "slow {request} {milliseconds}"),
            Self::Hang { request } => write!(formatter, "hang {request}"),
            Self::Refuse { request, fault } => write!(formatter, "refuse {request} {fault}"),
            Self::Crash { code, after } => write!(formatter, "crash {code} {after}"),
            Self::Count { group, name, number } => write!(formatter, "count {group} {name} {number}"),
            Self::ObeyCtrlAltDel => formatter.write_str("obey-ctrl-alt-del"),
        }
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.trim().splitn(4, ' ');
        let mut word = || words.next().with_context(|| format!("order {line:?} is too short"));
        Ok(match word()? {
            "slow" => Self::Slow { request: Pattern::of(word()?, word()?), milliseconds: word()?.parse()? },
            "hang" => Self::Hang { request: Pattern::of(word()?, word()?) },
            "refuse" => Self::Refuse { request: Pattern::of(word()?, word()?), fault: word()?.to_owned() },
            "crash" => Self::Crash { code: word()?.parse()?, after: word()?.parse()? },
            "count" => Self::Count { group: word()?.to_owned(), name: word()?.to_owned(), number: word()?.parse()? },
            "obey-ctrl-alt-del" => Self::ObeyCtrlAltDel,
            _ => bail!("unknown order {line:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_given() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        assert_eq!(orders(&socket).unwrap(), []);
        let given = [
            Order::Slow { request: Pattern::any(), milliseconds: 20 },
            Order::Hang { request: Pattern::of("GET", "/") },
            Order::Refuse { request: Pattern::of("PUT", "/drives/a"), fault: "no such disk".to_owned() },
            Order::Crash { code: 148, after: 3 },
            Order::Count { group: "net_eth0".to_owned(), name: "rx_bytes_count".to_owned(), number: 7 },
            Order::ObeyCtrlAltDel,
        ];
        order(&socket, &given).unwrap();
        assert_eq!(orders(&socket).unwrap(), given);
        assert!("crash".parse::<Order>().is_err() && "dance".parse::<Order>().is_err());
    }

    #[test]
    fn a_pattern_can_leave_open() {
        assert!(Pattern::of("PUT", "*").fits("PUT", "/vm") && !Pattern::of("PUT", "*").fits("GET", "/vm"));
        assert!(Pattern::any().fits("GET", "/") && !Pattern::of("*", "/").fits("GET", "/vm"));
    }
}
