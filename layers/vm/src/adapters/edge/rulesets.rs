//! The packet filter's rulesets. Each is loaded once, as a whole, by `nft`; VMs are elements of its sets and maps.
//!
//! On the host a VM is known by its address: the guard lets a packet with it in only from the VM's own link, so that
//! every later rule can go by the address, whether the link is routed or a port of a bridge.

use std::fmt::Display;

use host::network::{Family, Table, TableObjects};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::inside::{EDGE, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, TAP};
use super::layout::Layout;
use super::settings::EdgeSettings;
use crate::model::{PRIVATE_IPV4, PRIVATE_IPV6};

/// Sets and maps of the host's table that hold VMs, in the order in which they are listed.
pub(super) const SETS: [&str; 14] = [
    "own4",
    "own6",
    "vms4",
    "vms6",
    "internet4",
    "internet6",
    "egress4",
    "egress6",
    "egress4_protocol",
    "egress6_protocol",
    "egress4_port",
    "egress6_port",
    "ports4",
    "ports6",
];
/// Sets of the bridge's table that hold VMs.
pub(super) const BRIDGE_SETS: [&str; 2] = ["own4", "own6"];
/// Sets that the rules themselves fill, by address; and by link.
pub(super) const COUNTERS: [&str; 5] = ["denied4", "denied6", "recent4", "recent6", "spoofed"];

/// A ruleset of one table. The table has an empty chain whose name is made from the text, so that one can be told from
/// another without reading it.
#[derive(Debug, Clone)]
pub(super) struct Ruleset {
    /// Its table.
    pub(super) table: Table,
    /// In nft's language; replaces the table.
    pub(super) text: String,
    version: String,
}

impl Ruleset {
    fn new(family: Family, name: &str, body: &str) -> Self {
        let table = Table::new(family, name);
        let digest = Sha256::digest(body);
        let version = digest[..8].iter().fold("version_".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        let head = format!("{table} {{\n}}\ndelete {table}\n");
        let text = format!("{head}{table} {{\n{body}\n    chain {version} {{\n    }}\n}}\n");
        Self { table, text, version }
    }

    /// Whether a table is this one.
    pub(super) fn is(&self, objects: &TableObjects) -> bool {
        objects.chains.iter().any(|chain| chain.name == self.version)
    }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The sets of one family, `4` or `6`.
fn sets(version: char, address: &str, private: &str) -> String {
    format!(
        "    set own{version} {{ type ifname . {address}; counter; }}
    set vms{version} {{ type {address}; }}
    set internet{version} {{ type {address}; }}
    set egress{version} {{ type {address} . {address}; flags interval; }}
    set egress{version}_protocol {{ type {address} . {address} . inet_proto; flags interval; }}
    set egress{version}_port {{ type {address} . {address} . inet_proto . inet_service; flags interval; }}
    map ports{version} {{ type inet_proto . inet_service : {address} . inet_service; }}
    set private{version} {{ type {address}; flags interval; elements = {{ {private} }} }}
    set denied{version} {{ type {address}; size 65536; flags dynamic; counter; }}
    set recent{version} {{ type {address} . {address} . inet_proto . inet_service; size 8192; flags dynamic, timeout; timeout 15m; }}
"
    )
}

/// The rules of one family about what a VM sends: `ip` or `ip6`.
fn from_vm(word: &str, version: char, subnet: &str, resolvers: &str) -> String {
    let names = if resolvers.is_empty() {
        String::new()
    } else {
        format!(
            "        {word} saddr @internet{version} {word} daddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n"
        )
    };
    format!(
        "        {word} saddr . {word} daddr @egress{version} accept
        {word} saddr . {word} daddr . meta l4proto @egress{version}_protocol accept
        {word} saddr . {word} daddr . meta l4proto . th dport @egress{version}_port accept
{names}        {word} daddr {subnet} goto deny
        {word} daddr @private{version} goto deny
        {word} saddr @internet{version} accept
"
    )
}

/// The host's table.
pub(super) fn host(settings: &EdgeSettings, layout: &Layout) -> Ruleset {
    let (subnet4, subnet6) = (layout.subnet4(), layout.subnet6());
    let (gateway4, gateway6) = (layout.gateway4(), layout.gateway6());
    let sets4 = sets('4', "ipv4_addr", PRIVATE_IPV4);
    let sets6 = sets('6', "ipv6_addr", PRIVATE_IPV6);
    let (dns4, dns6) = (list(&settings.dns_ipv4), list(&settings.dns_ipv6));
    let from4 = from_vm("ip", '4', &subnet4.to_string(), &dns4);
    let from6 = from_vm("ip6", '6', &subnet6.to_string(), &dns6);
    let local = |word: &str, resolvers: &str| {
        let named = !resolvers.is_empty();
        let rule = format!("        {word} daddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n");
        if named { rule } else { String::new() }
    };
    let (local4, local6) = (local("ip", &dns4), local("ip6", &dns6));
    let masquerade = |word: &str, version: char, subnet: IpNet| {
        let rule = format!("        {word} saddr @vms{version} {word} daddr != {subnet} masquerade\n");
        if is_private(subnet) { rule } else { String::new() }
    };
    let masquerade4 = masquerade("ip", '4', subnet4.into());
    let masquerade6 = masquerade("ip6", '6', subnet6.into());
    let body = format!(
        r#"{sets4}{sets6}    set spoofed {{ type ifname; size 65536; flags dynamic; counter; }}

    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname "tapv*" ip daddr 127.0.0.0/8 goto spoof
        iifname . ip saddr @own4 accept
        iifname . ip6 saddr @own6 accept
        iifname "tapv*" ip6 saddr {{ ::, fe80::/10 }} drop
        iifname "tapv*" goto spoof
        ip saddr @vms4 drop
        ip6 saddr @vms6 drop
    }}
    chain spoof {{
        update @spoofed {{ iifname }}
        drop
    }}
    chain published {{
        type nat hook prerouting priority dstnat; policy accept;
        jump publish
    }}
    chain published_here {{
        type nat hook output priority -100; policy accept;
        jump publish
    }}
    chain publish {{
        meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports4
        meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 127.0.0.0/8 ip daddr @vms4 snat ip to {gateway4}
{masquerade4}{masquerade6}    }}
    chain forwarded {{
        type filter hook forward priority filter; policy accept;
        ip saddr @vms4 jump from_vm
        ip6 saddr @vms6 jump from_vm
        ip daddr @vms4 jump to_vm
        ip6 daddr @vms6 jump to_vm
    }}
    chain from_vm {{
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
{from4}{from6}        goto deny
    }}
    chain to_vm {{
        ct state established,related accept
        ct status dnat accept
        drop
    }}
    chain received {{
        type filter hook input priority filter; policy accept;
        ip saddr @vms4 jump to_host
        ip6 saddr @vms6 jump to_host
    }}
    chain to_host {{
        ct state established,related accept
        ip daddr {gateway4} icmp type echo-request accept
        ip6 daddr {gateway6} icmpv6 type echo-request accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
{local4}{local6}        goto deny
    }}
    chain deny {{
        update @denied4 {{ ip saddr }}
        update @denied6 {{ ip6 saddr }}
        update @recent4 {{ ip saddr . ip daddr . meta l4proto . th dport }}
        update @recent6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport }}
        drop
    }}"#
    );
    Ruleset::new(Family::Inet, &settings.table, &body)
}

/// The bridge's table: a VM's port sends only what its own address covers, and only the host hears it.
pub(super) fn bridge(settings: &EdgeSettings) -> Ruleset {
    let body = r#"    set own4 { type ifname . ipv4_addr; }
    set own6 { type ifname . ipv6_addr; }

    chain guard {
        type filter hook prerouting priority -300; policy accept;
        iifname "tapv*" jump from_port
    }
    chain from_port {
        iifname . ip saddr @own4 accept
        iifname . arp saddr ip @own4 accept
        iifname . ip6 saddr @own6 accept
        drop
    }
    chain forwarded {
        type filter hook forward priority filter; policy accept;
        iifname "tapv*" drop
        oifname "tapv*" drop
    }"#;
    Ruleset::new(Family::Bridge, &settings.table, body)
}

/// The table of every namespace: the guest's address becomes the VM's own, and nothing else passes.
pub(super) fn namespace() -> Ruleset {
    let body = format!(
        r#"    map inward4 {{ type ipv4_addr : ipv4_addr; }}
    map inward6 {{ type ipv6_addr : ipv6_addr; }}
    map outward4 {{ type ipv4_addr : ipv4_addr; }}
    map outward6 {{ type ipv6_addr : ipv6_addr; }}
    set spoofed {{ type ifname; size 16; flags dynamic; counter; }}

    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{TAP}" jump from_guest
    }}
    chain from_guest {{
        ether saddr != {GUEST_MAC} goto spoof
        ip saddr {GUEST_IPV4} accept
        ip6 saddr {GUEST_IPV6} accept
        ip saddr 0.0.0.0 drop
        ip6 saddr {{ ::, fe80::/10 }} icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
        ip6 saddr {{ ::, fe80::/10 }} drop
        goto spoof
    }}
    chain spoof {{
        update @spoofed {{ iifname }}
        drop
    }}
    chain inward {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{EDGE}" dnat ip to ip daddr map @inward4
        iifname "{EDGE}" dnat ip6 to ip6 daddr map @inward6
    }}
    chain outward {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{EDGE}" snat ip to ip saddr map @outward4
        oifname "{EDGE}" snat ip6 to ip6 saddr map @outward6
    }}
    chain forwarded {{
        type filter hook forward priority filter; policy drop;
        iifname "{TAP}" oifname "{EDGE}" accept
        iifname "{EDGE}" oifname "{TAP}" accept
    }}
    chain received {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "{TAP}" icmp type echo-request accept
        iifname "{TAP}" icmpv6 type {{ echo-request, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname "{EDGE}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    }}"#
    );
    Ruleset::new(Family::Inet, "cairn_edge", &body)
}

/// Whether others would not know how to answer an address of it.
fn is_private(subnet: IpNet) -> bool {
    crate::model::private_networks().any(|range| range.contains(&subnet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_subnet_is_not_masqueraded() {
        let with = |v4: &str| {
            let settings = EdgeSettings { subnet_ipv4: v4.parse().unwrap(), ..EdgeSettings::default() };
            host(&settings, &Layout::routed(&settings))
        };
        assert_eq!(with("10.100.0.0/16").text.matches("masquerade\n").count(), 2);
        assert_eq!(with("203.0.114.0/24").text.matches("masquerade\n").count(), 1);
        assert_ne!(with("10.100.0.0/16").version, with("10.101.0.0/16").version);
        assert!(PRIVATE_IPV4.split(", ").chain(PRIVATE_IPV6.split(", ")).all(|range| range.parse::<IpNet>().is_ok()));
    }
}
