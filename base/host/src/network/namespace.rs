//! Network namespaces of a host, and what one of them offers.

use std::fmt;
use std::path::PathBuf;

use super::address::Addresses;
use super::error::NetworkError;
use super::filter::Filter;
use super::limit::Traffic;
use super::link::Links;

/// Which network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The one that this process is in.
    Host,
    /// One with a name.
    Named(String),
    /// The one that a process is in.
    Process(u32),
}

impl Place {
    /// A namespace by its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(formatter, "the host's namespace"),
            Self::Named(name) => write!(formatter, "namespace {name}"),
            Self::Process(pid) => write!(formatter, "the namespace of process {pid}"),
        }
    }
}

/// A name in the directory of namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The name.
    pub name: String,
    /// Which namespace it is: two names of one namespace have the same number. Nothing when the name has none, as
    /// after a kill in the middle of making it; such a name can be made again or removed.
    pub inode: Option<u64>,
}

/// The network namespaces of a host.
pub trait Networks: Send + Sync {
    /// Makes a namespace that stays until it is removed. Everything in it is down.
    fn create_namespace(&self, name: &str) -> Result<(), NetworkError>;

    /// Takes the name away. The kernel ends the namespace, with all links in it, a little later, and only when no
    /// process and no other name holds it: whoever counts afterwards removes links that have an end elsewhere first.
    fn remove_namespace(&self, name: &str) -> Result<(), NetworkError>;

    /// Gives a namespace another name. A kill in the middle leaves both names.
    fn rename_namespace(&self, from: &str, to: &str) -> Result<(), NetworkError>;

    /// Gives the namespace of a place a name, as `ip netns attach` does: of a process whose namespace lost its own.
    fn name_namespace(&self, place: &Place, name: &str) -> Result<(), NetworkError>;

    /// All names, sorted.
    fn namespaces(&self) -> Result<Vec<Namespace>, NetworkError>;

    /// The file that stands for a namespace, for programs that take one (`--netns`).
    fn namespace_path(&self, name: &str) -> PathBuf;

    /// A hold on a namespace. It lives at least as long as the hold.
    fn open(&self, place: &Place) -> Result<Box<dyn Network>, NetworkError>;
}

/// What is inside one namespace.
pub trait Network: Links + Addresses + Filter + Traffic + fmt::Debug + Send + Sync {
    /// Which one.
    fn place(&self) -> &Place;

    /// Runs `work` on a thread that is in the namespace, and waits for it. Sockets opened and processes started there
    /// belong to the namespace; the calling thread never enters it. For [`Place::Host`] that is the calling thread.
    fn inside(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), NetworkError>;

    /// A setting below `/proc/sys/net`, for example `ipv4/ip_forward` or `ipv4/conf/tap0/proxy_arp`.
    fn sysctl(&self, key: &str) -> Result<String, NetworkError>;

    /// Changes such a setting.
    fn set_sysctl(&self, key: &str, value: &str) -> Result<(), NetworkError>;
}
