//! Tracked connections by ctnetlink.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::error::Cause;
use super::LinuxNetwork;
use super::addresses::family;
use super::netlink::{Attributes, Message, NESTED, Refusal, Reply};
use super::numbers::*;

fn message(kind: u8, flags: u16, family: u8) -> Message {
    let kind = u16::from_be_bytes([NFNL_SUBSYS_CTNETLINK, kind]);
    Message::new(kind, NLM_F_REQUEST | flags, &[family, 0, 0, 0])
}

impl LinuxNetwork {
    /// Forgets the connections that have one of these addresses at any end.
    pub(super) fn forget(&self, addresses: &[IpAddr]) -> Result<usize, Cause> {
        let connection = self.netfilter()?;
        let families: BTreeSet<u8> = addresses.iter().copied().map(family).collect();
        // Of one family, or of all: the kernel goes through the same list for each question.
        let asked = match Vec::from_iter(families)[..] {
            [] => return Ok(0),
            [one] => one,
            _ => 0,
        };
        let all = connection.list(&message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, asked)).map_err(missing_module)?;
        let concerned = |reply: &Reply| addresses.iter().find(|address| concerns(reply, **address)).copied();
        let deletions: Vec<Message> =
            all.iter().filter_map(|reply| concerned(reply).map(|address| deletion(reply, family(address)))).collect();
        let count = deletions.len();
        let mut ended = 0;
        for refusal in connection.change_each(deletions) {
            match Cause::from(refusal) {
                // It ended by itself meanwhile.
                Cause::NotThere => ended += 1,
                cause => return Err(cause),
            }
        }
        Ok(count - ended)
    }
}

/// The kernel knows no such messages without its module.
fn missing_module(refusal: Refusal) -> Cause {
    match refusal.source.raw_os_error() {
        Some(EINVAL) => Cause::Missing("the kernel's module nf_conntrack_netlink".to_owned()),
        _ => refusal.into(),
    }
}

fn concerns(reply: &Reply, address: IpAddr) -> bool {
    [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].into_iter().any(|tuple| {
        let ends = Attributes::from(reply).inside(tuple).inside(CTA_TUPLE_IP);
        let kinds = [CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST];
        kinds.into_iter().any(|kind| ends.address(kind) == Some(address))
    })
}

/// Names the connection by all that the kernel identifies it by, so that a newer one between the same ends stays.
fn deletion(reply: &Reply, family: u8) -> Message {
    let mut message = message(IPCTNL_MSG_CT_DELETE, 0, family);
    let attributes = Attributes::from(reply);
    if let Some(tuple) = attributes.get(CTA_TUPLE_ORIG) {
        message.bytes(CTA_TUPLE_ORIG | NESTED, tuple);
    }
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(value) = attributes.get(kind) {
            message.bytes(kind, value);
        }
    }
    message
}
