//! Links: veth pairs, taps, bridges.

use std::fmt;
use std::str::FromStr;

use super::error::NetworkError;
use super::namespace::Place;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// A text is no hardware address of six two-digit hexadecimal numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hardware address")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let parts: Vec<u8> = text
            .split(':')
            .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .filter_map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        let whole = text.len() == 17;
        parts.try_into().ok().filter(|_| whole).map(Self).ok_or_else(|| MacError(text.to_owned()))
    }
}

/// A link that is to be made. What is not said is left to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// Name, 1 to 15 bytes.
    pub name: String,
    /// What it is.
    pub kind: NewKind,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Whether it is up from the start; of a pair, this end.
    pub up: bool,
}

/// What a link that is to be made is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewKind {
    /// One end of a pair.
    Veth(VethPeer),
    /// A link whose other end a program holds (`/dev/net/tun`): with virtio header and one queue, and it stays when
    /// no program has it. `owner` and `group` may open it without being root.
    Tap {
        /// User id.
        owner: u32,
        /// Group id.
        group: u32,
    },
    /// A bridge.
    Bridge,
}

/// The other end of a veth pair. It is down: the kernel cannot switch it on before the pair is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPeer {
    /// Name, 1 to 15 bytes.
    pub name: String,
    /// The namespace it is born in; nothing for the same one.
    pub place: Option<Place>,
    /// Hardware address.
    pub mac: Option<Mac>,
}

impl NewLink {
    /// A link that is down and otherwise as the kernel likes.
    pub fn new(name: impl Into<String>, kind: NewKind) -> Self {
        Self { name: name.into(), kind, mac: None, mtu: None, up: false }
    }

    /// A pair whose other end is in `place`.
    pub fn veth(name: impl Into<String>, peer: impl Into<String>, place: Option<Place>) -> Self {
        Self::new(name, NewKind::Veth(VethPeer { name: peer.into(), place, mac: None }))
    }

    /// The same, and up; of a pair, this end.
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }

    /// The same with a hardware address.
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// The same with the largest packet, in bytes; of a pair, both ends.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }
}

impl fmt::Display for NewLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            NewKind::Veth(VethPeer { name: peer, place: None, .. }) => write!(formatter, "links {name} and {peer}"),
            NewKind::Veth(VethPeer { name: peer, place: Some(place), .. }) => {
                write!(formatter, "link {name} with the other end {peer} in {place}")
            }
            NewKind::Tap { .. } => write!(formatter, "tap {name}"),
            NewKind::Bridge => write!(formatter, "bridge {name}"),
        }
    }
}

/// A link that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Other names, in the kernel's order.
    pub altnames: Vec<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Whether it is switched on.
    pub up: bool,
    /// Hardware address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// The bridge it is a port of.
    pub master: Option<String>,
    /// Whether ports of the bridge that are isolated hear nothing from it.
    pub isolation: Isolation,
}

/// Whether a bridge's port talks to other isolated ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// It is no port of a bridge.
    NoPort,
    /// It talks to every port.
    Open,
    /// It talks to ports that are not isolated.
    Isolated,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a pair.
    Veth(Peer),
    /// With its owner and group, where it has them.
    Tap {
        /// User id.
        owner: Option<u32>,
        /// Group id.
        group: Option<u32>,
        /// Whether packets carry a virtio header.
        vnet_header: bool,
    },
    /// A bridge.
    Bridge,
    /// Anything else, by the kernel's word for it; empty for hardware and the loopback link.
    Other(String),
}

/// The other end of a veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its number in its namespace.
    pub index: u32,
    /// Nothing when it is in the same namespace; otherwise the number of that one, as [`Links::namespace_id`] tells
    /// it.
    pub namespace: Option<i32>,
}

/// A change of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Switches it on.
    Up,
    /// Switches it off.
    Down,
    /// Largest packet, in bytes.
    Mtu(u32),
    /// Hardware address.
    Mac(Mac),
    /// Another name; older kernels want it to be down.
    Name(String),
    /// One more name.
    AddAltname(String),
    /// One name less.
    RemoveAltname(String),
    /// Makes it a port of a bridge.
    Master(String),
    /// Makes it a port of no bridge.
    NoMaster,
    /// Whether, as a port, it talks to other isolated ports.
    Isolated(bool),
    /// Moves it into another namespace. It loses its addresses and is down there.
    Move(Place),
}

impl fmt::Display for LinkChange {
    /// What is done to the link, as it stands in errors before its name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => write!(formatter, "switch on"),
            Self::Down => write!(formatter, "switch off"),
            Self::Mtu(mtu) => write!(formatter, "set the largest packet to {mtu} bytes on"),
            Self::Mac(mac) => write!(formatter, "set the hardware address to {mac} on"),
            Self::Name(name) => write!(formatter, "give the name {name} to"),
            Self::AddAltname(name) => write!(formatter, "add the name {name} to"),
            Self::RemoveAltname(name) => write!(formatter, "take the name {name} from"),
            Self::Master(bridge) => write!(formatter, "connect to bridge {bridge}"),
            Self::NoMaster => write!(formatter, "take from its bridge"),
            Self::Isolated(true) => write!(formatter, "isolate"),
            Self::Isolated(false) => write!(formatter, "end the isolation of"),
            Self::Move(place) => write!(formatter, "move to {place}"),
        }
    }
}

/// The links of a namespace.
pub trait Links {
    /// Makes a link; of a pair, both ends.
    fn add_link(&self, link: &NewLink) -> Result<(), NetworkError>;

    /// Changes the link that has this name or alternative name.
    fn change_link(&self, name: &str, change: &LinkChange) -> Result<(), NetworkError>;

    /// Removes a link, with its addresses, routes and limits; of a pair, both ends. Returns when the kernel has let go
    /// of it, which takes tens of milliseconds; whoever cannot wait removes the namespace of an end and lets the kernel
    /// do this later.
    fn remove_link(&self, name: &str) -> Result<(), NetworkError>;

    /// The link that has this name or alternative name.
    fn link(&self, name: &str) -> Result<Link, NetworkError>;

    /// All links, by index.
    fn links(&self) -> Result<Vec<Link>, NetworkError>;

    /// The number under which this namespace knows another, see [`Peer::namespace`]; nothing when it does not know it.
    fn namespace_id(&self, other: &Place) -> Result<Option<i32>, NetworkError>;
}
