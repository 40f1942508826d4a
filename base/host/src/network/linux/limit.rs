//! Token buckets by rtnetlink (linux/pkt_sched.h), and forgetting of connections.

use std::net::IpAddr;
use std::time::Duration;

use super::super::error::{Cause, NetworkError};
use super::super::limit::{Limit, Traffic, connections_of};
use super::LinuxNetwork;
use super::netlink::{Message, Reply};
use super::numbers::*;

/// Length of `struct tcmsg`.
const QUEUE_HEADER: usize = 20;
/// The kernel's word for a token bucket.
const TOKEN_BUCKET: &str = "tbf";
/// One tick of the packet scheduler, in nanoseconds (`PSCHED_SHIFT`).
const TICK: u64 = 64;
/// Our queue on a link, `1:` in tc's words.
const HANDLE: u32 = 0x0001_0000;

fn header(index: u32, handle: u32, parent: u32) -> [u8; QUEUE_HEADER] {
    let mut header = [0; QUEUE_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header
}

/// `struct tc_tbf_qopt`: rate, peak rate, and then limit, buffer and largest packet.
fn parameters(limit: &Limit) -> [u8; 36] {
    let waiting = u64::try_from(u128::from(limit.rate) * limit.latency.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX);
    let queue = u32::try_from(waiting.saturating_add(limit.burst.into())).unwrap_or(u32::MAX);
    let mut parameters = [0; 36];
    // With a link layer named, the kernel needs no table of times.
    parameters[1] = TC_LINKLAYER_ETHERNET;
    parameters[8..12].copy_from_slice(&u32::try_from(limit.rate).unwrap_or(u32::MAX).to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    parameters
}

impl LinuxNetwork {
    fn limit_link(&self, link: &str, limit: &Limit) -> Result<(), Cause> {
        limit.check()?;
        let index = self.index(link)?;
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
        let mut message = Message::new(RTM_NEWQDISC, flags, &header(index, HANDLE, TC_H_ROOT));
        message.text(TCA_KIND, TOKEN_BUCKET).nested(TCA_OPTIONS, |options| {
            options.bytes(TCA_TBF_PARMS, &parameters(limit)).u32(TCA_TBF_BURST, limit.burst);
            if limit.rate > u32::MAX.into() {
                options.u64(TCA_TBF_RATE64, limit.rate);
            }
            options
        });
        Ok(self.route.change(message)?)
    }

    fn find_limit(&self, link: &str) -> Result<Option<Limit>, Cause> {
        let index = self.index(link)?;
        let list = Message::new(RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP, &header(index, 0, 0));
        Ok(self.route.list(&list)?.iter().find_map(|reply| limit_in(reply, index)))
    }

    fn unlimit(&self, link: &str) -> Result<(), Cause> {
        // What else sits there is not ours to remove.
        self.find_limit(link)?.ok_or(Cause::NotThere)?;
        let message = Message::new(RTM_DELQDISC, NLM_F_REQUEST, &header(self.index(link)?, 0, TC_H_ROOT));
        Ok(self.route.change(message)?)
    }
}

/// The token bucket at the root of a link.
fn limit_in(reply: &Reply, index: u32) -> Option<Limit> {
    let fixed = reply.fixed::<QUEUE_HEADER>()?;
    let attributes = reply.attributes(QUEUE_HEADER);
    let root = fixed[12..16] == TC_H_ROOT.to_ne_bytes();
    if fixed[4..8] != index.to_ne_bytes() || !root || attributes.text(TCA_KIND)? != TOKEN_BUCKET {
        return None;
    }
    let options = attributes.inside(TCA_OPTIONS);
    let parameters = options.get(TCA_TBF_PARMS)?;
    let word = |at: usize| parameters.get(at..)?.first_chunk().map(|bytes| u64::from(u32::from_ne_bytes(*bytes)));
    let rate = options.u64(TCA_TBF_RATE64).or_else(|| word(8))?.max(1);
    let (queue, buffer) = (word(24)?, word(28)?);
    let burst = u128::from(buffer * TICK) * u128::from(rate) / 1_000_000_000;
    let burst = u32::try_from(burst).unwrap_or(u32::MAX);
    let waiting = u128::from(queue.saturating_sub(burst.into())) * 1_000_000_000 / u128::from(rate);
    Some(Limit { rate, burst, latency: Duration::from_nanos(u64::try_from(waiting).unwrap_or(u64::MAX)) })
}

impl Traffic for LinuxNetwork {
    fn set_limit(&self, link: &str, limit: &Limit) -> Result<(), NetworkError> {
        self.limit_link(link, limit).map_err(self.at("limit", &format!("link {link}")))
    }

    fn remove_limit(&self, link: &str) -> Result<(), NetworkError> {
        self.unlimit(link).map_err(self.at("take the limit from", &format!("link {link}")))
    }

    fn limit(&self, link: &str) -> Result<Option<Limit>, NetworkError> {
        self.find_limit(link).map_err(self.at("look at the limit of", &format!("link {link}")))
    }

    fn forget_connections(&self, addresses: &[IpAddr]) -> Result<usize, NetworkError> {
        self.forget(addresses).map_err(self.at("forget", &connections_of(addresses)))
    }
}
