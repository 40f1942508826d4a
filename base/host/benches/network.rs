//! What making and removing the network of one microVM costs: by this crate, by `ip` and `nft` with a process for each
//! step, and by them with as few processes as they allow, in turn in the same run. All of it happens in namespaces for
//! this run alone, with 200 other microVMs' links and elements in place. Needs root, `ip`, `nft` and `unshare`.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use host::network::{
    Change, Element, Family, Key, LinkChange, LinuxNetworks, Network, Networks, NewKind, NewLink, Place, Route, Table,
    Verdict,
};
use host::{Command, Linux, Processes};
use ipnet::IpNet;

type Outcome = Result<(), Box<dyn Error>>;

/// How often each way is taken.
const ROUNDS: u32 = 51;
/// How many microVMs are there meanwhile.
const OTHERS: u32 = 200;
/// Says that the process is already in its own namespaces.
const INSIDE: &str = "--inside";

const RULESET: &str = "
table inet cairn {
    set own { type ifname . ipv4_addr; }
    set own6 { type ifname . ipv6_addr; }
    map links { type ifname : verdict; }

    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname vmap @links
    }
    chain guest {
        iifname . ip saddr @own accept
        iifname . ip6 saddr @own6 accept
    }
}
";

/// What a namespace needs once to give its guest another address outside.
const TRANSLATION: &str = "
table ip edge {
    map inward { type ipv4_addr : ipv4_addr; }
    map outward { type ipv4_addr : ipv4_addr; }

    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        iifname eth0 dnat to ip daddr map @inward
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname eth0 snat to ip saddr map @outward
    }
}
";

/// The names and addresses of one microVM.
struct Guest {
    namespace: String,
    outer: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Guest {
    fn new(number: u32) -> Self {
        Self {
            namespace: format!("ns_vm_{number:08x}"),
            outer: format!("tapv{number:08x}"),
            v4: Ipv4Addr::from(0x0a64_0000 + number),
            v6: Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number)),
        }
    }
}

fn text(prefix: &str) -> Result<IpNet, ipnet::AddrParseError> {
    prefix.parse()
}

fn table() -> Table {
    Table::new(Family::Inet, "cairn")
}

fn elements(guest: &Guest) -> [(&'static str, Element); 3] {
    let link = || Key::from(guest.outer.as_str());
    [
        ("own", Element::new(link().and(IpAddr::V4(guest.v4)))),
        ("own6", Element::new(link().and(IpAddr::V6(guest.v6)))),
        ("links", Element::verdict(link(), Verdict::Jump("guest".into()))),
    ]
}

fn create(networks: &LinuxNetworks, host: &dyn Network, guest: &Guest) -> Outcome {
    networks.create_namespace(&guest.namespace)?;
    let place = Place::named(&guest.namespace);
    host.add_link(&NewLink::veth(&guest.outer, "eth0", Some(place.clone())).up())?;
    let inner = networks.open(&place)?;
    inner.change_link("lo", &LinkChange::Up)?;
    inner.change_link("eth0", &LinkChange::Up)?;
    inner.add_link(&NewLink::new("tap0", NewKind::Tap { owner: 977, group: 976 }).up())?;
    inner.add_addresses("eth0", &[IpAddr::V4(guest.v4).into(), IpAddr::V6(guest.v6).into()])?;
    inner.add_addresses("tap0", &[text("172.16.0.1/30")?, text("fd00:ffff::1/64")?])?;
    let routes = [
        Route::by_gateway(text("0.0.0.0/0")?, "169.254.0.1".parse()?, "eth0"),
        Route::by_gateway(text("::/0")?, "fe80::1".parse()?, "eth0"),
    ];
    inner.add_routes(&routes)?;
    inner.set_sysctl("ipv4/ip_forward", "1")?;
    let routes = [IpAddr::V4(guest.v4), IpAddr::V6(guest.v6)].map(|own| Route::to_link(own.into(), &guest.outer));
    host.add_routes(&routes)?;
    host.change_elements(&table(), &elements(guest).map(|(set, element)| Change::add(set, element)))?;
    Ok(())
}

fn remove(networks: &LinuxNetworks, host: &dyn Network, guest: &Guest) -> Outcome {
    host.change_elements(&table(), &elements(guest).map(|(set, element)| Change::remove(set, element.key)))?;
    host.remove_link(&guest.outer)?;
    networks.remove_namespace(&guest.namespace)?;
    Ok(())
}

/// The same, but the pair is left to the kernel, which ends it some time after the namespace.
fn abandon(networks: &LinuxNetworks, host: &dyn Network, guest: &Guest) -> Outcome {
    host.change_elements(&table(), &elements(guest).map(|(set, element)| Change::remove(set, element.key)))?;
    networks.remove_namespace(&guest.namespace)?;
    Ok(())
}

/// The lines of `ip` that do the same; those of the second list inside the namespace.
fn lines(guest: &Guest) -> (Vec<String>, Vec<String>) {
    let Guest { namespace, outer, v4, v6 } = guest;
    let host = vec![
        format!("link add {outer} type veth peer name eth0 netns {namespace}"),
        format!("link set {outer} up"),
        format!("route add {v4}/32 dev {outer}"),
        format!("route add {v6}/128 dev {outer}"),
    ];
    let inner = [
        "link set lo up",
        "link set eth0 up",
        "tuntap add dev tap0 mode tap user 977 group 976 vnet_hdr",
        "link set tap0 up",
        &format!("address add {v4}/32 dev eth0"),
        &format!("address add {v6}/128 dev eth0 nodad"),
        "address add 172.16.0.1/30 dev tap0",
        "address add fd00:ffff::1/64 dev tap0 nodad",
        "route add default via 169.254.0.1 dev eth0 onlink",
        "route add default via fe80::1 dev eth0 onlink",
    ];
    (host, inner.map(str::to_owned).to_vec())
}

fn ruleset(verb: &str, guest: &Guest) -> [String; 3] {
    let Guest { outer, v4, v6, .. } = guest;
    let verdict = if verb == "add" { " : jump guest" } else { "" };
    [
        format!("{verb} element inet cairn own {{ \"{outer}\" . {v4} }}"),
        format!("{verb} element inet cairn own6 {{ \"{outer}\" . {v6} }}"),
        format!("{verb} element inet cairn links {{ \"{outer}\"{verdict} }}"),
    ]
}

fn run(program: &str, line: &str) -> Outcome {
    Linux.run(&Command::new(program).args(line.split(' ')))?;
    Ok(())
}

fn fed(program: &str, line: &str, input: &[String]) -> Outcome {
    Linux.run(&Command::new(program).args(line.split(' ')).input(input.join("\n") + "\n"))?;
    Ok(())
}

fn create_by_steps(guest: &Guest) -> Outcome {
    let namespace = &guest.namespace;
    let (host, inner) = lines(guest);
    run("ip", &format!("netns add {namespace}"))?;
    host[..2].iter().try_for_each(|line| run("ip", line))?;
    inner.iter().try_for_each(|line| run("ip", &format!("-n {namespace} {line}")))?;
    run("ip", &format!("netns exec {namespace} sysctl -q -w net.ipv4.ip_forward=1"))?;
    host[2..].iter().try_for_each(|line| run("ip", line))?;
    ruleset("add", guest).iter().try_for_each(|line| run("nft", line))
}

fn remove_by_steps(guest: &Guest) -> Outcome {
    ruleset("delete", guest).iter().try_for_each(|line| run("nft", line))?;
    run("ip", &format!("link delete {}", guest.outer))?;
    run("ip", &format!("netns delete {}", guest.namespace))
}

fn create_by_batches(guest: &Guest) -> Outcome {
    let namespace = &guest.namespace;
    let (host, inner) = lines(guest);
    run("ip", &format!("netns add {namespace}"))?;
    fed("ip", "-batch -", &host)?;
    fed("ip", &format!("-n {namespace} -batch -"), &inner)?;
    run("ip", &format!("netns exec {namespace} sysctl -q -w net.ipv4.ip_forward=1"))?;
    fed("nft", "-f -", &ruleset("add", guest))
}

fn remove_by_batches(guest: &Guest) -> Outcome {
    fed("nft", "-f -", &ruleset("delete", guest))?;
    fed("ip", "-batch -", &[format!("link delete {}", guest.outer), format!("netns delete {}", guest.namespace)])
}

/// Times of one way, in the order they were taken.
#[derive(Default)]
struct Times {
    create: Vec<Duration>,
    remove: Vec<Duration>,
}

impl Times {
    fn measure(&mut self, create: impl FnOnce() -> Outcome, remove: impl FnOnce() -> Outcome) -> Outcome {
        let start = Instant::now();
        create()?;
        self.create.push(start.elapsed());
        let start = Instant::now();
        remove()?;
        self.remove.push(start.elapsed());
        Ok(())
    }

    /// Medians of create and remove, in milliseconds.
    fn medians(&mut self) -> (f64, f64) {
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1000.0
        };
        (median(&mut self.create), median(&mut self.remove))
    }
}

fn compare() -> Outcome {
    let networks = LinuxNetworks::new();
    let host = networks.open(&Place::Host)?;
    host.load_ruleset(RULESET)?;
    for number in 0..OTHERS {
        create(&networks, &*host, &Guest::new(number))?;
    }
    let (mut ours, mut steps, mut batches) = (Times::default(), Times::default(), Times::default());
    for round in 0..ROUNDS {
        let guests = [0, 1, 2].map(|way| Guest::new(OTHERS + 3 * round + way));
        ours.measure(|| create(&networks, &*host, &guests[0]), || remove(&networks, &*host, &guests[0]))?;
        steps.measure(|| create_by_steps(&guests[1]), || remove_by_steps(&guests[1]))?;
        batches.measure(|| create_by_batches(&guests[2]), || remove_by_batches(&guests[2]))?;
    }
    let own = ours.medians();
    println!("network of one microVM, median of {ROUNDS}, {OTHERS} others there    create      remove");
    println!("netlink, this crate                                      {:9.2} ms {:9.2} ms", own.0, own.1);
    for (name, mut times) in [("a process of ip or nft for each step", steps), ("ip -batch and nft -f", batches)] {
        let (create, remove) = times.medians();
        let (more, less) = (create / own.0, remove / own.1);
        println!("{name:<56} {create:9.2} ms {remove:9.2} ms   {more:.1} and {less:.1} times as long");
    }
    let mut abandoned = Times::default();
    for number in OTHERS + 3 * ROUNDS..OTHERS + 4 * ROUNDS {
        let guest = Guest::new(number);
        abandoned.measure(|| create(&networks, &*host, &guest), || abandon(&networks, &*host, &guest))?;
    }
    let (create, remove) = abandoned.medians();
    println!("{:<56} {create:9.2} ms {remove:9.2} ms", "netlink, the pair left to the kernel");
    let mut translated = Times::default();
    for number in 0..ROUNDS {
        let name = format!("pool_{number}");
        networks.create_namespace(&name)?;
        let inner = networks.open(&Place::named(&name))?;
        let load = || Ok(inner.load_ruleset(TRANSLATION)?);
        translated.measure(load, || Ok(networks.remove_namespace(&name)?))?;
    }
    let (create, _) = translated.medians();
    println!("{:<56} {create:9.2} ms", "besides: translation for a namespace, loaded by nft");
    Ok(())
}

/// Begins again in a mount and a network namespace of its own, with nothing in `/run`.
fn enclosed() -> Outcome {
    let itself = std::env::current_exe()?;
    let script = "mount -t tmpfs none /run && ip link set lo up && exec \"$0\" \"$1\"";
    let words = ["--mount", "--net", "sh", "-c", script];
    let status = std::process::Command::new("unshare").args(words).arg(itself).arg(INSIDE).status()?;
    if status.success() { Ok(()) } else { Err(format!("unshare: {status}").into()) }
}

fn main() -> ExitCode {
    for program in ["ip", "nft", "unshare"] {
        if Linux.run(&Command::new(program).arg("-V")).is_err_and(|error| error.is_missing()) {
            eprintln!("NOT RUN: network against processes: {program} is missing");
            return ExitCode::SUCCESS;
        }
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: network against processes: not root");
        return ExitCode::SUCCESS;
    }
    let done = if std::env::args().any(|argument| argument == INSIDE) { compare() } else { enclosed() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            eprintln!("network: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}
