//! Tracked connections by ctnetlink.

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
    /// Forgets the connections that have this address at any end.
    pub(super) fn forget(&self, address: IpAddr) -> Result<usize, Cause> {
        let connection = self.netfilter()?;
        let family = family(address);
        let all = connection.list(&message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family)).map_err(missing_module)?;
        let deletions: Vec<Message> =
            all.iter().filter(|reply| concerns(reply, address)).map(|reply| deletion(reply, family)).collect();
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
