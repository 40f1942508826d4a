//! A host, a neighbour outside, and guests, each a namespace of this test.

use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use host::network::{LinkChange, LinuxNetworks, Network, Networks, NewKind, NewLink, Place, Route};
use host::{Command, Linux, Processes};
use ipnet::IpNet;
use vm::adapters::edge::{EdgeSettings, HostEdges};
use vm::model::Vm;
use vm::ports::Edges;

/// The host's namespace, and that of whoever is outside.
pub(super) const HOST: &str = "host";
const OUTSIDE: &str = "outside";
/// How long something that has to come may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// Says that a test cannot run here.
fn not_run(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {reason}");
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The namespaces of a test. They end with it.
pub(super) struct Rack {
    pub(super) networks: LinuxNetworks,
    pub(super) host: Box<dyn Network>,
    /// Behind the host's link `uplink`: public addresses 203.0.114.9 and 2a00:1::9, private 192.168.7.9 and 10.9.9.9.
    pub(super) outside: Box<dyn Network>,
    pub(super) runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Rack {
    /// Nothing, with a word about it, where namespaces cannot be made or a program is missing.
    pub(super) fn new(test: &str) -> Option<Self> {
        for program in ["nft", "ip"] {
            if Linux.run(&Command::new(program).arg("-V")).is_err_and(|error| error.is_missing()) {
                not_run(test, &format!("{program} is missing"));
                return None;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let networks = LinuxNetworks::in_directory(directory.path());
        if let Err(error) = networks.create_namespace(HOST) {
            let why = error.cause.source().map(|why| format!(": {why}")).unwrap_or_default();
            not_run(test, &format!("{error}{why}"));
            return None;
        }
        networks.create_namespace(OUTSIDE).unwrap();
        let open = |name: &str| {
            let network = networks.open(&Place::named(name)).unwrap();
            network.change_link("lo", &LinkChange::Up).unwrap();
            network
        };
        let (host, outside) = (open(HOST), open(OUTSIDE));
        host.add_link(&NewLink::veth("uplink", "eth0", Some(Place::named(OUTSIDE))).up()).unwrap();
        outside.change_link("eth0", &LinkChange::Up).unwrap();
        host.add_addresses("uplink", &[net("203.0.114.1/24"), net("2a00:1::1/64"), net("192.168.7.1/24")]).unwrap();
        let own = ["203.0.114.9/24", "2a00:1::9/64", "192.168.7.9/24", "169.254.169.254/32", "10.9.9.9/32"].map(net);
        outside.add_addresses("eth0", &own).unwrap();
        let ways = [("0.0.0.0/0", "203.0.114.9"), ("::/0", "2a00:1::9")];
        let ways = ways.map(|(all, gateway)| Route::by_gateway(net(all), ip(gateway), "uplink"));
        host.add_routes(&ways).unwrap();
        // Whoever is outside knows the way to VMs, so that only our filter keeps it out.
        let back = [("10.100.0.0/16", "203.0.114.1"), ("fd00::/64", "2a00:1::1")];
        let back = back.map(|(vms, host)| Route::by_gateway(net(vms), ip(host), "eth0"));
        outside.add_routes(&back).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Some(Self { networks, host, outside, runtime, _directory: directory })
    }

    /// The edges of this host, opened.
    pub(super) fn edges(&self, settings: EdgeSettings) -> HostEdges {
        let edges = HostEdges::new(Arc::new(self.networks.clone()), &Place::named(HOST), settings).unwrap();
        self.wait(edges.open());
        edges
    }

    /// Waits for a step that has to succeed.
    pub(super) fn wait<T>(&self, step: vm::ports::Stepped<'_, T>) -> T {
        self.runtime.block_on(step).unwrap_or_else(|error| panic!("{}: {error}", error.code))
    }

    /// A VM's network, and a guest in it.
    pub(super) fn boot(&self, edges: &HostEdges, vm: &Vm) -> Box<dyn Network> {
        let wire = self.wait(edges.ensure(vm, None));
        let name = format!("guest-{}", vm.slot.0);
        self.networks.create_namespace(&name).unwrap();
        let guest = self.networks.open(&Place::named(&name)).unwrap();
        let inside = self.networks.open(&Place::named(&wire.namespace)).unwrap();
        // Nobody holds the tap here, so a pair of links takes its place, with its name, addresses and neighbours.
        let (tap, addresses) = (inside.link("tap0").unwrap(), inside.addresses("tap0").unwrap());
        let neighbours = inside.neighbours().unwrap();
        inside.remove_link("tap0").unwrap();
        let mut pair = NewLink::veth("tap0", "eth0", Some(Place::named(&name))).mac(tap.mac.unwrap()).up();
        if let host::network::NewKind::Veth(peer) = &mut pair.kind {
            peer.mac = Some(wire.mac.parse().unwrap());
        }
        inside.add_link(&pair).unwrap();
        inside.add_addresses("tap0", &addresses).unwrap();
        let at_tap: Vec<_> = neighbours.into_iter().filter(|neighbour| neighbour.link == "tap0").collect();
        inside.add_neighbours(&at_tap).unwrap();
        guest.change_link("lo", &LinkChange::Up).unwrap();
        guest.change_link("eth0", &LinkChange::Up).unwrap();
        let own = wire.guest.ipv4.map(IpNet::V4).into_iter().chain(wire.guest.ipv6.map(IpNet::V6));
        guest.add_addresses("eth0", &own.collect::<Vec<_>>()).unwrap();
        if let Some(gateway) = wire.guest.gateway_ipv4 {
            guest.add_routes(&[Route::by_gateway(net("0.0.0.0/0"), gateway.into(), "eth0")]).unwrap();
        }
        if let Some(gateway) = wire.guest.gateway_ipv6 {
            guest.add_routes(&[Route::by_gateway(net("::/0"), gateway.into(), "eth0")]).unwrap();
        }
        guest
    }

    /// What `program` says inside the host's namespace.
    pub(super) fn host_says(&self, program: &str, words: &str) -> String {
        let command = Command::new(program).args(words.split(' '));
        inside(&*self.host, || Linux.run(&command)).unwrap().text()
    }

    /// What is left of VMs on this host, counted without the code under test.
    pub(super) fn left(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.networks.namespace_path("")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let namespaces = names.filter(|name| name.starts_with("ns_vm_"));
        let links = self.host_says("ip", "-o link");
        let links = links.lines().filter(|line| line.contains("tapv")).map(str::to_owned);
        let routes = format!("{}\n{}", self.host_says("ip", "route"), self.host_says("ip", "-6 route"));
        let routes = routes.lines().filter(|line| line.contains("tapv")).map(str::to_owned).collect::<Vec<_>>();
        let rules = self.host_says("nft", "list ruleset");
        let mut left: Vec<String> = namespaces.chain(links).chain(routes).collect();
        let mut set = String::new();
        for line in rules.lines().map(str::trim) {
            if line.starts_with("set ") || line.starts_with("map ") {
                line.clone_into(&mut set);
            } else if line.starts_with("elements = ") && !set.contains("private") {
                left.push(format!("{set} {line}"));
            }
        }
        left
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for namespace in self.networks.namespaces().unwrap_or_default() {
            let _ = self.networks.remove_namespace(&namespace.name);
        }
    }
}

/// What `work` returns, done on a thread in the namespace.
pub(super) fn inside<T: Send>(network: &dyn Network, work: impl FnOnce() -> T + Send) -> T {
    let (mut work, mut result) = (Some(work), None);
    network.inside(&mut || result = work.take().map(|work| work())).unwrap();
    result.unwrap()
}

/// Listens on every address of a namespace.
pub(super) fn listen(network: &dyn Network, port: u16) -> TcpListener {
    inside(network, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

/// A socket for datagrams on an address.
pub(super) fn datagrams(network: &dyn Network, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = inside(network, || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn connect(network: &dyn Network, to: &str, limit: Duration) -> io::Result<TcpStream> {
    let to = to.parse().unwrap();
    inside(network, || TcpStream::connect_timeout(&to, limit))
}

/// A connection that has to come, and as whom the listener sees it.
pub(super) fn reaches(from: &dyn Network, to: &str, listener: &TcpListener) -> IpAddr {
    let near = connect(from, to, PATIENCE).unwrap_or_else(|error| panic!("{to}: {error}"));
    let (mut far, peer) = listener.accept().unwrap();
    far.write_all(b"hello").unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = [0; 5];
    io::Read::read_exact(&mut (&near), &mut read).unwrap();
    assert_eq!(&read, b"hello");
    peer.ip().to_canonical()
}

/// A connection that must not come: nobody answers, not even with a refusal.
pub(super) fn is_dropped(from: &dyn Network, to: &str) {
    let error = connect(from, to, SILENCE).expect_err(to);
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{to}: {error}");
}

/// A bridge on the host with addresses.
pub(super) fn add_bridge(host: &dyn Network, name: &str, addresses: &[&str]) {
    host.add_link(&NewLink::new(name, NewKind::Bridge).up()).unwrap();
    host.add_addresses(name, &addresses.iter().map(|address| net(address)).collect::<Vec<_>>()).unwrap();
}
