//! The layer against this machine, against fakes, and with real programs and a real kernel.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

mod api_access;
mod api_admin;
mod api_connect;
mod api_fixture;
mod api_input;
mod api_openapi;
mod api_streams;
mod api_wire;
mod codes;
#[path = "../../../../base/observe/tests/all/collector.rs"]
mod collector;
mod commands;
mod deploy;
mod deploy_alerts;
mod deploy_dashboard;
mod deploy_guide;
mod deploy_host;
mod deploy_install;
mod deploy_units;
mod edge;
mod hypervisor;
mod hypervisor_firecracker;
mod hypervisor_probe;
mod hypervisor_qemu;
mod keepers;
mod traces;
