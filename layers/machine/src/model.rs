//! What is wanted of a machine, and what is known of it. Plain data: no Kubernetes, no SSH, no Nix.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

cairn_core::typed_id!(
    /// One try to bring a machine to a system. It names the activation on the host, too.
    DeploymentId,
    "deployment"
);

/// A text is not what it should be. `field` is where it stood, `problem` what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {text:?} {problem}")]
pub struct Invalid {
    /// What the text would have been.
    pub field: &'static str,
    /// What was given.
    pub text: String,
    /// What is wrong, as the end of a sentence.
    pub problem: &'static str,
}

fn invalid(field: &'static str, text: &str, problem: &'static str) -> Invalid {
    Invalid { field, text: text.chars().take(200).collect(), problem }
}

/// A newtype over a text that was checked when it was made.
macro_rules! checked_text {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                $check(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text!(
    /// How a machine is called: `namespace/name`, both as Kubernetes takes them.
    MachineName,
    machine_name
);
checked_text!(
    /// A commit: 40 hexadecimal digits in lower case, or 64 in a repository with SHA-256.
    Commit,
    commit
);
checked_text!(
    /// A path in a Nix store: `/nix/store/HASH-NAME`, nothing below it.
    StorePath,
    store_path
);
checked_text!(
    /// The name of a system in a flake: the word after `nixosConfigurations.`.
    SystemName,
    system_name
);

fn machine_name(text: &str) -> Result<String, Invalid> {
    let fits = |word: &str| {
        !word.is_empty()
            && word.len() <= 253
            && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.'))
            && word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    match text.split_once('/') {
        Some((namespace, name)) if fits(namespace) && fits(name) => Ok(text.to_owned()),
        _ => Err(invalid("machine", text, "is no NAMESPACE/NAME")),
    }
}

impl MachineName {
    /// The machine `name` of a namespace.
    ///
    /// # Errors
    /// One of the words is no name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, Invalid> {
        format!("{namespace}/{name}").parse()
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

fn commit(text: &str) -> Result<String, Invalid> {
    let fits = matches!(text.len(), 40 | 64) && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'));
    if fits { Ok(text.to_owned()) } else { Err(invalid("commit", text, "is no whole hash")) }
}

/// Nix's own alphabet of hashes, and of names (nix, `src/libstore/path.cc`).
fn store_path(text: &str) -> Result<String, Invalid> {
    let is_hash = |c: u8| c.is_ascii_digit() || (c.is_ascii_lowercase() && !matches!(c, b'e' | b'o' | b't' | b'u'));
    let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.' | b'_' | b'?' | b'=');
    let fits = text.strip_prefix("/nix/store/").and_then(|rest| rest.split_once('-')).is_some_and(|(hash, name)| {
        hash.len() == 32 && hash.bytes().all(is_hash) && (1..=211).contains(&name.len()) && name.bytes().all(is_name)
    });
    if fits { Ok(text.to_owned()) } else { Err(invalid("store path", text, "is no path of a Nix store")) }
}

impl StorePath {
    /// The name without its hash: `nixos-system-web-24.11`.
    pub fn name(&self) -> &str {
        self.0.get("/nix/store/".len() + 33..).unwrap_or_default()
    }
}

/// Takes `#web`, `.#web` and `web`: the guide writes all three. Another flake than the repository's own is none of them.
fn system_name(text: &str) -> Result<String, Invalid> {
    let word = text.strip_prefix(".#").or_else(|| text.strip_prefix('#')).unwrap_or(text);
    if word.contains(['#', ':', '/']) {
        return Err(invalid("flake", text, "names another flake; only the repository's own is taken"));
    }
    let fits = word.len() <= 253
        && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && word.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if fits { Ok(word.to_owned()) } else { Err(invalid("flake", text, "names no system")) }
}

/// Where the system is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Placement {
    /// Where Cairn runs; the result is copied to the machine.
    #[default]
    Controller,
    /// On the machine itself.
    Machine,
    /// On another machine, by name; the result is copied from there.
    Builder(MachineName),
}

/// Where a check of the network begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The machine itself.
    #[default]
    Machine,
    /// Where Cairn runs: what is between them is checked, too.
    Controller,
}

/// What has to hold before a new system is kept. That no unit fails which did not fail before is always asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What messages call it.
    pub name: String,
    /// What is asked.
    pub probe: Probe,
    /// How long it may take until it holds; it is asked again until then.
    pub timeout: Duration,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Units of systemd are active.
    Units(Vec<String>),
    /// A program, with its arguments, ends with 0. No shell reads them.
    Command(Vec<String>),
    /// A URL answers with this status, or with any from 200 to 299.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// The status that is good.
        status: Option<u16>,
        /// Where the request comes from.
        from: Origin,
    },
    /// A port takes a connection.
    Tcp {
        /// Name or address; the machine where nothing is said.
        host: Option<String>,
        /// The port.
        port: u16,
        /// Where the connection comes from.
        from: Origin,
    },
}

/// A file beside what the repository has.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it goes: below the flake's directory, or below `/run/cairn/files` on the machine.
    pub path: String,
    /// What is in it.
    pub content: SecretString,
    /// How it gets there.
    pub delivery: Delivery,
}

/// How a file gets to where it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Into the tree that is evaluated, and so, readable for everybody, into the Nix store.
    Tree,
    /// Over SSH onto the host, never into a store, before the new system is tried.
    Host {
        /// User that owns it.
        owner: String,
        /// Group that owns it.
        group: String,
        /// Permission bits, such as 0o400.
        mode: u32,
    },
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the dead man's timer being armed to the new system being confirmed; the host takes the old one back after it.
    pub confirm: Duration,
    /// Evaluating, building and copying, each.
    pub build: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { confirm: Duration::from_secs(300), build: Duration::from_secs(3600) }
    }
}

/// What a machine should run: everything that was named is resolved, nothing is looked up any more.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The machine.
    pub machine: MachineName,
    /// The configuration's name, for history.
    pub configuration: String,
    /// Branch, tag or commit.
    pub reference: String,
    /// Directory of the flake in the repository; empty for its root.
    pub subdirectory: String,
    /// Which system of the flake.
    pub system: SystemName,
    /// Where it is built.
    pub placement: Placement,
    /// What has to hold before it is kept.
    pub health: Vec<HealthCheck>,
    /// Files beside the repository's.
    pub files: Vec<File>,
    /// How long things may take.
    pub limits: Limits,
}

/// What a host says of its systems.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Changes with every start of the kernel.
    pub boot_id: String,
    /// What `/run/current-system` points to; nothing on a host that is no NixOS.
    pub current: Option<StorePath>,
    /// What `/run/booted-system` points to.
    pub booted: Option<StorePath>,
    /// What the system profile points to: this is what the next start brings.
    pub profile: Option<StorePath>,
    /// Whether kernel, initial file system or kernel modules of the current system are other than the booted one's.
    pub reboot_required: bool,
    /// Units in a failed state.
    #[serde(default)]
    pub failed_units: Vec<String>,
}

impl Running {
    /// Whether the host runs this system and would start it.
    pub fn is(&self, system: &StorePath) -> bool {
        self.current.as_ref() == Some(system) && self.profile.as_ref() == Some(system)
    }
}

/// What a host says of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activation {
    /// It knows nothing of it: never begun here, or begun before the host started anew.
    Absent,
    /// It could not be armed, so nothing was tried.
    NotBegun {
        /// Why.
        reason: String,
    },
    /// Another deployment has the machine.
    Held {
        /// Its id, as the host has it.
        holder: String,
        /// How long it has had the machine.
        age: Duration,
    },
    /// It goes on without us.
    Underway(Underway),
    /// The new system runs, on trial: it is confirmed or it goes.
    OnTrial,
    /// The new system is the one to stay.
    Confirmed,
    /// The old system runs again.
    RolledBack {
        /// Why, as the host has it.
        reason: String,
        /// The end of what the activation wrote.
        log: String,
    },
    /// Neither the new system nor the old one could be activated.
    RollbackFailed {
        /// Why it was to go back, and how that ended.
        reason: String,
        /// The end of what both wrote.
        log: String,
    },
}

/// What a host is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underway {
    /// The way back is being armed.
    Arming,
    /// The new system is being activated.
    Testing,
    /// The new system becomes the one to stay.
    Confirming,
    /// The old system is being activated.
    RollingBack,
}

impl Underway {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arming => "arming",
            Self::Testing => "testing",
            Self::Confirming => "confirming",
            Self::RollingBack => "rolling-back",
        }
    }
}

/// What an activation would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Units that would stop.
    pub stop: Vec<String>,
    /// Units that would start.
    pub start: Vec<String>,
    /// Units that would restart.
    pub restart: Vec<String>,
    /// Units that would reload.
    pub reload: Vec<String>,
    /// Units that changed and would be left alone.
    pub untouched: Vec<String>,
    /// Store paths that would come, by name.
    pub added: Vec<String>,
    /// Store paths that would go, by name.
    pub removed: Vec<String>,
    /// Whether the machine needs a restart for all of it.
    pub reboot_required: bool,
}

impl Preview {
    /// Whether any unit would be touched.
    pub fn touches_units(&self) -> bool {
        !(self.stop.is_empty() && self.start.is_empty() && self.restart.is_empty() && self.reload.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_are_words_of_the_repositorys_own_flake() {
        let parsed = |text: &str| text.parse::<SystemName>().map(String::from);
        for text in ["web-1", "#web-1", ".#web-1"] {
            assert_eq!(parsed(text).as_deref(), Ok("web-1"), "{text}");
        }
        for text in ["", "#", "#a b", "#x;touch y", "github:o/r#h", "../x#h", "-h", ".", "a\"b", "${x}", "a\n"] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
        assert!(parsed("github:o/r#h").unwrap_err().to_string().contains("another flake"));
    }

    #[test]
    fn a_store_path_is_one_path_of_the_store() {
        let good = "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-web-24.11";
        assert_eq!(good.parse::<StorePath>().unwrap().name(), "nixos-system-web-24.11");
        for text in [
            "",
            "/nix/store/x-y",
            "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-a/b",
            "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-a b",
            "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-",
            "/nix/store/../store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-x",
            "/nix/store/ec0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-x",
        ] {
            assert!(text.parse::<StorePath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_machine_has_a_namespace() {
        let name: MachineName = "default/web-1".parse().unwrap();
        assert_eq!((name.namespace(), name.name()), ("default", "web-1"));
        for text in ["web-1", "a/b/c", "/x", "x/", "A/b", "a/-b", "a/b;c"] {
            assert!(text.parse::<MachineName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_commit_is_a_whole_hash() {
        assert!("0123456789abcdef0123456789abcdef01234567".parse::<Commit>().is_ok());
        assert!("main".parse::<Commit>().is_err());
        assert!("0123456789ABCDEF0123456789abcdef01234567".parse::<Commit>().is_err());
    }
}
