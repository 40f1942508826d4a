//! How the parts of keys and values lie in the bytes of a set (nft(8), "data types").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::Cause;
use super::filter::{Data, Element, Key, Part};
use super::names;

/// Bytes of a link's name in a key, with zeros behind it.
const INTERFACE: usize = 16;

/// The type of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Mark,
    Interface,
}

/// Each with nft's word and nft's number for it.
const KINDS: [(Kind, &str, u32); 6] = [
    (Kind::Ipv4, "ipv4_addr", 7),
    (Kind::Ipv6, "ipv6_addr", 8),
    (Kind::Protocol, "inet_proto", 12),
    (Kind::Port, "inet_service", 13),
    (Kind::Mark, "mark", 19),
    (Kind::Interface, "ifname", 41),
];

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The parts of a key; nothing when a type is none of ours.
    pub(super) key: Option<Vec<Kind>>,
    pub(super) mapping: Mapping,
    /// Whether keys can be ranges.
    pub(super) interval: bool,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mapping {
    /// It is a set.
    Nothing,
    Verdict,
    /// The parts of a value; nothing when a type is none of ours.
    Values(Option<Vec<Kind>>),
}

/// First and last key of an element, equal unless it is a range.
pub(super) type Span = (Vec<u8>, Vec<u8>);

/// Types from nft's number for a concatenation, six bits for each.
pub(super) fn kinds_by_number(mut number: u32) -> Option<Vec<Kind>> {
    let mut kinds = Vec::new();
    while number != 0 {
        kinds.insert(0, KINDS.iter().find(|(_, _, known)| *known == number & 0x3f)?.0);
        number >>= 6;
    }
    Some(kinds)
}

/// A type by nft's word.
pub(super) fn kind_by_word(word: &str) -> Option<Kind> {
    KINDS.iter().find(|(_, known, _)| *known == word).map(|(kind, _, _)| *kind)
}

impl Kind {
    fn word(self) -> &'static str {
        KINDS.iter().find(|(kind, _, _)| *kind == self).map_or("", |(_, word, _)| word)
    }

    fn length(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::Interface => 16,
        }
    }

    fn span(self, part: &Part) -> Result<Span, Cause> {
        let one = |bytes: &[u8]| (bytes.to_vec(), bytes.to_vec());
        Ok(match (self, part) {
            (Self::Ipv4, Part::Address(IpAddr::V4(address))) => one(&address.octets()),
            (Self::Ipv6, Part::Address(IpAddr::V6(address))) => one(&address.octets()),
            (Self::Ipv4, Part::Prefix(IpNet::V4(net))) => {
                (net.network().octets().to_vec(), net.broadcast().octets().to_vec())
            }
            (Self::Ipv6, Part::Prefix(IpNet::V6(net))) => {
                (net.network().octets().to_vec(), net.broadcast().octets().to_vec())
            }
            (Self::Protocol, Part::Protocol(protocol)) => one(&[*protocol]),
            (Self::Port, Part::Port(port)) => one(&port.to_be_bytes()),
            (Self::Port, Part::Ports(first, last)) if first <= last => {
                (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec())
            }
            (Self::Mark, Part::Mark(mark)) => one(&mark.to_ne_bytes()),
            (Self::Interface, Part::Interface(name)) => {
                names::link(name)?;
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(INTERFACE, 0);
                (bytes.clone(), bytes)
            }
            _ => return Err(Cause::Invalid(format!("{part} is no {}", self.word()))),
        })
    }

    fn part(self, first: &[u8], last: &[u8]) -> Option<Part> {
        let same = first == last;
        Some(match self {
            Self::Ipv4 => {
                let (first, last) = (Ipv4Addr::from(*first.first_chunk()?), Ipv4Addr::from(*last.first_chunk()?));
                let bits = (u32::from(first) ^ u32::from(last)).leading_zeros();
                let net = Ipv4Net::new(first, u8::try_from(bits).ok()?).ok()?;
                let whole = net.network() == first && net.broadcast() == last;
                if same { Part::Address(first.into()) } else { Part::Prefix(IpNet::V4(whole.then_some(net)?)) }
            }
            Self::Ipv6 => {
                let (first, last) = (Ipv6Addr::from(*first.first_chunk()?), Ipv6Addr::from(*last.first_chunk()?));
                let bits = (u128::from(first) ^ u128::from(last)).leading_zeros();
                let net = Ipv6Net::new(first, u8::try_from(bits).ok()?).ok()?;
                let whole = net.network() == first && net.broadcast() == last;
                if same { Part::Address(first.into()) } else { Part::Prefix(IpNet::V6(whole.then_some(net)?)) }
            }
            Self::Port => {
                let (first, last) =
                    (u16::from_be_bytes(*first.first_chunk()?), u16::from_be_bytes(*last.first_chunk()?));
                if same { Part::Port(first) } else { Part::Ports(first, last) }
            }
            _ if !same => return None,
            Self::Protocol => Part::Protocol(*first.first()?),
            Self::Mark => Part::Mark(u32::from_ne_bytes(*first.first_chunk()?)),
            Self::Interface => {
                let name = first.split(|byte| *byte == 0).next().unwrap_or_default();
                Part::Interface(String::from_utf8_lossy(name).into_owned())
            }
        })
    }
}

impl Layout {
    /// The bytes of a key.
    pub(super) fn span(&self, key: &Key) -> Result<Span, Cause> {
        let (first, last) = span(self.key.as_deref(), key)?;
        if first != last && !self.interval {
            return Err(Cause::Invalid(format!("{key} is more than one value, and the set has no intervals")));
        }
        Ok((first, last))
    }

    /// The key of these bytes.
    pub(super) fn key(&self, first: &[u8], last: &[u8]) -> Key {
        key(self.key.as_deref(), first, last)
    }

    /// Whether keys have several parts.
    pub(super) fn concatenated(&self) -> bool {
        self.key.as_ref().is_none_or(|kinds| kinds.len() > 1)
    }

    /// The bytes of what a map has for an element; nothing for a verdict and for sets.
    pub(super) fn value(&self, element: &Element) -> Result<Option<Vec<u8>>, Cause> {
        match (&self.mapping, &element.data) {
            (Mapping::Nothing, None) | (Mapping::Verdict, Some(Data::Verdict(_))) => Ok(None),
            (Mapping::Values(kinds), Some(Data::Value(value))) => {
                let (first, last) = span(kinds.as_deref(), value)?;
                let one = first == last;
                if one { Ok(Some(first)) } else { Err(Cause::Invalid(format!("{value} is more than one value"))) }
            }
            (Mapping::Nothing, Some(_)) => Err(Cause::Invalid("a set has no values".to_owned())),
            (Mapping::Verdict, _) => Err(Cause::Invalid("the map wants a verdict".to_owned())),
            (Mapping::Values(_), _) => Err(Cause::Invalid("the map wants a value".to_owned())),
        }
    }

    /// What a map has, from its bytes.
    pub(super) fn mapped(&self, bytes: &[u8]) -> Key {
        let kinds = if let Mapping::Values(kinds) = &self.mapping { kinds.as_deref() } else { None };
        key(kinds, bytes, bytes)
    }
}

fn span(kinds: Option<&[Kind]>, key: &Key) -> Result<Span, Cause> {
    if let [Part::Raw(first, last)] = key.0.as_slice() {
        return Ok((first.clone(), last.clone()));
    }
    let kinds = kinds.unwrap_or_default();
    if kinds.len() != key.0.len() {
        let wanted: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
        return Err(Cause::Invalid(format!("{key} is no {}", wanted.join(" . "))));
    }
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (kind, part) in kinds.iter().zip(&key.0) {
        let (begin, end) = kind.span(part)?;
        first.extend(begin);
        last.extend(end);
        if kinds.len() > 1 {
            first.resize(first.len().next_multiple_of(4), 0);
            last.resize(last.len().next_multiple_of(4), 0);
        }
    }
    Ok((first, last))
}

fn key(kinds: Option<&[Kind]>, first: &[u8], last: &[u8]) -> Key {
    parts(kinds.unwrap_or_default(), first, last)
        .map_or_else(|| Key(vec![Part::Raw(first.to_vec(), last.to_vec())]), Key)
}

/// The parts; nothing when the bytes are not as the types want them.
fn parts(kinds: &[Kind], first: &[u8], last: &[u8]) -> Option<Vec<Part>> {
    let (mut at, mut parts) = (0, Vec::new());
    for kind in kinds {
        let place = at..at + kind.length();
        parts.push(kind.part(first.get(place.clone())?, last.get(place)?)?);
        at = (at + kind.length()).next_multiple_of(4);
    }
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = (Kind, Part)> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(|bytes| (Kind::Ipv4, Part::Address(bytes.into()))),
            any::<[u8; 16]>().prop_map(|bytes| (Kind::Ipv6, Part::Address(bytes.into()))),
            (any::<[u8; 4]>(), 0u8..32)
                .prop_map(|(bytes, length)| { (Kind::Ipv4, Part::from(IpNet::new(bytes.into(), length).unwrap())) }),
            (any::<[u8; 16]>(), 0u8..128)
                .prop_map(|(bytes, length)| { (Kind::Ipv6, Part::from(IpNet::new(bytes.into(), length).unwrap())) }),
            any::<u16>().prop_map(|port| (Kind::Port, Part::Port(port))),
            (0u16..100, 100u16..200).prop_map(|(first, last)| (Kind::Port, Part::Ports(first, last))),
            any::<u8>().prop_map(|protocol| (Kind::Protocol, Part::Protocol(protocol))),
            any::<u32>().prop_map(|mark| (Kind::Mark, Part::Mark(mark))),
            "[a-z0-9._-]{1,13}x".prop_map(|name| (Kind::Interface, Part::Interface(name))),
        ]
    }

    proptest! {
        #[test]
        fn every_key_comes_back(parts in proptest::collection::vec(part(), 1..5)) {
            let (kinds, parts): (Vec<Kind>, Vec<Part>) = parts.into_iter().unzip();
            let layout = Layout { key: Some(kinds), mapping: Mapping::Nothing, interval: true };
            let key = Key(parts);
            let (first, last) = layout.span(&key).unwrap();
            prop_assert!(first <= last || key.0.iter().any(|part| matches!(part, Part::Mark(_))));
            prop_assert_eq!(layout.key(&first, &last), key);
        }
    }

    #[test]
    fn numbers_of_concatenations_are_taken_apart() {
        assert_eq!(kinds_by_number(41 << 12 | 7 << 6 | 13), Some(vec![Kind::Interface, Kind::Ipv4, Kind::Port]));
        assert_eq!(kinds_by_number(7 << 6 | 9), None);
    }
}
