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
mod job_elsewhere;
mod job_failures;
mod job_held_up;
mod job_kills;
mod job_path;
mod job_secrets;
mod machine;
mod machines;
mod observed;
mod rack;
mod registry;
mod runner;
mod scripted;
mod vm;

use registry::{big_blob, buildah, conformance, crane, oras, podman, regctl, skopeo, umoci};
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
        name: "job-elsewhere",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_elsewhere::NEEDS,
        run: job_elsewhere::account_and_authority,
    },
    Scenario {
        name: "job-held-up",
        tier: Tier::Quick,
        network: Network::Host,
        needs: job_held_up::NEEDS,
        run: job_held_up::while_there_is_no_room,
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
        name: "registry-conformance",
        tier: Tier::Quick,
        network: Network::Host,
        needs: conformance::NEEDS,
        run: conformance::newest,
    },
    Scenario {
        name: "registry-conformance-1.0",
        tier: Tier::Quick,
        network: Network::Host,
        needs: conformance::NEEDS_1_0,
        run: conformance::one_zero,
    },
    Scenario {
        name: "registry-skopeo",
        tier: Tier::Quick,
        network: Network::Host,
        needs: skopeo::NEEDS,
        run: skopeo::copies,
    },
    Scenario {
        name: "registry-podman",
        tier: Tier::Quick,
        network: Network::Host,
        needs: podman::NEEDS,
        run: podman::pushes_and_pulls,
    },
    Scenario {
        name: "registry-buildah",
        tier: Tier::Quick,
        network: Network::Host,
        needs: buildah::NEEDS,
        run: buildah::builds,
    },
    Scenario {
        name: "registry-umoci",
        tier: Tier::Quick,
        network: Network::Host,
        needs: umoci::NEEDS,
        run: umoci::carries,
    },
    Scenario {
        name: "registry-oras",
        tier: Tier::Quick,
        network: Network::Host,
        needs: oras::NEEDS,
        run: oras::artifacts,
    },
    Scenario {
        name: "registry-crane",
        tier: Tier::Quick,
        network: Network::Host,
        needs: crane::NEEDS,
        run: crane::images,
    },
    Scenario {
        name: "registry-regctl",
        tier: Tier::Quick,
        network: Network::Host,
        needs: regctl::NEEDS,
        run: regctl::everything,
    },
    Scenario {
        name: "registry-big-blob",
        tier: Tier::Quick,
        network: Network::Host,
        needs: big_blob::NEEDS,
        run: big_blob::two_gib,
    },
    Scenario {
        name: "registry-huge-blob",
        tier: Tier::All,
        network: Network::Host,
        needs: big_blob::NEEDS,
        run: big_blob::ten_gib,
    },
    Scenario {
        name: "install",
        tier: Tier::Quick,
        network: Network::Host,
        needs: install::NEEDS,
        run: install::blank_machine_to_first_boot,
    },
    Scenario {
        name: "vm-life",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::life::NEEDS,
        run: vm::life::boots_is_reached_and_leaves_nothing,
    },
    Scenario {
        name: "vm-tls",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::tls::NEEDS,
        run: vm::tls::is_changed_while_it_runs,
    },
    Scenario {
        name: "vm-kills",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::kills::NEEDS,
        run: vm::kills::of_the_daemon_and_of_keepers,
    },
    Scenario {
        name: "vm-jail",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::jail::NEEDS,
        run: vm::jail::is_closed,
    },
    Scenario {
        name: "vm-kill-steps",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::steps::NEEDS,
        run: vm::steps::a_few,
    },
    Scenario {
        name: "vm-kill-many-steps",
        tier: Tier::All,
        network: Network::Own,
        needs: vm::steps::NEEDS,
        run: vm::steps::many,
    },
    Scenario {
        name: "vm-guide",
        tier: Tier::Quick,
        network: Network::Own,
        needs: vm::guide::NEEDS,
        run: vm::guide::lines_run_on_a_host_of_their_own,
    },
    Scenario {
        name: "machine-hosts",
        tier: Tier::All,
        network: Network::Own,
        needs: machine::hosts::NEEDS,
        run: machine::hosts::by_hand,
    },
    Scenario {
        name: "machine-host-half",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::host_half::NEEDS,
        run: machine::host_half::goes_on_alone,
    },
    Scenario {
        name: "machine-apply",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::apply::NEEDS,
        run: machine::apply::applies_changes_and_goes_back,
    },
    Scenario {
        name: "machine-rollback",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::rollback::NEEDS,
        run: machine::rollback::the_host_goes_back,
    },
    Scenario {
        name: "machine-kills",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::kills::NEEDS,
        run: machine::kills::in_a_few_phases,
    },
    Scenario {
        name: "machine-kills-all",
        tier: Tier::All,
        network: Network::Own,
        needs: machine::kills::NEEDS,
        run: machine::kills::in_every_phase,
    },
    Scenario {
        name: "machine-ways",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::ways::NEEDS,
        run: machine::ways::are_kept_to,
    },
    Scenario {
        name: "machine-builds",
        tier: Tier::Quick,
        network: Network::Own,
        needs: machine::builds::NEEDS,
        run: machine::builds::where_it_is_wanted,
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
