//! What systemd-networkd is told (systemd.network(5), systemd.netdev(5)).

use std::net::IpAddr;

use recipe::network::{Network, prefix};

/// Files for `/run/systemd/network`: name and contents.
pub type Files = Vec<(String, String)>;

/// What the names of our files begin with.
pub(super) const PREFIX: &str = "10-cairn";
pub(super) const BOND: &str = "cairn-bond";
pub(super) const VLAN: &str = "cairn-vlan";

/// Only interfaces of real hardware: VLANs and bonds have the address of what they stand on.
const HARDWARE: &str = "Type=ether\nKind=!*\n";

/// What systemd-networkd is told. Without a network, every Ethernet interface asks a DHCP server.
pub fn files(network: Option<&Network>) -> Files {
    let Some(network) = network else {
        let text = format!("[Match]\n{HARDWARE}\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n");
        return vec![(format!("{PREFIX}-any.network"), text)];
    };
    let mut files = Files::new();
    let mtu = network.mtu.map(|mtu| format!("\n[Link]\nMTUBytes={mtu}\n")).unwrap_or_default();
    if let Some(bond) = &network.bond {
        let text = format!("[NetDev]\nName={BOND}\nKind=bond\n\n[Bond]\nMode={}\nMIIMonitorSec=100ms\n", bond.mode);
        files.push((format!("{PREFIX}-bond.netdev"), text));
        for (index, mac) in bond.macs.iter().enumerate() {
            // A member takes the bond's address; its permanent one stays.
            let text = format!("[Match]\n{HARDWARE}PermanentMACAddress={mac}\n\n[Network]\nBond={BOND}\n{mtu}");
            files.push((format!("{PREFIX}-member{index}.network"), text));
        }
    }
    let lower = match (&network.bond, &network.mac) {
        (Some(_), _) => format!("Name={BOND}\n"),
        (None, mac) => format!("{HARDWARE}MACAddress={}\n", mac.as_deref().unwrap_or_default()),
    };
    match network.vlan {
        None => files.push((format!("{PREFIX}.network"), format!("[Match]\n{lower}\n{}{mtu}", addresses(network)))),
        Some(id) => {
            let text = format!("[Match]\n{lower}\n[Network]\nVLAN={VLAN}\nLinkLocalAddressing=no\n{mtu}");
            files.push((format!("{PREFIX}.network"), text));
            let text = format!("[NetDev]\nName={VLAN}\nKind=vlan\n\n[VLAN]\nId={id}\n");
            files.push((format!("{PREFIX}-vlan.netdev"), text));
            let text = format!("[Match]\nName={VLAN}\n\n{}{mtu}", addresses(network));
            files.push((format!("{PREFIX}-vlan.network"), text));
        }
    }
    files
}

/// The sections that give an interface its addresses.
fn addresses(network: &Network) -> String {
    let mut text = String::from("[Network]\n");
    for server in &network.dns {
        text.push_str(&format!("DNS={server}\n"));
    }
    let Some(address) = &network.address else {
        return text + "DHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n";
    };
    text.push_str(&format!("Address={address}\nIPv6AcceptRA=no\n"));
    if let Some(gateway) = network.gateway {
        // Some sites give out a /32 and a gateway beside it.
        let on_link = if reaches(address, gateway) { "" } else { "GatewayOnLink=yes\n" };
        text.push_str(&format!("\n[Route]\nGateway={gateway}\n{on_link}"));
    }
    text
}

/// Whether `other` lies in the network of `address`.
fn reaches(address: &str, other: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let Some((own, length)) = prefix(address) else { return false };
    let ((own, own_width), (other, other_width)) = (bits(own), bits(other));
    own_width == other_width && (length == 0 || (own ^ other) >> (128 - u32::from(length)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Network {
        serde_json::from_str(json).unwrap()
    }

    fn text(files: &Files) -> String {
        files.iter().map(|(name, contents)| format!("== {name}\n{contents}")).collect()
    }

    #[test]
    fn without_a_record_every_interface_asks_for_an_address() {
        let expected = "== 10-cairn-any.network\n[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n";
        assert_eq!(text(&files(None)), expected);
    }

    #[test]
    fn a_static_address_on_a_vlan_of_a_bond() {
        let network = network(
            r#"{"bond": {"mode": "802.3ad", "macs": ["52:54:00:00:00:01", "52:54:00:00:00:02"]}, "vlan": 12,
                "address": "192.0.2.10/24", "gateway": "192.0.2.1", "dns": ["192.0.2.53"], "mtu": 9000}"#,
        );
        let expected = "\
== 10-cairn-bond.netdev
[NetDev]
Name=cairn-bond
Kind=bond

[Bond]
Mode=802.3ad
MIIMonitorSec=100ms
== 10-cairn-member0.network
[Match]
Type=ether
Kind=!*
PermanentMACAddress=52:54:00:00:00:01

[Network]
Bond=cairn-bond

[Link]
MTUBytes=9000
== 10-cairn-member1.network
[Match]
Type=ether
Kind=!*
PermanentMACAddress=52:54:00:00:00:02

[Network]
Bond=cairn-bond

[Link]
MTUBytes=9000
== 10-cairn.network
[Match]
Name=cairn-bond

[Network]
VLAN=cairn-vlan
LinkLocalAddressing=no

[Link]
MTUBytes=9000
== 10-cairn-vlan.netdev
[NetDev]
Name=cairn-vlan
Kind=vlan

[VLAN]
Id=12
== 10-cairn-vlan.network
[Match]
Name=cairn-vlan

[Network]
DNS=192.0.2.53
Address=192.0.2.10/24
IPv6AcceptRA=no

[Route]
Gateway=192.0.2.1

[Link]
MTUBytes=9000
";
        assert_eq!(text(&files(Some(&network))), expected);
    }

    #[test]
    fn a_gateway_beside_the_network_is_said_to_be_on_the_link() {
        assert!(reaches("192.0.2.10/24", "192.0.2.254".parse().unwrap()));
        assert!(!reaches("192.0.2.10/32", "192.0.2.1".parse().unwrap()));
        assert!(!reaches("192.0.2.10/24", "2001:db8::1".parse().unwrap()));
        assert!(reaches("2001:db8::2/64", "2001:db8::1".parse().unwrap()));
        let lone = network(r#"{"mac": "52:54:00:00:00:01", "address": "192.0.2.10/32", "gateway": "198.51.100.1"}"#);
        assert!(text(&files(Some(&lone))).ends_with("Gateway=198.51.100.1\nGatewayOnLink=yes\n"));
    }
}
