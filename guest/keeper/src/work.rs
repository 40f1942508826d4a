//! From the lock to the end of the process.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use cairn_core::{Clock, SystemClock};
use host::{
    CgroupError, Credentials, Exited, FileError, Group, GroupLimits, Held, Hierarchies, Launch, LaunchError, PidFd,
};
use keeper::{Console, Directory, Ended, Exit, Identity, Keeper, Life, Order, Owner, Process, make_fifo, open_fifo};

use crate::arguments::Arguments;
use crate::detach;
use crate::watch::{Over, Signals, Watch};

/// Exit status of a process that was never begun.
const NOT_BEGUN: i32 = 126;
/// How long the kernel has to end what a process leaves behind.
const REST: Duration = Duration::from_secs(30);
/// How long the parent of an adopted process has to take leave of it; only then the kernel says how it ended.
const LEAVE: Duration = Duration::from_secs(5);
/// Bytes that a FIFO holds.
const FIFO_SIZE: usize = 256 << 10;
/// Where output goes that no file takes.
const NOWHERE: &str = "/dev/null";
/// The group below a unit's own.
const WITHIN_UNIT: &str = "vm";

/// The keeper cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// Nobody has said what to run.
    #[error("{} holds no order", .0.display())]
    NoOrder(std::path::PathBuf),
    /// The files of the directory, the console or a FIFO.
    #[error(transparent)]
    Keeper(#[from] keeper::Error),
    /// Control groups.
    #[error(transparent)]
    Group(#[from] CgroupError),
    /// The process.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A file of its own.
    #[error(transparent)]
    File(#[from] FileError),
    /// A system call.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// For `map_err`: names what was tried.
pub(crate) fn at<E: Into<std::io::Error>>(operation: &'static str) -> impl FnOnce(E) -> WorkError {
    move |source| WorkError::System { operation, source: source.into() }
}

/// The process, and whether this keeper is its parent.
struct Kept {
    handle: PidFd,
    group: Group,
    ours: bool,
}

/// Works until the process has ended, or until SIGTERM.
pub(crate) fn work(arguments: &Arguments) -> Result<(), WorkError> {
    let signals = Signals::listen().map_err(at("listen for signals"))?;
    if arguments.detached {
        detach::leave_session().map_err(at("make a session"))?;
    }
    let directory = Directory::new(&arguments.directory);
    let _lock = directory.lock()?;
    let own = Identity::of(std::process::id())?.ok_or_else(|| at("look at this process")(no_entry()))?;
    let mut keeper = Keeper { identity: own, at_work: false };
    directory.write_keeper(&keeper)?;
    if directory.ended()?.is_some() {
        return Ok(());
    }
    let order = directory.order()?.ok_or_else(|| WorkError::NoOrder(arguments.directory.clone()))?;
    rustix::process::chdir("/").map_err(at("leave the working directory"))?;
    // At once: what a process that ends just now has written, and how it ends, goes with the last that has it open.
    let adopted = match directory.process()? {
        Some(process) => Some((Pipes::open(&directory, &order), adopt(&process)?)),
        None => None,
    };
    let trees = Hierarchies::of_host()?;
    if let Some(prefix) = &arguments.groups {
        trees.move_apart(&format!("{prefix}-keepers"), std::process::id())?;
    }
    let (kept, console, pipes) = match adopted {
        // The guest is worth more than its console.
        Some((pipes, kept)) => (kept, open_console(&order).or_else(|_| Console::open(NOWHERE.as_ref(), 0))?, pipes),
        None => match begin(&directory, &order, &trees, arguments.groups.as_deref()) {
            Ok((kept, console, pipes)) => (Some(kept), console, pipes),
            Err(error) => {
                directory.write_ended(&ended(Exit::Code(NOT_BEGUN), Some(cairn_core::chain(&error))))?;
                return Ok(());
            }
        },
    };
    keeper.at_work = true;
    // Whoever waits for this waits longer, and the guest goes on.
    let _ = directory.write_keeper(&keeper);
    if arguments.detached {
        detach::let_go().map_err(at("let the starter go"))?;
    }
    let watch = Watch::new(&directory, console, pipes.output, pipes.metrics, signals);
    keep(&directory, kept.as_ref(), watch)
}

/// The reading ends of what the process writes.
struct Pipes {
    output: Option<File>,
    metrics: Option<File>,
}

impl Pipes {
    fn open(directory: &Directory, order: &Order) -> Self {
        let metrics = order.metrics.as_deref().and_then(open_if_there);
        Self { output: open_if_there(&directory.output()), metrics }
    }
}

/// What an earlier keeper began. Nothing when it has ended and nothing is known of it.
fn adopt(process: &Process) -> Result<Option<Kept>, WorkError> {
    // The handle first: what has this number then keeps it as long as the handle is open.
    let handle = PidFd::open(process.identity.pid).map_err(at("open the process"))?;
    let group = Group::of(process.control_groups.iter().cloned());
    if let Some(handle) = handle.filter(|_| process.identity.life().is_ok_and(|life| life != Life::Gone)) {
        return Ok(Some(Kept { handle, group, ours: false }));
    }
    end_rest(&group);
    Ok(None)
}

/// Makes the process, writes down which it is, and lets it go.
fn begin(
    directory: &Directory,
    order: &Order,
    trees: &Hierarchies,
    prefix: Option<&str>,
) -> Result<(Kept, Console, Pipes), WorkError> {
    let console = open_console(order)?;
    let limits = GroupLimits {
        memory_bytes: order.limits.memory_bytes,
        cpu_millis: order.limits.cpu_millis,
        tasks: order.limits.tasks,
    };
    let (group, unlimited) = match prefix {
        Some(prefix) => trees.make(&format!("{prefix}-vms/{}", order.name), &limits)?,
        // Whoever made the unit has set its limits.
        None => (trees.make_within_own(WITHIN_UNIT)?, Vec::new()),
    };
    make_fifos(directory, order)?;
    let pipes = Pipes::open(directory, order);
    let input = open_fifo(&directory.input(), true)?;
    let output = open_fifo(&directory.output(), true)?;
    let held = hold(order, &input, &output)?;
    group.add(held.pid())?;
    let identity = Identity::of(held.pid())?.ok_or_else(|| at("look at the process")(no_entry()))?;
    let control_groups = group.directories().to_vec();
    let unlimited = unlimited.into_iter().map(str::to_owned).collect();
    directory.write_process(&Process { identity, control_groups, unlimited })?;
    let kept = Kept { handle: held.release()?, group, ours: true };
    Ok((kept, console, pipes))
}

fn make_fifos(directory: &Directory, order: &Order) -> Result<(), WorkError> {
    let owner = directory.owner()?;
    make_fifo(&directory.input(), owner)?;
    make_fifo(&directory.output(), owner)?;
    if let Some(path) = &order.metrics {
        let user = order.user.or(order.metrics_owner).map(|user| Owner { uid: user.uid, gid: user.gid });
        make_fifo(path, user.unwrap_or(owner))?;
    }
    Ok(())
}

fn hold(order: &Order, input: &File, output: &File) -> Result<Held, WorkError> {
    let launch = Launch {
        argv: &order.argv,
        environment: &order.environment,
        directory: &order.directory,
        user: order.user.map(|user| Credentials { uid: user.uid, gid: user.gid }),
        network_namespace: order.network_namespace.as_deref(),
        open_files: order.open_files,
        input: input.as_fd(),
        output: output.as_fd(),
        error: output.as_fd(),
    };
    Ok(launch.hold()?)
}

/// Keeps output and metrics until the process has ended, and says how.
fn keep(directory: &Directory, kept: Option<&Kept>, mut watch: Watch<'_>) -> Result<(), WorkError> {
    let mut exit = Exit::Unknown;
    if let Some(kept) = kept {
        if watch.until_end(&kept.handle)? == Over::Asked {
            return Ok(());
        }
        exit = exit_of(kept)?;
        // What it has begun goes with it; then nobody writes any more.
        end_rest(&kept.group);
    }
    watch.drain()?;
    directory.write_ended(&ended(exit, None))?;
    // Only now: the next keeper could not learn any more how it ended.
    if let Some(kept) = kept.filter(|kept| kept.ours) {
        kept.handle.reap().map_err(at("take leave of the process"))?;
    }
    Ok(())
}

fn exit_of(kept: &Kept) -> Result<Exit, WorkError> {
    let exited = if kept.ours {
        kept.handle.exit_of_child().map_err(at("ask how the process ended"))?
    } else {
        kept.handle.exit_of_stranger(LEAVE)
    };
    Ok(match exited {
        Some(Exited::Code(code)) => Exit::Code(code),
        Some(Exited::Signal(signal)) => Exit::Signal(signal),
        None => Exit::Unknown,
    })
}

/// What does not die now is for whoever removes the group; how the process ended is told all the same.
fn end_rest(group: &Group) {
    if let Err(error) = group.kill(REST) {
        eprintln!("cairn-keeper: {}", cairn_core::chain(&error));
    }
}

fn open_console(order: &Order) -> Result<Console, keeper::Error> {
    Console::open(&order.console, order.console_limit)
}

/// A FIFO that was made before the process was. The process may have done anything to it.
fn open_if_there(path: &Path) -> Option<File> {
    let file = open_fifo(path, false).ok()?;
    // More than usual, so that a guest need not wait while one keeper follows another; not everybody may.
    let _ = rustix::pipe::fcntl_setpipe_size(&file, FIFO_SIZE);
    Some(file)
}

fn ended(exit: Exit, not_begun: Option<String>) -> Ended {
    Ended { exit, time: SystemClock.now(), not_begun }
}

fn no_entry() -> std::io::Error {
    std::io::ErrorKind::NotFound.into()
}
