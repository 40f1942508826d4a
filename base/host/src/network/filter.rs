//! The packet filter: rulesets are loaded as a whole by `nft`; sets and maps change by netlink.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::error::NetworkError;
use super::foreign::ForeignChain;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// ARP.
    Arp,
    /// What a bridge forwards.
    Bridge,
    /// What a link receives.
    Netdev,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Inet, Self::Ip, Self::Ip6, Self::Arp, Self::Bridge, Self::Netdev];

    /// As nft writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    /// By nft's word; a word left out there means IPv4.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == word)
    }
}

/// A table, by family and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Name.
    pub name: String,
}

impl Table {
    /// A table.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "table {} {}", self.family.as_str(), self.name)
    }
}

/// One part of a key or of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `ipv4_addr` or `ipv6_addr`.
    Address(IpAddr),
    /// The same as a prefix; in sets with `flags interval`.
    Prefix(IpNet),
    /// `ifname`.
    Interface(String),
    /// `inet_service`.
    Port(u16),
    /// The same from one to another; in sets with `flags interval`.
    Ports(u16, u16),
    /// `inet_proto`, for example 6 for TCP.
    Protocol(u8),
    /// `mark`.
    Mark(u32),
    /// What a list found and none of the above says: its first and last value, in network order.
    Raw(Vec<u8>, Vec<u8>),
}

impl From<IpAddr> for Part {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<IpNet> for Part {
    fn from(prefix: IpNet) -> Self {
        Self::Prefix(prefix.trunc())
    }
}

impl From<&str> for Part {
    fn from(interface: &str) -> Self {
        Self::Interface(interface.to_owned())
    }
}

impl From<u16> for Part {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<RangeInclusive<u16>> for Part {
    fn from(ports: RangeInclusive<u16>) -> Self {
        Self::Ports(*ports.start(), *ports.end())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Prefix(prefix) => write!(formatter, "{prefix}"),
            Self::Interface(name) => write!(formatter, "{name}"),
            Self::Port(port) => write!(formatter, "{port}"),
            Self::Ports(first, last) => write!(formatter, "{first}-{last}"),
            Self::Protocol(protocol) => write!(formatter, "protocol {protocol}"),
            Self::Mark(mark) => write!(formatter, "mark {mark:#x}"),
            Self::Raw(first, last) => write!(formatter, "{first:02x?}-{last:02x?}"),
        }
    }
}

/// A key: one part, or the parts of a concatenation in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub Vec<Part>);

impl<T: Into<Part>> From<T> for Key {
    fn from(part: T) -> Self {
        Self(vec![part.into()])
    }
}

impl Key {
    /// The key with one part more.
    pub fn and(mut self, part: impl Into<Part>) -> Self {
        self.0.push(part.into());
        self
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            write!(formatter, "{}{part}", if at == 0 { "" } else { " . " })?;
        }
        Ok(())
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This hook lets it pass; another chain may still drop it.
    Accept,
    /// It is gone.
    Drop,
    /// The next rule decides.
    Continue,
    /// The calling chain decides.
    Return,
    /// A chain decides, and then the next rule.
    Jump(String),
    /// A chain decides, and then the chain's caller.
    Goto(String),
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Values, as in a key.
    Value(Key),
    /// For verdict maps.
    Verdict(Verdict),
}

/// An element of a set, or of a map when it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What packets are compared with.
    pub key: Key,
    /// What a map has for it.
    pub data: Option<Data>,
}

impl Element {
    /// An element of a set.
    pub fn new(key: impl Into<Key>) -> Self {
        Self { key: key.into(), data: None }
    }

    /// An element of a map.
    pub fn mapped(key: impl Into<Key>, value: impl Into<Key>) -> Self {
        Self { key: key.into(), data: Some(Data::Value(value.into())) }
    }

    /// An element of a verdict map.
    pub fn verdict(key: impl Into<Key>, verdict: Verdict) -> Self {
        Self { key: key.into(), data: Some(Data::Verdict(verdict)) }
    }
}

/// An element that a set has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The element.
    pub element: Element,
    /// Packets and bytes, when the set counts.
    pub counted: Option<(u64, u64)>,
}

/// A change of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds an element. One that is there as it is wanted is no failure; a map that has something else for the key
    /// already has it ([`NetworkError::is_already_there`]).
    Add {
        /// Set or map.
        set: String,
        /// The element.
        element: Element,
    },
    /// Removes the element with this key, if there is one.
    Remove {
        /// Set or map.
        set: String,
        /// Its key.
        key: Key,
    },
}

impl Change {
    /// Adds an element.
    pub fn add(set: impl Into<String>, element: Element) -> Self {
        Self::Add { set: set.into(), element }
    }

    /// Removes the element with this key, if there is one.
    pub fn remove(set: impl Into<String>, key: impl Into<Key>) -> Self {
        Self::Remove { set: set.into(), key: key.into() }
    }

    /// The set or map that changes.
    pub fn set(&self) -> &str {
        match self {
            Self::Add { set, .. } | Self::Remove { set, .. } => set,
        }
    }

    /// What an error about it says: operation and object.
    pub(super) fn words(&self, table: &Table) -> (String, String) {
        let object = format!("set {} of {table}", self.set());
        match self {
            Self::Add { element, .. } => (format!("add {} to", element.key), object),
            Self::Remove { key, .. } => (format!("remove {key} from"), object),
        }
    }
}

/// What a table consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableObjects {
    /// Its chains.
    pub chains: Vec<Chain>,
    /// Its named sets and maps.
    pub sets: Vec<Set>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Where packets enter it; nothing when only other chains call it.
    pub hook: Option<Hook>,
}

/// Where a chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's number of the hook in the family; 1 is input and 2 forward for the IP families.
    pub number: u32,
    /// Lower ones are asked first.
    pub priority: i32,
    /// What no rule decides on is dropped.
    pub drops: bool,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Whether it is a map.
    pub map: bool,
}

/// The packet filter of a namespace.
pub trait Filter {
    /// Loads a ruleset in nft's language, as a whole or not at all. Begin it with `table F N {}` and `delete table F N`
    /// to replace a table whether it is there or not.
    fn load_ruleset(&self, ruleset: &str) -> Result<(), NetworkError>;

    /// Changes elements of a table's sets and maps, all of them or none: one transaction. What takes more than 8 MiB,
    /// some tens of thousands of changes, the kernel refuses.
    fn change_elements(&self, table: &Table, changes: &[Change]) -> Result<(), NetworkError>;

    /// The elements of a set or map.
    fn elements(&self, table: &Table, set: &str) -> Result<Vec<Listed>, NetworkError>;

    /// All tables.
    fn tables(&self) -> Result<Vec<Table>, NetworkError>;

    /// What a table consists of.
    fn table(&self, table: &Table) -> Result<TableObjects, NetworkError>;

    /// Chains of other tables that may drop what ours accept: on the hooks input and forward of the IP families an
    /// `accept` only ends its own chain. `ours` are the tables that are not asked about.
    fn foreign_chains(&self, ours: &[Table]) -> Result<Vec<ForeignChain>, NetworkError>;
}
