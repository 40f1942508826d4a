//! Networks: one suite for the real ones and the fake, and what only a kernel can show. Everything happens in
//! namespaces that a test makes, in a directory of its own; the machine's own network is not touched.

mod fake;
mod filter_suite;
mod filtering;
mod kills;
mod suite;
mod wires;

use std::error::Error;
use std::io;
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use host::network::{FakeNetworks, LinkChange, LinuxNetworks, Network, Networks, NewLink, Place};
use host::{Command, Linux, Processes};

use crate::not_run;

/// Namespaces of one test. They end with it.
struct Rack {
    networks: LinuxNetworks,
    _directory: tempfile::TempDir,
}

impl Rack {
    /// Nothing, with a word about it, where namespaces cannot be made or a program is missing.
    fn new(test: &str, programs: &[&str]) -> Option<Self> {
        for program in programs {
            if Linux.run(&Command::new(*program).arg("-V")).is_err_and(|error| error.is_missing()) {
                not_run(test, &format!("{program} is missing"));
                return None;
            }
        }
        // In the root of a chroot, which need not be a mount point, it cannot make a mount namespace of its own.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if programs.contains(&"unshare") && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")) {
            not_run(test, "/ is no mount point");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let rack = Self { networks: LinuxNetworks::in_directory(directory.path()), _directory: directory };
        match rack.networks.create_namespace("probe") {
            Ok(()) => {
                rack.networks.remove_namespace("probe").unwrap();
                Some(rack)
            }
            Err(error) => {
                not_run(
                    test,
                    &format!("{error}{}", error.cause.source().map(|why| format!(": {why}")).unwrap_or_default()),
                );
                None
            }
        }
    }
}

impl Rack {
    /// A new namespace in which the loopback link is up.
    fn network(&self, name: &str) -> Box<dyn Network> {
        self.networks.create_namespace(name).unwrap();
        let network = self.networks.open(&Place::named(name)).unwrap();
        network.change_link("lo", &LinkChange::Up).unwrap();
        network
    }

    /// Two namespaces joined by a pair of links: `one` with 10.0.0.1 and fd00::1, `two` with 10.0.0.2 and fd00::2.
    fn joined(&self) -> (Box<dyn Network>, Box<dyn Network>) {
        let (one, two) = (self.network("one"), self.network("two"));
        one.add_link(&NewLink::veth("to-two", "to-one", Some(Place::named("two"))).up()).unwrap();
        two.change_link("to-one", &LinkChange::Up).unwrap();
        for (network, link, number) in [(&one, "to-two", 1), (&two, "to-one", 2)] {
            let own = [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")].map(|own| own.parse().unwrap());
            network.add_addresses(link, &own).unwrap();
        }
        (one, two)
    }
}

/// What `work` returns, done on a thread in the namespace.
fn inside<T: Send>(network: &dyn Network, work: impl FnOnce() -> T + Send) -> T {
    let (mut work, mut result) = (Some(work), None);
    network.inside(&mut || result = work.take().map(|work| work())).unwrap();
    result.unwrap()
}

/// Listens on every address of a namespace.
fn listen(network: &dyn Network, port: u16) -> TcpListener {
    inside(network, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

/// Connects from within a namespace. The limit is only reached when something is wrong.
fn connect(network: &dyn Network, to: &str) -> io::Result<TcpStream> {
    let to = to.parse().unwrap();
    let stream = inside(network, || TcpStream::connect_timeout(&to, Duration::from_secs(20)))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

impl Drop for Rack {
    fn drop(&mut self) {
        for namespace in self.networks.namespaces().unwrap_or_default() {
            let _ = self.networks.remove_namespace(&namespace.name);
        }
    }
}

macro_rules! with_both {
    ($($suite:ident::$behaviour:ident),* $(,)?) => {
        mod in_memory {
            $(#[test] fn $behaviour() { super::$suite::$behaviour(&super::FakeNetworks::new()); })*
        }
        mod on_linux {
            $(#[test] fn $behaviour() {
                let Some(rack) = super::Rack::new(stringify!($behaviour), super::$suite::PROGRAMS) else { return };
                super::$suite::$behaviour(&rack.networks);
            })*
        }
    };
}

with_both!(
    suite::namespaces_have_names,
    suite::links_are_made_and_changed,
    suite::pairs_join_namespaces,
    suite::a_bridge_has_ports,
    suite::taps_have_owners,
    suite::addresses_and_routes_come_and_go,
    suite::neighbours_come_and_go,
    filter_suite::rulesets_are_loaded_as_a_whole,
    filter_suite::sets_and_maps_change_as_a_whole,
    filter_suite::what_does_not_fit_a_set_is_refused,
    filter_suite::intervals_are_kept,
    suite::limits_are_set_and_taken_away,
    suite::settings_belong_to_a_namespace,
    filter_suite::two_thousand_in_one_go,
);
