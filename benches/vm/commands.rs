//! The network of a VM as programs make it: what `HostEdges` does, line by line.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use vm::ports::Wire;

/// Hardware addresses of a routed link, its host's end first; any will do.
const HOST_MAC: &str = "02:ca:1f:00:00:03";
const EDGE_MAC: &str = "02:ca:1f:00:00:04";
const TAP_MAC: &str = "02:ca:1f:00:00:01";
/// User of the tap.
const USER: &str = "200000";

/// One process.
#[derive(Debug)]
struct Line {
    /// Program and words.
    words: Vec<String>,
    input: Option<String>,
}

/// See the module.
pub struct Rival {
    example: Wire,
    ruleset: String,
}

impl Rival {
    /// `ruleset` is what `example` has inside.
    pub fn new(example: Wire, ruleset: String) -> Self {
        Self { example, ruleset }
    }

    pub fn make(&self, wire: &Wire, batch: bool) -> anyhow::Result<()> {
        run(&grouped(self.lines(wire), batch))
    }

    pub fn remove(&self, wire: &Wire, batch: bool) -> anyhow::Result<()> {
        // Ours also ends what was permitted once; conntrack, the program for it, few hosts have.
        let lines = vec![
            nft(elements("delete", wire)),
            line(&format!("ip link delete {}", wire.link)),
            line(&format!("ip netns delete {}", wire.namespace)),
        ];
        run(&grouped(lines, batch))
    }

    /// How many are started to make one.
    pub fn processes(&self, batch: bool) -> usize {
        grouped(self.lines(&self.example), batch).len()
    }

    fn lines(&self, wire: &Wire) -> Vec<Line> {
        let (four, six) = addresses(wire);
        let (own4, own6) = addresses(&self.example);
        let (space, link) = (&wire.namespace, &wire.link);
        let inside = format!("nsenter --net={}", wire.namespace_path.display());
        let ip = |words: &str| line(&format!("ip -n {space} {words}"));
        let host = |words: &str| line(&format!("ip {words}"));
        let ruleset = self.ruleset.replace(&own4, &four).replace(&own6, &six);
        vec![
            host(&format!("netns add {space}")),
            line(&format!(
                "{inside} sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                 net.ipv6.conf.default.addr_gen_mode=1 net.ipv6.conf.default.accept_ra=0"
            )),
            Line { input: Some(ruleset), ..line(&format!("{inside} nft -f -")) },
            ip("link set lo up"),
            ip(&format!("tuntap add tap0 mode tap user {USER} group {USER} vnet_hdr")),
            ip(&format!("link set tap0 address {TAP_MAC} up")),
            ip("address add 100.64.0.1/30 dev tap0"),
            ip("address add fdca:1f00::1/64 dev tap0 nodad"),
            ip("neighbour add 100.64.0.2 lladdr 02:ca:1f:00:00:02 dev tap0 nud permanent"),
            ip("neighbour add fdca:1f00::2 lladdr 02:ca:1f:00:00:02 dev tap0 nud permanent"),
            host(&format!(
                "link add {link} address {HOST_MAC} type veth peer name edge address {EDGE_MAC} netns {space}"
            )),
            line(&format!(
                "sysctl -q -w net.ipv6.conf.{link}.addr_gen_mode=1 net.ipv6.conf.{link}.accept_ra=0 \
                 net.ipv4.conf.{link}.route_localnet=1"
            )),
            host(&format!("link set {link} up")),
            host(&format!("neighbour add {four} lladdr {EDGE_MAC} dev {link} nud permanent")),
            host(&format!("neighbour add {six} lladdr {EDGE_MAC} dev {link} nud permanent")),
            host(&format!("route add {four}/32 dev {link}")),
            host(&format!("route add {six}/128 dev {link}")),
            ip("link set edge up"),
            ip(&format!("address add {four}/32 dev edge")),
            ip(&format!("address add {six}/128 dev edge nodad")),
            ip(&format!("neighbour add 169.254.1.1 lladdr {HOST_MAC} dev edge nud permanent")),
            ip(&format!("neighbour add fe80::1 lladdr {HOST_MAC} dev edge nud permanent")),
            ip("route add default via 169.254.1.1 dev edge onlink"),
            ip("route add default via fe80::1 dev edge onlink"),
            line(&format!("tc -n {space} qdisc add dev edge root tbf rate 1gbit burst 64kb latency 50ms")),
            line(&format!("tc qdisc add dev {link} root tbf rate 1gbit burst 64kb latency 50ms")),
            nft(elements("add", wire)),
        ]
    }
}

fn addresses(wire: &Wire) -> (String, String) {
    let text = |address: Option<String>| address.unwrap_or_default();
    (text(wire.ipv4.map(|address| address.to_string())), text(wire.ipv6.map(|address| address.to_string())))
}

/// What the host's packet filter knows of a VM.
fn elements(verb: &str, wire: &Wire) -> String {
    let (four, six) = addresses(wire);
    let mut text = String::new();
    for (version, address) in [('4', four), ('6', six)] {
        let element = |set: &str, key: &str| format!("{verb} element inet cairn_vm {set}{version} {{ {key} }}\n");
        text += &element("own", &format!("{} . {address}", wire.link));
        text += &element("vms", &address);
        text += &element("internet", &address);
    }
    text
}

fn line(words: &str) -> Line {
    Line { words: words.split_whitespace().map(str::to_owned).collect(), input: None }
}

fn nft(input: String) -> Line {
    Line { input: Some(input), ..line("nft -f -") }
}

/// Neighbours that are for the same `ip` become one process with `-batch`.
fn grouped(lines: Vec<Line>, batch: bool) -> Vec<Line> {
    if !batch {
        return lines;
    }
    let mut grouped: Vec<(Line, Vec<String>)> = Vec::new();
    for one in lines {
        let head = match one.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["ip", "-n", space, ..] => vec!["ip".to_owned(), "-n".to_owned(), (*space).to_owned()],
            ["ip", ..] => vec!["ip".to_owned()],
            _ => {
                grouped.push((one, Vec::new()));
                continue;
            }
        };
        let words = one.words[head.len()..].join(" ");
        match grouped.last_mut() {
            Some((last, batch)) if last.words == head => batch.push(words),
            _ => grouped.push((Line { words: head, input: None }, vec![words])),
        }
    }
    let finish = |(mut line, batch): (Line, Vec<String>)| {
        if !batch.is_empty() {
            line.words.extend(["-batch".to_owned(), "-".to_owned()]);
            line.input = Some(batch.join("\n") + "\n");
        }
        line
    };
    grouped.into_iter().map(finish).collect()
}

fn run(lines: &[Line]) -> anyhow::Result<()> {
    for Line { words, input } in lines {
        let text = words.join(" ");
        let (program, words) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(words).stdout(Stdio::null());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().with_context(|| format!("cannot start {text}"))?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(input.as_bytes())?;
        }
        let status = child.wait()?;
        ensure!(status.success(), "{text} ended with {status}");
    }
    Ok(())
}
