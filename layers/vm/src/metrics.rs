//! The layer's metrics: those that the guide names, and what the original emitted as far as it applies here. Every family
//! and every label set is there from the start, at 0.

mod counted;
mod operations;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use observe::metrics::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, Registry};

use crate::errors;
use crate::model::{Backend, CustomerId, State};
use crate::plan::{Kind, Step};
use crate::run::Happening;

pub(crate) use counted::{CountedEdges, CountedHypervisor};
use operations::{Operation, error_types, operations};

/// Until a guest is ready; an emulated one takes minutes.
const READY: &[f64] = &[0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
const WORK: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The guide's alert is at 100 ms.
const REQUEST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// No hypervisor has been chosen yet.
const NONE: &str = "none";
const OTHER: &str = "other";
/// Statuses that requests end with; any other is counted as `other`.
const CODES: &[u16] =
    &[200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 499, 500, 501, 502, 503, 504, 507];
/// Exit codes of hypervisors that have a name; any other is counted as `other`.
const EXITS: &[i32] = &[0, 1, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157];
/// Kinds of strays (see [`crate::ports::Stray`]).
const STRAYS: &[&str] = &[
    "namespace",
    "link",
    "route",
    "rule",
    "cgroup",
    "process",
    "jail",
    "program",
    "directory",
    "disks",
    "mount",
    OTHER,
];

/// Steps of operations.
const STEPS: [Step; 13] = [
    Step::Disks,
    Step::Network,
    Step::Jail,
    Step::Launch,
    Step::Start,
    Step::Ask,
    Step::Wait,
    Step::Collect,
    Step::Reap,
    Step::Pause,
    Step::Resume,
    Step::DropNetwork,
    Step::DropDisks,
];

/// What counts as an error of a hypervisor. That a guest panics or its command fails is none.
const BACKEND_ERRORS: &[&str] = &[
    errors::VM_JAIL,
    errors::VM_KEEPER,
    errors::HYPERVISOR_MISSING,
    errors::HYPERVISOR,
    errors::HYPERVISOR_ENDED,
    errors::VM_CRASHED,
    errors::VM_SILENT,
    errors::VM_LOST,
];

/// `unkey_metald_*` and `metald_*`.
pub struct VmMetrics {
    /// `unkey_metald_login_failures_total`: requests with a token that is not good.
    pub login_failures: Counter,
    /// `unkey_metald_audit_lost_total`: lines that are missing in the audit file.
    pub audit_lost: Counter,
    /// `unkey_metald_maintenance`: 1 while changes are refused.
    pub maintenance: Gauge,
    /// `unkey_metald_vm_limit`: VMs that may be there at once.
    pub vm_limit: Gauge,
    /// `unkey_metald_vm_restarts_total`: boots by a restart policy.
    pub restarts: Counter,
    /// `unkey_metald_vm_adopted_total`: VMs that were found alive after a start of the daemon.
    pub adopted: Counter,
    /// `unkey_metald_vm_info_requests_total`.
    pub info_requests: Counter,
    /// `unkey_metald_vm_list_requests_total`.
    pub list_requests: Counter,
    network_created: Counter,
    network_deleted: Counter,
    network_setup: Histogram,
    network_cleanup: Histogram,
    operations: Vec<(Kind, Operation)>,
    active: Active,
    states: Gauges<1>,
    ready: Histograms<1>,
    backend_errors: Counters<2>,
    requests: Histograms<3>,
    processes: Tried,
    jails: Tried,
    terminations: Counters<2>,
    cleanups: Counters<1>,
    health_checks: Counters<1>,
    health_failures: Counters<1>,
    health_duration: Histograms<1>,
    network_errors: Counters<1>,
    addresses: Arc<[AtomicU32; 2]>,
    strays: Gauges<1>,
    steps: Counters<1>,
    forced: Counter,
}

/// Requests, successes and failures of one thing, each by backend.
struct Tried {
    requests: Counters<1>,
    success: Counters<1>,
    failures: Counters<1>,
}

/// `unkey_metald_active_vms`: one series, or one for each customer.
enum Active {
    Sum(Gauge),
    ByCustomer(Gauges<1>, Mutex<Vec<String>>),
}

impl VmMetrics {
    /// Registers all of them. `by_customer` is UNKEY_METALD_OTEL_HIGH_CARDINALITY_ENABLED: the label `customer_id` exists
    /// only then. `routes` are method and path of the API's routes.
    pub fn register(registry: &mut Registry, by_customer: bool, routes: &[(&str, &str)]) -> Self {
        registry.tasks();
        let backends = &[[Backend::Firecracker.as_str()], [Backend::Qemu.as_str()]];
        let exits: Vec<String> =
            EXITS.iter().map(ToString::to_string).chain(["signal".to_owned(), OTHER.to_owned()]).collect();
        let exits: Vec<[&str; 2]> = pairs(backends, &exits.iter().map(String::as_str));
        let addresses = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let known: Vec<[&str; 3]> = routes.iter().map(|(method, path)| [*path, *method, "200"]).collect();
        let strays: Vec<[&str; 1]> = STRAYS.iter().map(|kind| [*kind]).collect();
        let states: Vec<[&str; 1]> = State::ALL.iter().map(|state| [state.as_str()]).collect();
        let metrics = Self {
            login_failures: registry
                .counter("unkey_metald_login_failures_total", "Requests with a token that is not good"),
            audit_lost: registry.counter("unkey_metald_audit_lost_total", "Lines that are missing in the audit file"),
            maintenance: registry.gauge("unkey_metald_maintenance", "1 while changes are refused"),
            vm_limit: registry.gauge("unkey_metald_vm_limit", "VMs that may be there at once"),
            info_requests: registry.counter("unkey_metald_vm_info_requests_total", "Requests for one VM"),
            list_requests: registry.counter("unkey_metald_vm_list_requests_total", "Requests for lists of VMs"),
            restarts: registry.counter("unkey_metald_vm_restarts_total", "Boots by a restart policy"),
            adopted: registry
                .counter("unkey_metald_vm_adopted_total", "VMs that were found alive after a start of the daemon"),
            network_created: registry.counter("metald_vm_network_create_total", "Networks of VMs that were made"),
            network_deleted: registry.counter("metald_vm_network_delete_total", "Networks of VMs that were removed"),
            network_setup: registry.histogram(
                "metald_network_setup_duration_seconds",
                "Making the network of a VM",
                WORK,
            ),
            network_cleanup: registry.histogram(
                "metald_network_cleanup_duration_seconds",
                "Removing the network of a VM",
                WORK,
            ),
            operations: operations(registry),
            active: Active::register(registry, by_customer),
            states: registry.gauges("unkey_metald_vms", "VMs by state", ["state"], &states),
            ready: registry.histograms(
                "unkey_metald_vm_ready_duration_seconds",
                "From the boot request to the guest's word that it is ready",
                ["backend"],
                READY,
                backends,
            ),
            backend_errors: registry.counters(
                "unkey_metald_backend_errors_total",
                "Errors of hypervisors and their jails",
                ["backend", "error_type"],
                &pairs(backends, &BACKEND_ERRORS.iter().copied()),
            ),
            requests: registry.histograms(
                "unkey_metald_api_request_duration_seconds",
                "Requests to the API, to the head of the answer",
                ["route", "method", "code"],
                REQUEST,
                &known,
            ),
            processes: Tried::register(registry, "process_create", "Starts of hypervisors"),
            jails: Tried::register(registry, "jailer_start", "Jails of hypervisors"),
            terminations: registry.counters(
                "unkey_metald_process_terminations_total",
                "Hypervisors that ended, by exit code",
                ["backend", "exit_code"],
                &exits,
            ),
            cleanups: registry.counters(
                "unkey_metald_process_cleanups_total",
                "Times that everything of a hypervisor's run was cleared away",
                ["backend"],
                backends,
            ),
            health_checks: registry.counters(
                "unkey_metald_vm_health_checks_total",
                "Looks at running VMs",
                ["backend"],
                backends,
            ),
            health_failures: registry.counters(
                "unkey_metald_vm_health_check_failures_total",
                "Looks at running VMs that found something wrong",
                ["backend"],
                backends,
            ),
            health_duration: registry.histograms(
                "unkey_metald_vm_health_check_duration_seconds",
                "A look at a running VM",
                ["backend"],
                WORK,
                backends,
            ),
            network_errors: registry.counters(
                "metald_vm_network_errors_total",
                "Networks of VMs that could not be made or removed",
                ["operation"],
                &[["create"], ["delete"]],
            ),
            addresses: Arc::clone(&addresses),
            steps: registry.counters(
                "unkey_metald_vm_step_failures_total",
                "Steps of operations that did not succeed; some of them are tried again",
                ["step"],
                &STEPS.map(|step| [step.as_str()]),
            ),
            forced: registry.counter("unkey_metald_vm_shutdown_forced_total", "Shutdowns that were asked for by force"),
            strays: registry.gauges(
                "unkey_metald_strays",
                "Things on this host that belong to no VM, when they were last looked for",
                ["kind"],
                &strays,
            ),
        };
        let used = Arc::clone(&addresses);
        registry.reading("metald_bridge_vm_count", "VMs that have an address", move || {
            f64::from(used[0].load(Ordering::Relaxed))
        });
        registry.reading("metald_bridge_capacity_ratio", "Share of the addresses that is taken", move || {
            let [used, all] = &*addresses;
            f64::from(used.load(Ordering::Relaxed)) / f64::from(all.load(Ordering::Relaxed).max(1))
        });
        metrics
    }

    /// Somebody asked for an operation.
    fn requested(&self, kind: Kind) {
        if let Some(operation) = self.operation(kind) {
            operation.requests.inc();
        }
    }

    /// It was done, so long after it was asked for.
    fn succeeded(&self, kind: Kind, backend: Option<Backend>, took: Duration) {
        if let Some(operation) = self.operation(kind) {
            operation.success.with([name(backend)]).inc();
            // A boot has taken as long as it took until the hypervisor said that the guest runs.
            if kind != Kind::Boot {
                operation.duration.with([name(backend)]).observe(took.as_secs_f64());
            }
        }
    }

    /// It was given up; `code` is one of [`errors`].
    fn failed(&self, kind: Kind, backend: Option<Backend>, code: &str) {
        if let Some(operation) = self.operation(kind) {
            operation.failures.with([name(backend), of(error_types(kind), code)]).inc();
        }
    }

    /// The guest said that it is ready, so long after its boot was asked for.
    fn ready(&self, backend: Backend, took: Duration) {
        self.ready.with([backend.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts errors of hypervisors, their jails and their keepers; other codes are not of them.
    fn backend_error(&self, backend: Option<Backend>, code: &str) {
        if let Some(backend) = backend.filter(|_| BACKEND_ERRORS.contains(&code)) {
            self.backend_errors.with([backend.as_str(), code]).inc();
        }
    }

    /// A hypervisor ended, with this code where it is known; 128 and more mean a signal, as in a shell, unless Firecracker
    /// has given the number a meaning.
    fn terminated(&self, backend: Backend, code: Option<i32>) {
        let code = match code {
            Some(code) if EXITS.contains(&code) => code.to_string(),
            Some(129..=192) => "signal".to_owned(),
            _ => OTHER.to_owned(),
        };
        self.terminations.with([backend.as_str(), &code]).inc();
    }

    /// A running VM was looked at.
    fn health_check(&self, backend: Backend, is_well: bool, took: Duration) {
        self.health_checks.with([backend.as_str()]).inc();
        if !is_well {
            self.health_failures.with([backend.as_str()]).inc();
        }
        self.health_duration.with([backend.as_str()]).observe(took.as_secs_f64());
    }

    /// How many addresses are taken, and how many there are.
    pub fn set_addresses(&self, used: u32, all: u32) {
        self.addresses[0].store(used, Ordering::Relaxed);
        self.addresses[1].store(all, Ordering::Relaxed);
    }

    /// How many VMs are in which state. States that are not named have none.
    pub fn set_states(&self, count: &BTreeMap<&str, u64>) {
        for state in State::ALL {
            let count = count.get(state.as_str()).copied().unwrap_or_default();
            self.states.with([state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// How many VMs each customer has that are alive. Customers that are not named have none.
    pub fn set_active(&self, count: &BTreeMap<CustomerId, u64>) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        match &self.active {
            Active::Sum(gauge) => drop(gauge.set(number(count.values().sum()))),
            Active::ByCustomer(gauges, shown) => {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                for gone in shown.iter().filter(|name| count.keys().all(|customer| customer.as_str() != *name)) {
                    gauges.forget([gone]);
                }
                *shown = count.keys().map(ToString::to_string).collect();
                if shown.is_empty() {
                    // A family without a series would be absent, and an alert on it would not know.
                    shown.push(String::new());
                    gauges.with([""]).set(0);
                }
                for (customer, count) in count {
                    gauges.with([customer.as_str()]).set(number(*count));
                }
            }
        }
    }

    /// How many strays of each kind there are. Kinds that are not named have none.
    pub fn set_strays<'k>(&self, kinds: impl IntoIterator<Item = &'k str>) {
        let mut count: BTreeMap<&str, i64> = STRAYS.iter().map(|kind| (*kind, 0)).collect();
        for kind in kinds {
            *count.entry(of(STRAYS, kind)).or_default() += 1;
        }
        for (kind, count) in count {
            self.strays.with([kind]).set(count);
        }
    }

    /// A request was answered; `route` is the pattern, never the path.
    pub(crate) fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let code = if CODES.contains(&status) { status.to_string() } else { OTHER.to_owned() };
        self.requests.with([route, method, &code]).observe(took.as_secs_f64());
    }

    /// Counts what an owner of a VM tells.
    pub(crate) fn happened(&self, happening: &Happening<'_>) {
        match *happening {
            Happening::Begun { kind } => self.requested(kind),
            Happening::Over { kind, backend, failure: None, took, forced } => {
                self.succeeded(kind, backend, took);
                if kind == Kind::Stop && forced {
                    self.forced.inc();
                }
            }
            Happening::Over { kind, backend, failure: Some(failure), .. } => {
                self.failed(kind, backend, &failure.code);
                // What a step failed with was told before; how a hypervisor ended is told only here.
                if kind == Kind::Ended {
                    self.backend_error(backend, &failure.code);
                }
            }
            Happening::Refused { step, backend, code } => {
                self.steps.with([step.as_str()]).inc();
                self.backend_error(backend, code);
            }
            Happening::Running { kind, backend, took } => {
                if let Some(operation) = self.operation(kind).filter(|_| kind == Kind::Boot) {
                    operation.duration.with([backend.as_str()]).observe(took.as_secs_f64());
                }
            }
            Happening::Alive { backend, took } => self.ready(backend, took),
            Happening::Exited { backend, code } => {
                if let Some(backend) = backend {
                    self.terminated(backend, code);
                }
            }
        }
    }

    fn operation(&self, kind: Kind) -> Option<&Operation> {
        self.operations.iter().find(|(known, _)| *known == kind).map(|(_, operation)| operation)
    }
}

impl Active {
    fn register(registry: &mut Registry, by_customer: bool) -> Self {
        let (name, help) = ("unkey_metald_active_vms", "VMs that are alive");
        if by_customer {
            let gauges = registry.gauges(name, help, ["customer_id"], &[[""]]);
            return Self::ByCustomer(gauges, Mutex::new(vec![String::new()]));
        }
        Self::Sum(registry.gauge(name, help))
    }
}

impl Tried {
    fn register(registry: &mut Registry, word: &str, help: &str) -> Self {
        let backends = &Backend::ALL.map(|backend| [backend.as_str()]);
        let mut counters = |what: &str, told: &str| {
            registry.counters(
                &format!("unkey_metald_{word}_{what}_total"),
                &format!("{help}{told}"),
                ["backend"],
                backends,
            )
        };
        Self {
            requests: counters("requests", ""),
            success: counters("success", " that went well"),
            failures: counters("failures", " that failed"),
        }
    }

    fn tried(&self, backend: Backend, went_well: bool) {
        self.requests.with([backend.as_str()]).inc();
        let counters = if went_well { &self.success } else { &self.failures };
        counters.with([backend.as_str()]).inc();
    }
}

fn pairs<'w>(first: &[[&'w str; 1]], second: &(impl Iterator<Item = &'w str> + Clone)) -> Vec<[&'w str; 2]> {
    first.iter().flat_map(|[one]| second.clone().map(move |other| [*one, other])).collect()
}

fn name(backend: Option<Backend>) -> &'static str {
    backend.map_or(NONE, Backend::as_str)
}

/// The word itself where it is known, so that the number of series is bounded.
fn of(known: &'static [&'static str], word: &str) -> &'static str {
    known.iter().find(|name| **name == word).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests;
