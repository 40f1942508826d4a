//! Families of what users ask for: requests, successes, failures and durations of each operation.

use observe::metrics::{Counter, Counters, Histograms, Registry};

use super::{NONE, OTHER, WORK, pairs};
use crate::errors;
use crate::model::Backend;
use crate::plan::Kind;

/// From boot request to running: the guide's alert is at 1 s, and Firecracker promises 125 ms.
const BOOT: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What is counted of an operation.
pub(super) struct Operation {
    pub(super) requests: Counter,
    pub(super) success: Counters<1>,
    pub(super) failures: Counters<2>,
    pub(super) duration: Histograms<1>,
}

/// What a step of an operation fails with.
pub(super) fn error_types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Create => &[errors::VM_DISKS, errors::VM_NETWORK, errors::ASSET_MISSING, errors::ASSET_DAMAGED, OTHER],
        Kind::Boot | Kind::Reboot => &[
            errors::ASSET_MISSING,
            errors::ASSET_DAMAGED,
            errors::VM_NETWORK,
            errors::VM_JAIL,
            errors::VM_KEEPER,
            errors::HYPERVISOR_MISSING,
            errors::HYPERVISOR,
            errors::HYPERVISOR_ENDED,
            errors::VM_SILENT,
            errors::VM_BUSY,
            OTHER,
        ],
        // What somebody else's force took the place of is busy to who had asked for it.
        Kind::Stop => &[errors::VM_KEEPER, errors::HYPERVISOR, errors::VM_BUSY, OTHER],
        _ => &[errors::VM_KEEPER, errors::HYPERVISOR, OTHER],
    }
}

/// The word of the original for an operation; [`Kind::Ended`] is none of a user's.
fn word(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Stop => Some("shutdown"),
        Kind::Ended => None,
        other => Some(other.as_str()),
    }
}

/// Registers all of them.
pub(super) fn operations(registry: &mut Registry) -> Vec<(Kind, Operation)> {
    let kinds = Kind::ALL.into_iter().filter_map(|kind| Some((kind, word(kind)?)));
    let backends = [[NONE], [Backend::Firecracker.as_str()], [Backend::Qemu.as_str()]];
    let one = |(kind, word): (Kind, &str)| {
        // Nothing is decided about the hypervisor before the first boot.
        let backends = if kind == Kind::Create { &backends[..1] } else { &backends[..] };
        let bounds = if matches!(kind, Kind::Boot | Kind::Reboot) { BOOT } else { WORK };
        let requests = registry.counter(
            &format!("unkey_metald_vm_{word}_requests_total"),
            &format!("Times that it was begun to {word} a VM"),
        );
        let success = registry.counters(
            &format!("unkey_metald_vm_{word}_success_total"),
            &format!("Times that it was done to {word} a VM"),
            ["backend"],
            backends,
        );
        let failures = registry.counters(
            &format!("unkey_metald_vm_{word}_failures_total"),
            &format!("Times that it was given up to {word} a VM"),
            ["backend", "error_type"],
            &pairs(backends, &error_types(kind).iter().copied()),
        );
        let duration = registry.histograms(
            &format!("unkey_metald_vm_{word}_duration_seconds"),
            &format!("From the request to {word} a VM until it was done"),
            ["backend"],
            bounds,
            backends,
        );
        (kind, Operation { requests, success, failures, duration })
    };
    kinds.map(one).collect()
}
