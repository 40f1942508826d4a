//! Netlink messages: header, a fixed part, and attributes in attributes (netlink(7), linux/netlink.h).

use std::net::IpAddr;

/// Length of the header in front of every message.
const HEADER: usize = 16;
/// Length of the header in front of every attribute.
const ATTRIBUTE_HEADER: usize = 4;
/// The attribute holds attributes (`NLA_F_NESTED`).
pub(crate) const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that say which one it is (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;

/// A message that is being built. Numbers are in the order of this machine unless a name says `be`.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    oversized: bool,
}

impl Message {
    /// A message of a type with its flags; `fixed` is the structure that its protocol puts before the attributes.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut message = Self { bytes, oversized: false };
        message.append(fixed);
        message
    }

    /// Adds an attribute.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or_else(|_| {
            self.oversized = true;
            0
        });
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.append(value);
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a string with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn address(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(value) => self.bytes(kind, &value.octets()),
            IpAddr::V6(value) => self.bytes(kind, &value.octets()),
        }
    }

    /// Adds an attribute that holds what `inner` adds.
    pub(crate) fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.holding(kind | NESTED, &[], inner)
    }

    /// Adds an attribute that begins with a structure and goes on with attributes.
    pub(crate) fn holding(&mut self, kind: u16, fixed: &[u8], inner: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let start = self.bytes.len();
        self.bytes(kind, fixed);
        inner(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.oversized = true,
        }
        self
    }

    /// How long it is so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished message; nothing when an attribute was too long for its 16-bit length.
    pub(crate) fn finish(mut self, sequence: u32) -> Option<Vec<u8>> {
        let length = u32::try_from(self.bytes.len()).ok().filter(|_| !self.oversized)?;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Some(self.bytes)
    }

    /// Asks the kernel to acknowledge it.
    pub(crate) fn acknowledged(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | super::numbers::NLM_F_ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Adds bytes and fills up to a multiple of four.
    fn append(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message from the kernel, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
}

impl Reply {
    /// Splits what one read returned. What is cut off at its end is left out.
    pub(crate) fn split(mut bytes: &[u8]) -> Vec<Self> {
        let mut replies = Vec::new();
        while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
            let length = word(header, 0) as usize;
            let Some(payload) = length.checked_sub(HEADER).and_then(|length| rest.get(..length)) else { break };
            let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            let (kind, flags, sequence) = (half(4), half(6), word(header, 8));
            replies.push(Self { kind, flags, sequence, payload: payload.to_vec() });
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        replies
    }

    /// The first `length` bytes; nothing when it is shorter.
    pub(crate) fn fixed<const LENGTH: usize>(&self) -> Option<&[u8; LENGTH]> {
        self.payload.first_chunk()
    }

    /// The attributes behind a fixed part of `length` bytes.
    pub(crate) fn attributes(&self, length: usize) -> Attributes<'_> {
        Attributes(self.payload.get(length.next_multiple_of(4)..).unwrap_or_default())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The attributes in a stretch of bytes, each with its type and value. Ends at the first that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes in the first attribute of this type; none when it is not there.
    pub(crate) fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    pub(crate) fn u32_be(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    pub(crate) fn u64_be(self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    pub(crate) fn address(self, kind: u16) -> Option<IpAddr> {
        address_in(self.get(kind)?)
    }
}

/// Text up to the zero that ends it.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The text of an attribute's value.
pub(crate) fn attribute_in(value: &[u8]) -> String {
    text(value)
}

fn address_in(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = AttributeIterator<'a>;

    fn into_iter(self) -> AttributeIterator<'a> {
        AttributeIterator(self.0)
    }
}

/// Goes through [`Attributes`].
#[derive(Debug)]
pub(crate) struct AttributeIterator<'a>(&'a [u8]);

impl<'a> Iterator for AttributeIterator<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.0.split_at_checked(ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Message::new(16, 5, &[1, 2, 3, 4]);
        message
            .text(3, "tap0")
            .u32(4, 1500)
            .nested(18, |inner| inner.text(1, "veth").u32_be(7, 9).holding(2, &[8; 16], |peer| peer.u8(1, 4)));
        let replies = Reply::split(&message.finish(77).unwrap());
        assert_eq!((replies.len(), replies[0].kind, replies[0].flags, replies[0].sequence), (1, 16, 5, 77));
        assert_eq!(replies[0].fixed(), Some(&[1, 2, 3, 4]));
        let attributes = replies[0].attributes(4);
        assert_eq!((attributes.text(3), attributes.u32(4)), (Some("tap0".to_owned()), Some(1500)));
        let inner = attributes.inside(18);
        assert_eq!((inner.text(1), inner.u32_be(7)), (Some("veth".to_owned()), Some(9)));
        assert_eq!(Attributes(&inner.get(2).unwrap()[16..]).u8(1), Some(4));
    }

    #[test]
    fn an_attribute_that_is_too_long_is_noticed() {
        let mut message = Message::new(1, 0, &[]);
        message.bytes(1, &vec![0; 70_000]);
        assert_eq!(message.finish(1), None);
        let mut message = Message::new(1, 0, &[]);
        message.nested(1, |inner| inner.bytes(2, &[0; 30_000]).bytes(3, &[0; 30_000]).bytes(4, &[0; 30_000]));
        assert_eq!(message.finish(1), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for reply in Reply::split(&bytes) {
                prop_assert!(reply.payload.len() <= bytes.len());
                for (_, value) in reply.attributes(16) {
                    prop_assert!(Attributes(value).into_iter().count() <= bytes.len());
                }
            }
        }
    }
}
