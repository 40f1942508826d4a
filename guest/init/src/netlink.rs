//! Requests to the kernel about links, addresses and routes (rtnetlink(7)): one message, one acknowledgement.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

// Numbers of linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h and linux/if.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTNH_F_ONLINK: u32 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// A connection to the kernel.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// Switches a link on.
    pub(crate) fn link_up(&self, index: u32) -> io::Result<()> {
        self.ask(&link_up(index))
    }

    /// Gives a link an address.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.ask(&add_address(index, address, prefix))
    }

    /// Sends everything without a better way through a gateway. One that is not `near` is taken to be on the link.
    pub(crate) fn add_default_route(&self, index: u32, gateway: IpAddr, near: bool) -> io::Result<()> {
        self.ask(&add_default_route(index, gateway, near))
    }

    fn ask(&self, message: &[u8]) -> io::Result<()> {
        sendto(&self.0, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        match verdict(&answer[..length]) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no acknowledgement")),
        }
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn link_up(index: u32) -> Vec<u8> {
    let mut message = header(RTM_NEWLINK, 0);
    // struct ifinfomsg: family, padding, type; index; flags; which flags to change
    message.extend([0; 4]);
    for word in [index, IFF_UP, IFF_UP] {
        message.extend(word.to_ne_bytes());
    }
    finished(message)
}

fn add_address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let mut message = header(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    // struct ifaddrmsg: family, prefix length, flags, scope; index
    message.extend([family(address), prefix, 0, 0]);
    message.extend(index.to_ne_bytes());
    attribute(&mut message, IFA_LOCAL, &octets(address));
    attribute(&mut message, IFA_ADDRESS, &octets(address));
    if address.is_ipv6() {
        // Whoever gave the address knows that nobody else has it, and the command shall not wait until it can be used.
        attribute(&mut message, IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    }
    finished(message)
}

fn add_default_route(index: u32, gateway: IpAddr, near: bool) -> Vec<u8> {
    let mut message = header(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    // struct rtmsg: family, lengths of destination and source, type of service, table, origin, scope, type; flags
    message.extend([family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
    message.extend(if near { 0 } else { RTNH_F_ONLINK }.to_ne_bytes());
    attribute(&mut message, RTA_OIF, &index.to_ne_bytes());
    attribute(&mut message, RTA_GATEWAY, &octets(gateway));
    finished(message)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// struct nlmsghdr: length, type; flags; sequence; port
fn header(kind: u16, flags: u16) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message
}

/// struct rtattr: length, type; value, filled up to four bytes
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// The error number of an acknowledgement, 0 for success; `None` for something else.
fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = answer.get(HEADER..HEADER + 4)?.try_into().ok()?;
    (kind == NLMSG_ERROR).then_some(i32::from_ne_bytes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_kernel_reads_them() {
        let address = add_address(2, "10.0.0.2".parse().unwrap(), 24);
        assert_eq!(
            address,
            [
                40, 0, 0, 0, 20, 0, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0, // header
                2, 24, 0, 0, 2, 0, 0, 0, // family, prefix, index
                8, 0, 2, 0, 10, 0, 0, 2, 8, 0, 1, 0, 10, 0, 0, 2 // local and other end
            ]
        );
        let route = add_default_route(2, "fe80::1".parse().unwrap(), false);
        assert_eq!((route.len(), &route[16..28]), (56, &[10, 0, 0, 0, 254, 3, 0, 1, 4, 0, 0, 0][..]));
        assert_eq!(link_up(7)[16..], [0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn an_acknowledgement_has_a_number() {
        let mut answer = header(NLMSG_ERROR, 0);
        answer.extend((-17_i32).to_ne_bytes());
        assert_eq!(verdict(&answer), Some(-17));
        assert_eq!(verdict(&answer[..18]), None);
        assert_eq!(verdict(&link_up(1)), None);
    }
}
