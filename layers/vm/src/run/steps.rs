//! What each step does. All of them can be done again after they were cut off anywhere: each looks first.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;

use super::{Context, Happening};
use crate::adapters::panicked;
use crate::blocking::blocking;
use crate::errors;
use crate::model::{Backend, Failure, Operation, State, Vm, VmId};
use crate::plan::{self, Kind, Step};
use crate::ports::{Exit, Hypervisor, Kept, Launch, Look, StepError};

/// How long a hypervisor has to answer once it was started.
const READY: Duration = Duration::from_secs(20);
/// How much of a console stands with a failure, in bytes.
const TAIL: u64 = 4096;

/// What one step leaves for a later one in the same process; after a restart it is found out again.
#[derive(Debug, Default)]
pub(super) struct Run {
    order: Option<keeper::Order>,
    /// The guest has said something since its start.
    pub(super) spoken: bool,
    /// The hypervisor that was chosen, to be written down.
    pub(super) backend: Option<Backend>,
}

/// Does a step. What is given back is what was found out about an end.
pub(super) async fn perform(
    context: &Context,
    vm: &Arc<Vm>,
    operation: &Operation,
    step: Step,
    run: &mut Run,
) -> Result<Option<Failure>, StepError> {
    match step {
        Step::Disks => disks(context, vm).await?,
        Step::Network => network(context, vm).await?,
        Step::Jail => jail(context, vm, run).await?,
        Step::Launch => launch(context, vm, run).await?,
        Step::Start => {
            run.spoken = false;
            start(context, vm, operation).await?;
        }
        Step::Ask => ask(context, vm, operation).await,
        Step::Wait => wait(context, vm, operation).await?,
        Step::Collect => return collect(context, vm, operation).await,
        Step::Reap => {
            run.order = None;
            reap(context, vm).await?;
        }
        Step::Pause => hypervisor(context, vm)?.pause(vm).await?,
        Step::Resume => hypervisor(context, vm)?.resume(vm).await?,
        Step::DropNetwork => context.edges.remove(&vm.id, vm.slot).await?,
        Step::DropDisks => {
            context.disks.remove(&vm.id).await?;
            forget_console(context, &vm.id).await?;
        }
    }
    Ok(None)
}

fn hypervisor<'a>(context: &'a Context, vm: &Vm) -> Result<&'a Arc<dyn Hypervisor>, StepError> {
    let backend = vm.backend.ok_or_else(|| StepError::new(errors::HYPERVISOR, "it was never booted"))?;
    let missing = || StepError::new(errors::HYPERVISOR_MISSING, format!("this host has no {backend}"));
    context.hypervisors.get(backend).ok_or_else(missing)
}

/// Through its process, where one lives, a namespace gets a lost name back.
async fn network(context: &Context, vm: &Vm) -> Result<(), StepError> {
    let process = match context.keepers.look(&vm.id).await? {
        Kept::Running { pid } => Some(pid),
        Kept::Nothing | Kept::Ended(_) => None,
    };
    context.edges.ensure(vm, process).await.map(drop)
}

async fn disks(context: &Context, vm: &Vm) -> Result<(), StepError> {
    let files = context.assets.resolve(&vm.spec).await.map_err(|error| missing_asset(&error))?;
    context.disks.prepare(vm, &files).await
}

/// An asset that is not there is the caller's affair, anything else the host's.
pub(crate) fn missing_asset(error: &crate::assets::AssetError) -> StepError {
    use crate::assets::AssetError::{Damaged, Kind, Missing, NoDefault};
    let code = match error {
        Missing { .. } | NoDefault { .. } | Kind { .. } => errors::ASSET_MISSING,
        Damaged { .. } => errors::ASSET_DAMAGED,
        _ => errors::VM_DISKS,
    };
    StepError::of(code, error)
}

/// Which hypervisor, decided once for each boot: the row keeps it from the next write on.
async fn chosen<'a>(context: &'a Context, run: &mut Run) -> Result<&'a Arc<dyn Hypervisor>, StepError> {
    let backend = match run.backend {
        Some(backend) => backend,
        None => context.hypervisors.choice().await?,
    };
    run.backend = Some(backend);
    let missing = || StepError::new(errors::HYPERVISOR_MISSING, format!("this host has no {backend}"));
    context.hypervisors.get(backend).ok_or_else(missing)
}

async fn jail(context: &Context, vm: &Arc<Vm>, run: &mut Run) -> Result<(), StepError> {
    if context.keepers.look(&vm.id).await? != Kept::Nothing {
        // An earlier process came further than it could write down.
        run.backend = vm.backend;
        return Ok(());
    }
    let hypervisor = chosen(context, run).await?;
    let launch = launch_of(context, vm).await?;
    run.order = Some(hypervisor.jail(&launch).await?);
    tracing::info!(vm_id = %vm.id, backend = %hypervisor.backend(), uid = launch.uid, "jailer: files are in place");
    Ok(())
}

async fn launch_of(context: &Context, vm: &Arc<Vm>) -> Result<Launch, StepError> {
    let (kernel, initrd) = context.assets.resolve_boot(&vm.spec).await.map_err(|error| missing_asset(&error))?;
    let uid = context.first_uid + vm.slot.0;
    Ok(Launch {
        vm: (**vm).clone(),
        kernel: context.assets.path(&kernel),
        initrd: initrd.as_ref().map(|initrd| context.assets.path(initrd)),
        disks: context.disks.files(vm),
        wire: context.edges.wire(vm),
        uid,
        gid: uid,
    })
}

async fn launch(context: &Context, vm: &Arc<Vm>, run: &mut Run) -> Result<(), StepError> {
    let hypervisor = hypervisor(context, vm)?;
    if context.keepers.look(&vm.id).await? == Kept::Nothing {
        let mut order = match run.order.take() {
            Some(order) => order,
            None => hypervisor.jail(&launch_of(context, vm).await?).await?,
        };
        order.console = console_path(context, &vm.id);
        new_console(&order.console).await?;
        context.keepers.start(&vm.id, &order).await?;
    }
    tokio::select! {
        ready = hypervisor.ready(vm, READY) => ready,
        exit = context.keepers.ended(&vm.id) => Err(ended_early(context, vm, hypervisor, exit?).await),
    }
}

async fn start(context: &Context, vm: &Arc<Vm>, operation: &Operation) -> Result<(), StepError> {
    let hypervisor = hypervisor(context, vm)?;
    let launch = launch_of(context, vm).await?;
    tokio::select! {
        started = hypervisor.start(&launch) => match started {
            Ok(()) => {}
            Err(error) => {
                // The end of the process explains more than a connection that broke.
                return Err(match context.keepers.look(&vm.id).await {
                    Ok(Kept::Ended(exit)) => ended_early(context, vm, hypervisor, exit).await,
                    _ => error,
                });
            }
        },
        exit = context.keepers.ended(&vm.id) => return Err(ended_early(context, vm, hypervisor, exit?).await),
    }
    let took = context.clock.now().duration_since(operation.begun_at);
    let took = Duration::try_from(took).unwrap_or_default();
    (context.observe)(&Happening::Running { kind: operation.kind, backend: hypervisor.backend(), took });
    Ok(())
}

async fn ended_early(context: &Context, vm: &Vm, hypervisor: &Arc<dyn Hypervisor>, exit: Exit) -> StepError {
    let why = hypervisor.judge(exit).err().unwrap_or_else(|| "it ended at once".to_owned());
    let tail = console_tail(context, vm).await;
    let last = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    StepError::new(errors::HYPERVISOR_ENDED, if last.is_empty() { why } else { format!("{why}: {last}") })
}

/// What does not reach the guest is made up for by the end of its time.
async fn ask(context: &Context, vm: &Arc<Vm>, operation: &Operation) {
    let settled = !operation.before.is_live() || plan::grace(operation.options).is_zero();
    if settled {
        return;
    }
    let Ok(hypervisor) = hypervisor(context, vm) else { return };
    let asked = async {
        if operation.before == State::Paused {
            // Who stands still hears nothing.
            hypervisor.resume(vm).await?;
        }
        hypervisor.ask_to_end(vm).await
    };
    if let Err(error) = asked.await {
        tracing::warn!(vm_id = %vm.id, code = error.code, reason = error.reason, "the guest could not be asked to end");
    }
}

async fn wait(context: &Context, vm: &Vm, operation: &Operation) -> Result<(), StepError> {
    if context.keepers.look(&vm.id).await? == Kept::Nothing {
        return Ok(());
    }
    let passed = context.clock.now().duration_since(operation.begun_at);
    let left = plan::grace(operation.options).saturating_sub(Duration::try_from(passed).unwrap_or_default());
    tokio::select! {
        ended = context.keepers.ended(&vm.id) => ended.map(drop),
        () = tokio::time::sleep(left) => Ok(()),
    }
}

/// How it ended. A process that still runs is ended now.
async fn collect(context: &Context, vm: &Vm, operation: &Operation) -> Result<Option<Failure>, StepError> {
    let (exit, forced) = match context.keepers.look(&vm.id).await? {
        Kept::Ended(exit) => (exit, false),
        Kept::Running { .. } => {
            context.keepers.kill(&vm.id).await?;
            (context.keepers.ended(&vm.id).await?, true)
        }
        Kept::Nothing => (Exit::Unknown, false),
    };
    let code = match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(signal) => Some(128 + signal),
        Exit::Unknown => None,
    };
    (context.observe)(&Happening::Exited { backend: vm.backend, code });
    let plain = |code: &str, reason: &str| Some(Failure::plain(code, reason));
    if forced && operation.kind == Kind::Stop {
        return Ok(plain(errors::VM_CRASHED, "ended by force"));
    }
    let judged = hypervisor(context, vm).map_or_else(|_| Ok(()), |hypervisor| hypervisor.judge(exit));
    let restarted = vm.boot_id.as_ref().is_some_and(|boot_id| *boot_id != context.boot_id);
    let tail = console_tail(context, vm).await;
    let failure = match (exit, judged) {
        // The host went down with everything on it: nothing is wrong with this VM.
        _ if restarted => None,
        (Exit::Unknown, _) => plain(errors::VM_LOST, "its hypervisor is gone, and nobody saw how it ended"),
        _ if panicked(&tail) => plain(errors::VM_PANICKED, "the guest's kernel panicked"),
        (_, Err(reason)) => plain(errors::VM_CRASHED, &reason),
        (_, Ok(())) => guest_exit(&tail).filter(|code| *code != 0).map(|code| Failure {
            exit_code: Some(code),
            ..Failure::plain(errors::VM_EXITED, format!("the guest's command ended with {code}"))
        }),
    };
    Ok(failure.map(|failure| Failure { exit_code: failure.exit_code.or(code), console_tail: tail, ..failure }))
}

/// What `cairn-init` says at its end.
fn guest_exit(tail: &str) -> Option<i32> {
    let line = tail.lines().rev().find_map(|line| line.trim().strip_prefix("cairn-init: exit "))?;
    line.trim().parse().ok()
}

async fn reap(context: &Context, vm: &Vm) -> Result<(), StepError> {
    if context.keepers.look(&vm.id).await? != Kept::Nothing {
        context.keepers.kill(&vm.id).await?;
        context.keepers.ended(&vm.id).await?;
        context.keepers.forget(&vm.id).await?;
        tracing::info!(vm_id = %vm.id, "jailer: processes are gone");
    }
    for hypervisor in &context.hypervisors.all {
        hypervisor.unjail(vm).await?;
    }
    Ok(())
}

/// The state of a VM that a former daemon left running; nothing when it does not run any more.
pub(super) async fn find(context: &Context, vm: &Arc<Vm>) -> Result<Option<State>, StepError> {
    if !matches!(context.keepers.look(&vm.id).await?, Kept::Running { .. }) {
        return Ok(None);
    }
    let hypervisor = hypervisor(context, vm)?;
    tokio::select! {
        ready = hypervisor.ready(vm, READY) => ready?,
        _ = context.keepers.ended(&vm.id) => return Ok(None),
    }
    // Names and rules may have been taken away meanwhile; the guest is not touched by that.
    network(context, vm).await?;
    match hypervisor.look(vm).await? {
        Look::Running => Ok(Some(State::Running)),
        Look::Paused => Ok(Some(State::Paused)),
        Look::Waiting => Err(StepError::new(errors::HYPERVISOR, "its processors were never started")),
    }
}

/// Returns when a guest that was started has said nothing for too long. One that has spoken is left alone for ever; when it
/// speaks for the first time, that is counted.
pub(super) async fn silence(context: &Context, vm: &Vm, spoken: &mut bool) {
    let Some(started) = vm.started_at.filter(|_| !*spoken) else {
        return std::future::pending().await;
    };
    let path = console_path(context, &vm.id);
    let since = |from| Duration::try_from(context.clock.now().duration_since(from)).unwrap_or_default();
    // Who stood still had no time to say anything: a resumption counts as a beginning.
    let left = context.sign_of_life.saturating_sub(since(started.max(vm.updated_at)));
    tokio::select! {
        () = first_word(&path) => {
            *spoken = true;
            if let Some(backend) = vm.backend {
                (context.observe)(&Happening::Alive { backend, took: since(started) });
            }
        }
        () = tokio::time::sleep(left), if !context.sign_of_life.is_zero() => {
            if tail_of(&path).is_empty() {
                return;
            }
        }
    }
    std::future::pending().await
}

/// Waits until a console is not empty any more.
async fn first_word(path: &Path) {
    let watched = async {
        let watch = host::FileWatch::new(path)?;
        // It is no pipe, and is read like one.
        let news = Receiver::from_file_unchecked(watch.reader()?).map_err(host::FileError::at("watch", path))?;
        while tail_of(path).is_empty() {
            news.readable().await.map_err(host::FileError::at("watch", path))?;
            let mut told = [0; 1024];
            while news.try_read(&mut told).is_ok() {}
            watch.renew()?;
        }
        Ok::<(), host::FileError>(())
    };
    if let Err(error) = watched.await {
        // The limit on such watches: then nobody tells when, and only the deadline looks.
        tracing::warn!(error = &error as &dyn std::error::Error, "a console cannot be watched");
        std::future::pending().await
    }
}

/// The guest's console.
pub(crate) fn console_path(context: &Context, id: &VmId) -> PathBuf {
    context.consoles.join(format!("{id}.log"))
}

/// Its last lines.
pub(super) async fn console_tail(context: &Context, vm: &Vm) -> String {
    let path = console_path(context, &vm.id);
    let read = tokio::task::spawn_blocking(move || tail_of(&path)).await;
    read.unwrap_or_default()
}

fn tail_of(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A console that cannot be read explains nothing; what is told is told without it.
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        .collect()
}

/// Each boot has a console of its own; that of the boot before stays beside it.
async fn new_console(path: &Path) -> Result<(), StepError> {
    let (path, before) = (path.to_owned(), console_before(path));
    blocking(move || match std::fs::rename(&path, &before) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StepError::new(errors::VM_KEEPER, format!("cannot put {} aside: {error}", path.display())))
        }
        _ => Ok(()),
    })
    .await
}

/// What came before the console's file.
pub(crate) fn console_before(path: &Path) -> PathBuf {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    before.into()
}

async fn forget_console(context: &Context, id: &VmId) -> Result<(), StepError> {
    let path = console_path(context, id);
    blocking(move || {
        for path in [console_before(&path), path] {
            host::remove_if_present(&path).map_err(|error| StepError::of(errors::VM_DISKS, &error))?;
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_console_says_at_the_end() {
        assert_eq!(guest_exit("x\ncairn-init: exit 7\n[   2.0] reboot: Power down\n"), Some(7));
        assert_eq!((guest_exit("nothing"), guest_exit("cairn-init: exit x")), (None, None));
    }

    #[test]
    fn a_tail_is_bounded_and_plain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        assert_eq!(tail_of(&path), "");
        std::fs::write(&path, [vec![b'a'; 9000], b"\x1b[31mend\r\n".to_vec()].concat()).unwrap();
        let tail = tail_of(&path);
        assert!(tail.ends_with("[31mend\n") && tail.len() < 4097, "{tail}");
    }
}
