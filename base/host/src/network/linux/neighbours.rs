//! Neighbours by rtnetlink.

use super::super::address::{Neighbour, NeighbourEntry};
use super::super::error::{Cause, NetworkError};
use super::super::link::Mac;
use super::addresses::{family, is_already_there, is_not_there};
use super::netlink::Message;
use super::numbers::*;
use super::{LinuxNetwork, worst};

/// Length of `struct ndmsg`.
const NEIGHBOUR_HEADER: usize = 12;

fn header(family: u8, index: u32, state: u16, flags: u8) -> [u8; NEIGHBOUR_HEADER] {
    let mut header = [0; NEIGHBOUR_HEADER];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

fn message(kind: u16, neighbour: &Neighbour, index: u32) -> Message {
    let how = if kind == RTM_NEWNEIGH { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    let proxy = if neighbour.entry == NeighbourEntry::Proxy { NTF_PROXY } else { 0 };
    let fixed = header(family(neighbour.address), index, NUD_PERMANENT, proxy);
    let mut message = Message::new(kind, NLM_F_REQUEST | how, &fixed);
    message.address(NDA_DST, neighbour.address);
    if let NeighbourEntry::Permanent(mac) = neighbour.entry {
        message.bytes(NDA_LLADDR, &mac.0);
    }
    message
}

impl LinuxNetwork {
    pub(super) fn change_neighbours(
        &self,
        kind: u16,
        operation: &str,
        neighbours: &[Neighbour],
    ) -> Result<(), NetworkError> {
        let mut messages = Vec::new();
        for neighbour in neighbours {
            let index = self.index(&neighbour.link).map_err(self.at(operation, &neighbour.to_string()))?;
            messages.push(message(kind, neighbour, index));
        }
        let expected = if kind == RTM_NEWNEIGH { is_already_there } else { is_not_there };
        match worst(self.route.change_each(messages), expected) {
            None => Ok(()),
            Some((at, cause)) => {
                let neighbour = neighbours.get(at).map(ToString::to_string).unwrap_or_default();
                Err(self.at(operation, &neighbour)(cause))
            }
        }
    }

    pub(super) fn all_neighbours(&self) -> Result<Vec<Neighbour>, Cause> {
        let names = self.link_names()?;
        let mut found = Vec::new();
        for flags in [0, NTF_PROXY] {
            let fixed = header(AF_UNSPEC, 0, 0, flags);
            for reply in self.route.list(&Message::new(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, &fixed))? {
                let Some(header) = reply.fixed::<NEIGHBOUR_HEADER>() else { continue };
                let attributes = reply.attributes(NEIGHBOUR_HEADER);
                let index = header[4..8].first_chunk().map(|index| u32::from_ne_bytes(*index));
                let link = index.and_then(|index| names.get(&index).cloned());
                let state = u16::from_ne_bytes([header[8], header[9]]);
                let mac = attributes.get(NDA_LLADDR).and_then(|mac| mac.try_into().ok()).map(Mac);
                let entry = match mac {
                    _ if header[10] & NTF_PROXY != 0 => Some(NeighbourEntry::Proxy),
                    Some(mac) if state & NUD_PERMANENT != 0 => Some(NeighbourEntry::Permanent(mac)),
                    _ => None,
                };
                if let (Some(link), Some(address), Some(entry)) = (link, attributes.address(NDA_DST), entry) {
                    found.push(Neighbour { link, address, entry });
                }
            }
        }
        Ok(found)
    }
}
