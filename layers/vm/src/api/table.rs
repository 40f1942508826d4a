//! Every route of the layer: who may use it, what it changes. The doors, the metrics and the OpenAPI document follow from
//! this table, and the tests walk over it.

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    Open,
    /// Whoever has a token; customers see what is theirs.
    Customer,
    /// Operators.
    Operator,
    /// Whoever is on this machine (guide: these lines have no token).
    Loopback,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Method.
    pub method: &'static str,
    /// Pattern of the path.
    pub path: &'static str,
    /// Who is let in.
    pub door: Door,
    /// Its name in the audit log, when it changes something.
    pub change: Option<&'static str>,
    /// Whether it is refused while maintenance is on.
    pub waits_for_maintenance: bool,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

const fn look(method: &'static str, path: &'static str, door: Door, summary: &'static str) -> Route {
    Route { method, path, door, change: None, waits_for_maintenance: false, summary }
}

const fn change(
    method: &'static str,
    path: &'static str,
    door: Door,
    name: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, door, change: Some(name), waits_for_maintenance: true, summary }
}

/// A change that maintenance does not stop.
const fn at_any_time(route: Route) -> Route {
    Route { waits_for_maintenance: false, ..route }
}

use Door::{Customer, Loopback, Open, Operator};

/// The resources.
const RESOURCES: &[Route] = &[
    look("GET", "/v1/vms", Customer, "VMs, all of them unless a page is asked for."),
    change("POST", "/v1/vms", Customer, "vm.create", "Creates a VM; it is not booted."),
    look("GET", "/v1/vms/{id}", Customer, "One VM."),
    change("DELETE", "/v1/vms/{id}", Customer, "vm.delete", "Removes a VM and everything of it."),
    change("POST", "/v1/vms/{id}/boot", Customer, "vm.boot", "Boots a VM that is created, shut down or failed."),
    change("POST", "/v1/vms/{id}/shutdown", Customer, "vm.shutdown", "Lets the guest end, by force where it does not."),
    change("POST", "/v1/vms/{id}/pause", Customer, "vm.pause", "Stops the guest's processors."),
    change("POST", "/v1/vms/{id}/resume", Customer, "vm.resume", "Lets the guest's processors run again."),
    change("POST", "/v1/vms/{id}/reboot", Customer, "vm.reboot", "Shutdown and boot."),
    look(
        "GET",
        "/v1/vms/{id}/wait",
        Customer,
        "Answers once the VM is in one of the states, or 504 when it is not in time.",
    ),
    look("GET", "/v1/vms/{id}/events", Customer, "What happened to a VM: a list, or a stream of events."),
    look("GET", "/v1/vms/{id}/logs", Customer, "The guest's serial console; may be followed."),
    // What a guest is told is between it and its user, also during maintenance.
    at_any_time(change(
        "POST",
        "/v1/vms/{id}/console",
        Customer,
        "vm.console",
        "Types into the guest's serial console.",
    )),
    look("GET", "/v1/vms/{id}/network", Operator, "Rules, counters and addresses of a VM."),
    look("GET", "/v1/events", Customer, "What happened to all VMs: a list, or a stream of events."),
    look("GET", "/v1/tokens", Operator, "Tokens, without their secrets."),
    change("POST", "/v1/tokens", Operator, "token.create", "Makes a token; its text is told once, here."),
    // A token that was stolen does not wait.
    at_any_time(change("DELETE", "/v1/tokens/{id}", Operator, "token.revoke", "Ends a token.")),
    look("GET", "/v1/assets", Operator, "Kernels, initial file systems and disks."),
    change("PUT", "/v1/assets/{name}", Operator, "asset.add", "Adds an asset; the body is its content."),
    change("DELETE", "/v1/assets/{name}", Operator, "asset.remove", "Removes an asset that no VM needs."),
    // `{name}` is `gc` and nothing else; a route of its own would take that name away from assets.
    change("POST", "/v1/assets/{name}", Operator, "asset.collect", "`gc`: removes assets that no VM needs."),
    look("GET", "/v1/strays", Operator, "Things on this host that belong to no VM."),
    change("DELETE", "/v1/strays", Operator, "strays.remove", "Removes them."),
    look("GET", "/v1/network", Operator, "Rules, counters and addresses of this host."),
    look("GET", "/v1/doctor", Operator, "Whether this host has what VMs need."),
    look("GET", "/health", Open, "How the daemon and its hypervisor are; 200 as long as the API answers."),
    at_any_time(change(
        "POST",
        "/admin/maintenance/enable",
        Loopback,
        "maintenance.enable",
        "Refuses changes from now on.",
    )),
    at_any_time(change("POST", "/admin/maintenance/disable", Loopback, "maintenance.disable", "Takes changes again.")),
    look("GET", "/debug/pprof/goroutine", Loopback, "Live tasks and threads, as text."),
    look("GET", "/debug/pprof/heap", Loopback, "Memory of this process, as text."),
];

macro_rules! calls {
    ($(($name:literal, $change:expr, $summary:literal)),* $(,)?) => {
        &[$(
            Route { path: concat!("/vmprovisioner.v1.VmService/", $name), ..call($change, $summary) },
            Route { path: concat!("/metal.vmprovisioner.v1.VmService/", $name), ..call($change, $summary) },
        )*]
    };
}

const fn call(change: Option<&'static str>, summary: &'static str) -> Route {
    let waits_for_maintenance = change.is_some();
    Route { method: "POST", path: "", door: Customer, change, waits_for_maintenance, summary }
}

/// The same by the original's calls (Connect), under both names that its package had.
const CALLS: &[Route] = calls![
    ("CreateVm", Some("vm.create"), "Creates a VM; it is not booted."),
    ("DeleteVm", Some("vm.delete"), "Removes a VM and everything of it."),
    ("BootVm", Some("vm.boot"), "Boots a VM."),
    ("ShutdownVm", Some("vm.shutdown"), "Lets the guest end."),
    ("PauseVm", Some("vm.pause"), "Stops the guest's processors."),
    ("ResumeVm", Some("vm.resume"), "Lets the guest's processors run again."),
    ("RebootVm", Some("vm.reboot"), "Shutdown and boot."),
    ("GetVmInfo", None, "One VM."),
    ("ListVms", None, "VMs."),
];

/// All routes.
pub fn all() -> impl Iterator<Item = &'static Route> {
    RESOURCES.iter().chain(CALLS)
}

/// Method and path of all routes, as [`crate::metrics::VmMetrics::register`] takes them.
pub fn names() -> Vec<(&'static str, &'static str)> {
    all().map(|route| (route.method, route.path)).collect()
}

/// The value of the parameter in a path that this route matches, still encoded.
pub(super) fn parameter<'p>(route: &Route, path: &'p str) -> Option<&'p str> {
    let at = route.path.split('/').position(|part| part.starts_with('{'))?;
    path.split('/').nth(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_route_is_there_twice_and_what_changes_something_is_no_get() {
        let names = names();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for route in all() {
            assert!(route.change.is_none() || route.method != "GET", "{route:?}");
            assert!(!route.waits_for_maintenance || route.change.is_some(), "{route:?}");
        }
    }

    #[test]
    fn the_parameter_of_a_path() {
        let of =
            |path: &str, request: &'static str| parameter(all().find(|route| route.path == path).unwrap(), request);
        assert_eq!(of("/v1/vms/{id}/boot", "/v1/vms/ud-1/boot"), Some("ud-1"));
        assert_eq!(of("/v1/assets/{name}", "/v1/assets/x"), Some("x"));
        assert_eq!(of("/v1/vms", "/v1/vms"), None);
    }
}
