//! Scenarios through the real `cairn` and virtual machines, each in an enclosure of its own (see `testkit::enclosure`).
//!
//! `cargo xtask test` runs the quick ones, `cargo xtask test --all` all of them; plain `cargo test` names them as not run.
//! A new scenario is a function and a line in [`SCENARIOS`].

mod install;
mod rack;
mod runner;

use runner::{Scenario, Tier};
use testkit::enclosure::Network;

pub use runner::main;

/// Every scenario, in the order in which they run.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rack",
        tier: Tier::Quick,
        network: Network::Host,
        needs: rack::NEEDS,
        run: rack::boots_from_its_bmc,
    },
    Scenario {
        name: "rack-bridge",
        tier: Tier::All,
        network: Network::Own,
        needs: rack::BRIDGE_NEEDS,
        run: rack::own_network_with_bios_and_nvme,
    },
    Scenario {
        name: "install",
        tier: Tier::Quick,
        network: Network::Host,
        needs: install::NEEDS,
        run: install::blank_machine_to_first_boot,
    },
];
