//! A network with a switch: virtual machines get a port each, dnsmasq hands out addresses, and the guests can be reached
//! from here. Only inside an enclosure with its own network.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Daemon, run};

/// Interface name of the bridge.
pub const NAME: &str = "cairn0";
/// This side's address; the network is 10.77.0.0/24.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Addresses that DHCP hands out; others are free for static ones.
pub const DHCP_RANGE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 199));

/// The bridge; it goes with the enclosure.
#[derive(Debug)]
pub struct Bridge {
    leases: PathBuf,
    _dnsmasq: Option<Daemon>,
}

impl Bridge {
    /// Makes the bridge, and starts a DHCP server on it if asked to.
    pub fn start(work: &Path, dhcp: bool) -> Result<Self> {
        let routes = std::fs::read_to_string("/proc/net/route").context("read the routes")?;
        ensure!(routes.lines().count() <= 1, "a bridge is made in an enclosure with its own network only");
        ip(&["link", "add", NAME, "type", "bridge"])?;
        ip(&["address", "add", &format!("{ADDRESS}/24"), "dev", NAME])?;
        ip(&["link", "set", NAME, "up"])?;
        let leases = work.join("dnsmasq.leases");
        let dnsmasq = if dhcp { Some(dnsmasq(work, &leases)?) } else { None };
        Ok(Self { leases, _dnsmasq: dnsmasq })
    }

    /// The address that DHCP gave to a MAC address.
    pub fn lease(&self, mac: &str) -> Option<Ipv4Addr> {
        let text = std::fs::read_to_string(&self.leases).unwrap_or_default();
        // Lines are: expiry, MAC, address, name, client id.
        let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.filter(|fields| fields.get(1) == Some(&mac)).find_map(|fields| fields.get(2)?.parse().ok())
    }
}

/// Brings the loopback interface of a new network up; nothing works on 127.0.0.1 before.
pub fn loopback_up() -> Result<()> {
    ip(&["link", "set", "lo", "up"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}

fn dnsmasq(work: &Path, leases: &Path) -> Result<Daemon> {
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--user=root"]);
    command.args([format!("--interface={NAME}"), format!("--dhcp-leasefile={}", leases.display())]);
    command.args([format!("--dhcp-range={},{},1h", DHCP_RANGE.0, DHCP_RANGE.1), "--pid-file=".to_owned()]);
    command.args(["--log-dhcp", "--log-facility=-", "--dhcp-authoritative", "--no-ping"]);
    Daemon::start("dnsmasq", &mut command, &work.join("dnsmasq.log"))
}

/// What was found at TCP ports; one that refuses is in neither list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// They accept a connection.
    pub open: Vec<u16>,
    /// They did not answer within 0.7 s.
    pub silent: Vec<u16>,
}

/// Tries to connect to each of these TCP ports, many at a time.
pub fn scan(address: Ipv4Addr, ports: impl Iterator<Item = u16> + Send) -> Ports {
    let left = Mutex::new(ports);
    let found = Mutex::new(Ports::default());
    std::thread::scope(|scope| {
        for _ in 0..256 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(port) = next else { break };
                    let target = SocketAddr::from((address, port));
                    let answer = TcpStream::connect_timeout(&target, Duration::from_millis(700));
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(_) => found.open.push(port),
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                        Err(_) => found.silent.push(port),
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.open.sort_unstable();
    found.silent.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_is_found_among_closed_ones() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = scan(Ipv4Addr::LOCALHOST, port..=port.saturating_add(3));
        assert!(found.open.contains(&port) && found.silent.is_empty(), "{found:?}");
    }
}
