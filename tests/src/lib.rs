//! Scenarios through the real `cairn` and virtual machines, each in an enclosure of its own (see `testkit::enclosure`).
//!
//! `cargo xtask test` runs the quick ones, `cargo xtask test --all` all of them; plain `cargo test` names them as not run.
//! A new scenario is a function and a line in [`SCENARIOS`].

mod install;
mod job_failures;
mod job_kills;
mod job_path;
mod rack;
mod runner;
mod scripted;

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
        name: "job-path",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_path::NEEDS,
        run: job_path::one_drive,
    },
    Scenario {
        name: "job-path-two-drives",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_path::NEEDS,
        run: job_path::two_drives,
    },
    Scenario {
        name: "job-failures-refused",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_failures::NEEDS,
        run: job_failures::refused,
    },
    Scenario {
        name: "job-failures-bmcs",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_failures::NEEDS,
        run: job_failures::bmcs,
    },
    Scenario {
        name: "job-failures-guests",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_failures::NEEDS,
        run: job_failures::guests,
    },
    Scenario {
        name: "job-kills",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_kills::NEEDS,
        run: job_kills::every_phase,
    },
    Scenario {
        name: "job-kills-holder",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_kills::NEEDS,
        run: job_kills::one_holder,
    },
    Scenario {
        name: "install",
        tier: Tier::Quick,
        network: Network::Host,
        needs: install::NEEDS,
        run: install::blank_machine_to_first_boot,
    },
];
