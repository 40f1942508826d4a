//! Scenarios through the real `cairn` and virtual machines, each in an enclosure of its own (see `testkit::enclosure`).
//!
//! `cargo xtask test` runs the quick ones, `cargo xtask test --all` all of them; plain `cargo test` names them as not run.
//! A new scenario is a function and a line in [`SCENARIOS`].

mod door;
mod guest_bios;
mod guest_bridge;
mod guest_failures;
mod guest_kills;
mod image_twice;
mod install;
mod job_cancel;
mod job_failures;
mod job_kills;
mod job_path;
mod job_secrets;
mod machines;
mod observed;
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
        name: "job-cancel",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_cancel::NEEDS,
        run: job_cancel::at_work,
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
        name: "job-secrets",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_secrets::NEEDS,
        run: job_secrets::nowhere,
    },
    Scenario {
        name: "metrics",
        tier: Tier::Quick,
        network: Network::Host,
        needs: observed::NEEDS,
        run: observed::metrics,
    },
    Scenario {
        name: "door-closed",
        tier: Tier::Quick,
        network: Network::Host,
        needs: door::NEEDS,
        run: door::closed_from_outside,
    },
    Scenario {
        name: "door-password",
        tier: Tier::Quick,
        network: Network::Host,
        needs: door::NEEDS,
        run: door::with_a_password,
    },
    Scenario { name: "door-tls", tier: Tier::Quick, network: Network::Host, needs: door::NEEDS, run: door::tls },
    Scenario {
        name: "door-graceful",
        tier: Tier::Quick,
        network: Network::Host,
        needs: door::NEEDS,
        run: door::graceful,
    },
    Scenario {
        name: "install",
        tier: Tier::Quick,
        network: Network::Host,
        needs: install::NEEDS,
        run: install::blank_machine_to_first_boot,
    },
    Scenario {
        name: "guest-failures",
        tier: Tier::All,
        network: Network::Host,
        needs: guest_failures::NEEDS,
        run: guest_failures::digest_and_disks,
    },
    Scenario {
        name: "guest-kills",
        tier: Tier::All,
        network: Network::Host,
        needs: guest_kills::NEEDS,
        run: guest_kills::after_reset_and_before_the_report,
    },
    Scenario {
        name: "guest-bios",
        tier: Tier::All,
        network: Network::Host,
        needs: guest_bios::NEEDS,
        run: guest_bios::installs_and_boots,
    },
    Scenario {
        name: "guest-bridge",
        tier: Tier::All,
        network: Network::Own,
        needs: guest_bridge::NEEDS,
        run: guest_bridge::dhcp_and_static,
    },
    Scenario {
        name: "image-twice",
        tier: Tier::All,
        network: Network::Host,
        needs: image_twice::NEEDS,
        run: image_twice::equal,
    },
];
