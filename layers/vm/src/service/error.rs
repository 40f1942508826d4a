//! Why something was not done, and how that is told at the edge.

use std::sync::Arc;
use std::time::Duration;

use cairn_core::{ErrorKind, chain};
use host::FileError;
use web::{Detail, Problem};

use crate::assets::AssetError;
use crate::errors;
use crate::model::{CustomerId, Failure, SpecError, Vm, VmId};
use crate::plan::{self, Kind};
use crate::ports::StepError;
use crate::run::Refusal;
use crate::service::Caller;

/// For who names no kernel where the host has no default, or none that is there.
const ADD_ASSET: &str = "add it: cairn vm asset add NAME FILE --kind kernel; then name it in boot.kernel_path, or set \
                         UNKEY_METALD_DEFAULT_KERNEL=NAME (a root disk: --kind disk and UNKEY_METALD_DEFAULT_ROOTFS)";
/// How long somebody who has to wait is told to wait.
const RETRY: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such VM, as far as the caller may know.
    #[error("there is no VM {0}")]
    NotFound(VmId),
    /// The id is taken.
    #[error("VM {0} is there already")]
    Exists(VmId),
    /// The id cannot be had; whether somebody else has it is not the caller's affair.
    #[error("the id {0} cannot be had")]
    Taken(VmId),
    /// Not in this state.
    #[error("VM {} is {}: {} is not possible", .vm.id, .vm.state, .kind.as_str())]
    WrongState {
        /// What was asked.
        kind: Kind,
        /// The VM.
        vm: Arc<Vm>,
    },
    /// Something else is being done with it.
    #[error("VM {} is busy: {}", .0.id, .0.reason)]
    Busy(Arc<Vm>),
    /// It was tried and given up.
    #[error("{}", .0.reason)]
    Failed(Failure),
    /// Wishes that cannot be granted.
    #[error("the configuration of the VM cannot be used: {}", listed(.0))]
    Invalid(Vec<SpecError>),
    /// Another customer than the caller's was named.
    #[error("a VM cannot be made for customer {0}")]
    OtherCustomer(CustomerId),
    /// The key stands for another request.
    #[error("the idempotency key was used for another request, or its VM is gone")]
    KeyUsed,
    /// So many VMs are there already.
    #[error("{0} VMs are there, and no more are allowed")]
    Limit(u32),
    /// The same for who is not to know how many others have.
    #[error("no more VMs are taken here for now")]
    Crowded,
    /// No address is left.
    #[error("no address is left for another VM")]
    NoAddress,
    /// A port of the host is taken.
    #[error("port {0} of the host is taken, or none of the range is free")]
    Port(String),
    /// Changes are refused for now.
    #[error("maintenance is on: nothing is changed")]
    Maintenance,
    /// Maintenance is as it was.
    #[error("maintenance cannot be switched")]
    Maintained(#[source] FileError),
    /// It did not come to that in time.
    #[error("VM {} is {} after {} s", .vm.id, .vm.state, .limit.as_secs())]
    TimedOut {
        /// The VM.
        vm: Arc<Vm>,
        /// How long was waited.
        limit: Duration,
    },
    /// Assets.
    #[error(transparent)]
    Asset(#[from] AssetError),
    /// A part of the host.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The database.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The database, from a VM's owner.
    #[error("the database did not take it: {0}")]
    Database(String),
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
    /// The same for a customer, who learns nothing of the host's paths.
    #[error(transparent)]
    ToCustomer(Box<Error>),
}

fn listed(wrong: &[SpecError]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The same as `caller` may read it: a customer learns nothing of the host and of others on it.
    pub(super) fn told_to(self, caller: &Caller) -> Self {
        if caller.customer.is_none() {
            return self;
        }
        match self {
            Self::Limit(_) | Self::NoAddress => Self::Crowded,
            Self::Database(_) => Self::Database("tell the operator of this host".to_owned()),
            told @ (Self::Failed(_) | Self::Step(_) | Self::Busy(_) | Self::Asset(_)) => {
                Self::ToCustomer(Box::new(told))
            }
            told => told,
        }
    }

    /// The same for the edge.
    pub fn problem(&self) -> Problem {
        let detail = chain(self);
        let new = |kind, code| Problem::new(kind, code, detail.clone());
        match self {
            Self::NotFound(_) => new(ErrorKind::NotFound, errors::VM_NOT_FOUND),
            Self::Exists(_) | Self::Taken(_) => {
                new(ErrorKind::Conflict, errors::VM_EXISTS).hint("choose another vm_id, or leave it out")
            }
            Self::WrongState { vm, .. } => new(ErrorKind::Conflict, errors::VM_WRONG_STATE).hint(hint_for(vm)),
            Self::Busy(_) => {
                new(ErrorKind::Conflict, errors::VM_BUSY).hint("wait for it: cairn vm wait, or stop it with --force")
            }
            Self::Failed(failure) => of_failure(failure),
            Self::Invalid(wrong) => new(ErrorKind::Invalid, errors::VM_INVALID).detail_list(
                wrong.iter().map(|one| Detail::at(&one.path, errors::VM_INVALID, one.message.clone())).collect(),
            ),
            Self::OtherCustomer(_) => new(ErrorKind::Forbidden, errors::TOKEN_DENIED),
            Self::KeyUsed => new(ErrorKind::Conflict, errors::IDEMPOTENCY_KEY).hint("use a new key for a new VM"),
            Self::Limit(_) => new(ErrorKind::RateLimited, errors::VM_LIMIT)
                .hint("delete VMs, or raise UNKEY_METALD_MAX_PROCESSES and user.max_net_namespaces"),
            Self::Crowded => new(ErrorKind::RateLimited, errors::VM_LIMIT)
                .retry_after(RETRY)
                .hint("delete VMs that you do not need, or ask the operator of this host"),
            Self::NoAddress => new(ErrorKind::RateLimited, errors::VM_ADDRESSES)
                .hint("delete VMs, or set a larger UNKEY_METALD_NETWORK_VM_SUBNET_IPV4"),
            Self::Port(_) => {
                new(ErrorKind::Conflict, errors::VM_PORT_TAKEN).hint("leave host_port out, and a free one is taken")
            }
            Self::Maintenance => new(ErrorKind::Unavailable, errors::MAINTENANCE)
                .retry_after(RETRY)
                .hint("an operator ends it: cairn vm maintenance off"),
            Self::TimedOut { .. } => new(ErrorKind::Unreachable, errors::VM_BUSY).status(504),
            Self::Asset(error) => of_asset(error, detail),
            Self::Step(error) => of_failure(&Failure::plain(error.code, error.reason.clone())),
            Self::Store(error) => Problem::internal(error),
            Self::Maintained(error) => Problem::internal(error),
            Self::Database(_) => new(ErrorKind::Failed, web::codes::SERVER_ERROR),
            Self::Stopping => new(ErrorKind::Unavailable, errors::MAINTENANCE).retry_after(RETRY),
            Self::ToCustomer(told) => {
                let mut problem = told.problem();
                problem.detail = without_paths(&problem.detail);
                problem
            }
        }
    }
}

/// A sentence without paths of the host. A path is what begins with a slash after a space or a quote.
pub(crate) fn without_paths(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || "'\"`(),;".contains(letter);
    let mut plain = String::with_capacity(text.len());
    for word in text.split_inclusive(ends) {
        let (name, end) = word.strip_suffix(ends).map_or((word, ""), |name| word.split_at(name.len()));
        let path = name.trim_end_matches([':', '.']);
        if path.len() > 1 && path.starts_with('/') {
            plain.push_str("[a path of the host]");
            plain.push_str(&name[path.len()..]);
        } else {
            plain.push_str(name);
        }
        plain.push_str(end);
    }
    plain
}

fn hint_for(vm: &Vm) -> String {
    let can = Kind::ALL.into_iter().filter(|kind| {
        !matches!(kind, Kind::Create | Kind::Ended) && plan::may(*kind, vm.state) == plan::Answer::Begin
    });
    let can: Vec<_> = can.map(Kind::as_str).collect();
    if can.is_empty() { "wait until it is settled".to_owned() } else { format!("possible now: {}", can.join(", ")) }
}

fn of_failure(failure: &Failure) -> Problem {
    let kind = match failure.code.as_str() {
        errors::ASSET_MISSING | errors::VM_PORT_TAKEN | errors::VM_ADDRESSES => ErrorKind::Conflict,
        _ => ErrorKind::Failed,
    };
    let problem = Problem::new(kind, &failure.code, failure.reason.clone());
    match failure.code.as_str() {
        errors::ASSET_MISSING => problem.hint(ADD_ASSET),
        errors::HYPERVISOR_MISSING => problem.hint("cairn vm doctor says what this host lacks").status(503),
        _ if failure.console_tail.is_empty() => problem,
        _ => problem.hint("cairn vm logs shows the guest's console"),
    }
}

fn of_asset(error: &AssetError, detail: String) -> Problem {
    let (kind, code) = match error {
        AssetError::Missing { .. } => (ErrorKind::NotFound, errors::ASSET_MISSING),
        AssetError::NoDefault { .. } | AssetError::Kind { .. } => (ErrorKind::Conflict, errors::ASSET_MISSING),
        AssetError::Exists { .. } => (ErrorKind::Conflict, errors::ASSET_EXISTS),
        AssetError::InUse { .. } => (ErrorKind::Conflict, errors::ASSET_IN_USE),
        AssetError::Damaged { .. } => (ErrorKind::Failed, errors::ASSET_DAMAGED),
        AssetError::Empty { .. } | AssetError::Interrupted { .. } => (ErrorKind::Invalid, errors::ASSET_DAMAGED),
        AssetError::File { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
            return Problem::new(ErrorKind::Failed, errors::VM_DISKS, detail)
                .status(507)
                .hint("make room, or collect: cairn vm asset gc");
        }
        AssetError::File { .. } => (ErrorKind::Failed, errors::VM_DISKS),
        AssetError::Store(error) => return Problem::internal(error),
    };
    let problem = Problem::new(kind, code, detail);
    if matches!(error, AssetError::NoDefault { .. }) { problem.hint(ADD_ASSET) } else { problem }
}

/// What an owner refused.
pub(super) fn refused(kind: Kind, refusal: Refusal) -> Error {
    match refusal {
        Refusal::WrongState(vm) => Error::WrongState { kind, vm },
        Refusal::Busy(vm) => Error::Busy(vm),
        Refusal::Failed(failure) => Error::Failed(failure),
        Refusal::Gone(id) => Error::NotFound(id),
        Refusal::Database(reason) => Error::Database(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_for_a_customer_has_no_paths_of_the_host() {
        for (text, plain) in [
            ("cannot make the disk /var/lib/x/disk0: full", "cannot make the disk [a path of the host]: full"),
            ("cannot open '/a b/c'", "cannot open '[a path of the host] b/c'"),
            ("/srv/jailer is gone.", "[a path of the host] is gone."),
            ("see (/etc/x), \"/y/z\"", "see ([a path of the host]), \"[a path of the host]\""),
            ("1/2 of tcp/udp, 10.0.0.0/8, a / b", "1/2 of tcp/udp, 10.0.0.0/8, a / b"),
            ("", ""),
        ] {
            assert_eq!(without_paths(text), plain);
        }
    }
}
