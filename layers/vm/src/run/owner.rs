//! The owner of one VM: takes commands, writes down what is about to be done, has it done, and writes what came of it.
//! Nobody else changes the row.

use std::sync::Arc;
use std::time::Duration;

use cairn_core::chain;
use jiff::SignedDuration;
use observe::traces::{self, Cause};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::{Command, Context, Enlisted, Happening, Refusal, spans, steps};
use crate::errors;
use crate::model::{Failure, Operation, Options, Phase, State, Vm};
use crate::plan::{self, Answer, Kind, Step, Turn};
use crate::ports::StepError;
use crate::store::{self, NewEvent};

/// First and longest pause before a step is tried again that has to succeed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often a VM that ran is looked for after a start of the daemon, before what does not answer counts as ended.
const LOOKS: u32 = 8;
/// Pause after the database has refused, which is mostly a full disk.
const RECOVER: Duration = Duration::from_secs(1);
/// How long a VM has to run until its restarts are forgiven.
const STEADY: SignedDuration = SignedDuration::from_mins(10);

type Reply = oneshot::Sender<Result<Arc<Vm>, Refusal>>;

/// See the module.
pub(super) struct Owner {
    context: Arc<Context>,
    vm: watch::Sender<Arc<Vm>>,
    commands: mpsc::Receiver<Command>,
    waiting: Vec<Reply>,
    shutdown: CancellationToken,
    run: steps::Run,
    /// What the next operation is done for.
    cause: Cause,
    /// Of the operation under way.
    span: Option<Span>,
    /// Takes the VM from the list of all.
    strike: Box<dyn Fn() + Send + Sync>,
}

/// Why an owner ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The VM is no more.
    Gone,
    /// The daemon stops.
    Shutdown,
}

/// What is to be begun.
#[derive(Clone)]
struct Begin<'a> {
    kind: Kind,
    options: Options,
    /// What is known about the end that it is for.
    failure: Option<Failure>,
    /// The restart policy asks for it, and no user.
    by_policy: bool,
    why: &'a str,
    cause: Cause,
}

/// What came of a try of a step.
enum Tried {
    /// It is over.
    Over(Result<Option<Failure>, StepError>),
    /// Somebody does not want to wait for the guest: this is done instead.
    Hastened(Operation, Cause, Reply),
}

/// What happened to a VM at rest, or running by itself.
enum Next {
    Command(Command),
    Ended,
    Silent,
    Restart,
    Shutdown,
}

impl Owner {
    pub(super) fn new(
        context: Arc<Context>,
        enlisted: Enlisted,
        shutdown: CancellationToken,
        strike: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let Enlisted { vm, commands, reply, cause } = enlisted;
        Self {
            context,
            vm,
            commands,
            waiting: reply.into_iter().collect(),
            shutdown,
            run: steps::Run::default(),
            cause,
            span: None,
            strike,
        }
    }

    fn vm(&self) -> Arc<Vm> {
        Arc::clone(&self.vm.borrow())
    }

    pub(super) async fn run(&mut self) -> End {
        let shutdown = self.shutdown.clone();
        if self.vm().operation.is_none() && self.adopt().await.is_none() {
            return End::Shutdown;
        }
        loop {
            if self.vm().operation.is_some() {
                if shutdown.is_cancelled() {
                    // The next daemon goes on from the row; a database that refuses does not hold this one up.
                    return End::Shutdown;
                }
                match self.finish().await {
                    Some(End::Gone) => return End::Gone,
                    Some(End::Shutdown) => return End::Shutdown,
                    None => {}
                }
                continue;
            }
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Shutdown,
                next = self.next() => next,
            };
            match next {
                Next::Shutdown => return End::Shutdown,
                Next::Command(command) => self.obey(command).await,
                Next::Ended => self.internally(Kind::Ended, None, "the hypervisor ended").await,
                Next::Silent => {
                    let reason = format!("nothing came from the guest in {} s", self.context.sign_of_life.as_secs());
                    self.internally(Kind::Ended, Some(Failure::plain(errors::VM_SILENT, reason)), "no sign of life")
                        .await;
                }
                Next::Restart => self.internally(Kind::Boot, None, "booted again by its restart policy").await,
            }
        }
    }

    /// Waits for something to do.
    async fn next(&mut self) -> Next {
        let (context, vm) = (Arc::clone(&self.context), self.vm());
        let live = matches!(vm.state, State::Running | State::Paused);
        let restart =
            vm.unattended.then(|| plan::restart_after(vm.spec.restart_policy, vm.state, vm.restarts)).flatten();
        let restart = restart.map(|pause| until(&*context.clock, vm.updated_at, pause));
        tokio::select! {
            command = self.commands.recv() => command.map_or(Next::Shutdown, Next::Command),
            () = ended(&context, &vm), if live => Next::Ended,
            () = steps::silence(&context, &vm, &mut self.run.spoken), if vm.state == State::Running => Next::Silent,
            () = tokio::time::sleep(restart.unwrap_or_default()), if restart.is_some() => Next::Restart,
        }
    }

    /// After a start of the daemon: whether a VM that ran still does. Nothing when the daemon stops meanwhile.
    async fn adopt(&mut self) -> Option<()> {
        let vm = self.vm();
        if !vm.state.is_live() {
            // At rest, and after a restart of the host its policy may have a say.
            return Some(());
        }
        match self.look_for(&vm).await? {
            Ok(Some(state)) => {
                // Its first word was for the daemon before.
                self.run.spoken = !steps::console_tail(&self.context, &vm).await.is_empty();
                let message = "found again, running, by a new daemon".to_owned();
                self.change(Some(("adopted", message)), |vm| vm.state = state).await;
                tracing::info!(vm_id = %vm.id, state = %state, "vm adopted");
            }
            Ok(None) => self.internally(Kind::Ended, None, "it ended while no daemon looked after it").await,
            Err(error) => {
                tracing::warn!(vm_id = %vm.id, code = error.code, reason = error.reason, "vm does not answer its new daemon");
                let failure = Failure::plain(error.code, error.reason);
                self.internally(Kind::Ended, Some(failure), "its hypervisor does not answer").await;
            }
        }
        Some(())
    }

    /// Whether it runs, and how. A host that is just starting has its troubles, and no guest is ended for those: what does not
    /// answer at once is asked again. Nothing when the daemon stops meanwhile.
    async fn look_for(&self, vm: &Arc<Vm>) -> Option<Result<Option<State>, StepError>> {
        let mut pause = PAUSES.0;
        for _ in 1..LOOKS {
            let found = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                found = steps::find(&self.context, vm) => found,
            };
            let Err(error) = found else { return Some(found) };
            tracing::warn!(vm_id = %vm.id, code = error.code, reason = error.reason, "a vm that ran is looked for again");
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(pause) => pause *= 2,
            }
        }
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            found = steps::find(&self.context, vm) => Some(found),
        }
    }

    /// Answers a command, or begins what it asks.
    async fn obey(&mut self, command: Command) {
        let vm = self.vm();
        match plan::may(command.kind, vm.state) {
            Answer::Already => drop(command.reply.send(Ok(vm))),
            Answer::WrongState => drop(command.reply.send(Err(Refusal::WrongState(vm)))),
            Answer::Begin => {
                let Command { kind, options, cause, .. } = command;
                let begin = Begin { kind, options, failure: None, by_policy: false, why: "asked for", cause };
                match self.begin(begin).await {
                    Ok(()) => self.waiting.push(command.reply),
                    Err(error) => drop(command.reply.send(Err(Refusal::Database(chain(&error))))),
                }
            }
        }
    }

    /// Begins what nobody asked for; the database has to take it.
    async fn internally(&mut self, kind: Kind, failure: Option<Failure>, why: &str) {
        let by_policy = kind == Kind::Boot;
        let begin = Begin { kind, options: Options::default(), failure, by_policy, why, cause: Cause::default() };
        while let Err(error) = self.begin(begin.clone()).await {
            self.refused(&error).await;
            if self.shutdown.is_cancelled() {
                return;
            }
        }
    }

    async fn begin(&mut self, begin: Begin<'_>) -> Result<(), store::Error> {
        let Begin { kind, options, failure, by_policy, why, cause } = begin;
        let now = self.context.clock.now();
        let event_kind = if by_policy { "restart" } else { "operation" };
        let event = NewEvent { time: now, kind: event_kind, message: format!("{}: {why}", kind.as_str()) };
        let vm = self.vm();
        let mut next = (*vm).clone();
        next.operation = Some(Operation { failure, ..plan::begin(kind, vm.state, options, now) });
        next.state = plan::state_during(kind, 0, vm.state);
        next.reason = event.message.clone();
        let steady = vm.started_at.is_some_and(|at| vm.updated_at.duration_since(at) > STEADY);
        match kind {
            Kind::Boot if by_policy && !steady => next.restarts += 1,
            Kind::Boot => next.restarts = 0,
            _ => {}
        }
        if kind == Kind::Boot {
            // How long an earlier run was says nothing about this one.
            next.started_at = None;
        }
        next.unattended = kind == Kind::Ended || by_policy;
        self.try_write(next, Some(&event)).await?;
        self.span = Some(spans::operation(&vm.id, kind, &cause));
        (self.context.observe)(&Happening::Begun { kind });
        Ok(())
    }

    /// Does one step of the operation under way, or settles it.
    async fn finish(&mut self) -> Option<End> {
        let vm = self.vm();
        let operation = vm.operation.clone()?;
        match plan::turn(&operation) {
            Turn::Do(step) => self.step(&vm, &operation, step).await,
            Turn::Settle(state, failure) => {
                self.settle(state, failure).await;
                None
            }
            Turn::Gone(failure) => Some(self.gone(failure).await),
        }
    }

    async fn step(&mut self, vm: &Arc<Vm>, operation: &Operation, step: Step) -> Option<End> {
        let mut pause = PAUSES.0;
        let cause = std::mem::take(&mut self.cause);
        let under_way = self.span.get_or_insert_with(|| spans::operation(&vm.id, operation.kind, &cause)).clone();
        loop {
            let span = spans::step(&under_way, operation, step);
            let tried = {
                let context = Arc::clone(&self.context);
                let shutdown = self.shutdown.clone();
                let work = steps::perform(&context, vm, operation, step, &mut self.run).instrument(span.clone());
                tokio::pin!(work);
                loop {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return Some(End::Shutdown),
                        done = &mut work => break Tried::Over(done),
                        Some(command) = self.commands.recv() => {
                            // Force is an answer to a guest that takes its time.
                            if let Some(next) = plan::hastened(operation, command.kind, command.options) {
                                break Tried::Hastened(next, command.cause, command.reply);
                            }
                            drop(command.reply.send(Err(Refusal::Busy(Arc::clone(&self.vm.borrow())))));
                        }
                    }
                }
            };
            let error = match tried {
                Tried::Over(Ok(failure)) => {
                    self.advance(plan::done(operation, failure)).await;
                    return None;
                }
                Tried::Hastened(next, cause, reply) => {
                    self.hasten(operation, next, &cause, reply).await;
                    return None;
                }
                Tried::Over(Err(error)) => error,
            };
            traces::failed(&span, error.code);
            (self.context.observe)(&Happening::Refused { step, backend: vm.backend, code: error.code });
            span.in_scope(|| {
                tracing::warn!(vm_id = %vm.id, step = step.as_str(), operation = operation.kind.as_str(),
                    code = error.code, reason = error.reason, "{}", told(step));
            });
            drop(span);
            if operation.phase == Phase::Forward && plan::can_fail(operation.kind, step) {
                let tail = steps::console_tail(&self.context, vm).await;
                let failure = Failure { console_tail: tail, ..Failure::plain(error.code, error.reason) };
                self.advance(plan::failed(operation, failure)).await;
                return None;
            }
            let reason = format!("{} is tried again: {}", step.as_str(), error.reason);
            if self.vm().reason != reason {
                self.change(None, |vm| vm.reason.clone_from(&reason)).await;
            }
            if let Some(end) = self.rest(pause).await {
                return Some(end);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// A pause in which whoever asks for something is answered.
    async fn rest(&mut self, pause: Duration) -> Option<End> {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Some(End::Shutdown),
                () = &mut over => return None,
                Some(command) = self.commands.recv() => {
                    drop(command.reply.send(Err(Refusal::Busy(self.vm()))));
                }
            }
        }
    }

    /// Goes on without waiting for the guest, perhaps with another operation.
    async fn hasten(&mut self, before: &Operation, next: Operation, cause: &Cause, reply: Reply) {
        if before.kind == next.kind {
            self.waiting.push(reply);
            return self.advance(next).await;
        }
        let reason = format!("{}: asked for, by force", next.kind.as_str());
        self.change(Some(("operation", reason.clone())), |vm| {
            vm.state = plan::state_during(next.kind, next.step, next.before);
            vm.reason.clone_from(&reason);
            vm.operation = Some(next.clone());
        })
        .await;
        let (vm, replaced) = (self.vm(), Failure::plain(errors::VM_BUSY, reason));
        if let Some(span) = self.span.replace(spans::operation(&vm.id, next.kind, cause)) {
            spans::over(&span, None, Some(&replaced));
        }
        // Every operation that was begun is over once, also the one that never came to its end.
        let took = self.context.clock.now().duration_since(before.begun_at);
        (self.context.observe)(&Happening::Over {
            kind: before.kind,
            backend: vm.backend,
            failure: Some(&replaced),
            took: Duration::try_from(took).unwrap_or_default(),
            forced: false,
        });
        (self.context.observe)(&Happening::Begun { kind: next.kind });
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Err(Refusal::Busy(Arc::clone(&self.vm.borrow()))));
        }
        self.waiting.push(reply);
    }

    async fn advance(&mut self, operation: Operation) {
        let backend = self.run.backend.take();
        self.change(None, |vm| {
            vm.state = plan::state_during(operation.kind, operation.step, operation.before);
            vm.backend = backend.or(vm.backend);
            vm.operation = Some(operation.clone());
        })
        .await;
    }

    async fn settle(&mut self, state: State, failure: Option<Failure>) {
        let vm = self.vm();
        let Some(operation) = vm.operation.clone() else { return };
        let now = self.context.clock.now();
        let failed = operation.failure.clone();
        let message = match (&failure, &failed) {
            (Some(failure), _) => failure.reason.clone(),
            (None, Some(failed)) if operation.phase == Phase::Back => failed.reason.clone(),
            (None, Some(ended)) => format!("{} is done; {}", operation.kind.as_str(), ended.reason),
            (None, None) => format!("{} is done", operation.kind.as_str()),
        };
        let started = state == State::Running && matches!(operation.kind, Kind::Boot | Kind::Reboot);
        let boot_id = self.context.boot_id.clone();
        self.change(Some(("state", message.clone())), |vm| {
            vm.state = state;
            vm.reason.clone_from(&message);
            vm.failure.clone_from(&failure);
            vm.operation = None;
            vm.unattended &= operation.kind == Kind::Ended || state == State::Failed;
            if started {
                vm.started_at = Some(now);
                vm.boot_id = Some(boot_id.clone());
            }
        })
        .await;
        if self.vm().operation.is_some() {
            // Not written, for the daemon stops: nobody is told what is not so yet.
            return;
        }
        let took = Duration::try_from(now.duration_since(operation.begun_at)).unwrap_or_default();
        let given_up = (operation.phase == Phase::Back).then_some(failed).flatten();
        let why = given_up.as_ref().or(failure.as_ref());
        let over = Happening::Over {
            kind: operation.kind,
            backend: vm.backend,
            failure: why,
            took,
            forced: operation.options.force,
        };
        (self.context.observe)(&over);
        if let Some(span) = self.span.take() {
            spans::over(&span, Some(state), why);
        }
        tracing::info!(vm_id = %vm.id, operation = operation.kind.as_str(), state = %state, reason = message, "vm settled");
        let vm = self.vm();
        for reply in self.waiting.drain(..) {
            let answer = given_up.clone().map_or_else(|| Ok(Arc::clone(&vm)), |failure| Err(Refusal::Failed(failure)));
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
    }

    async fn gone(&mut self, failure: Option<Failure>) -> End {
        let vm = self.vm();
        let event = NewEvent {
            time: self.context.clock.now(),
            kind: "deleted",
            message: failure.as_ref().map_or_else(|| "deleted".to_owned(), |failure| failure.reason.clone()),
        };
        let event = loop {
            match self.context.store.remove(&vm, &event, failure.is_some()).await {
                Ok(event) => break event,
                Err(error) => self.refused(&error).await,
            }
            if self.shutdown.is_cancelled() {
                return End::Shutdown;
            }
        };
        // Nobody is told before nobody can find it any more.
        (self.strike)();
        let _ = self.context.events.send(event);
        let operation = vm.operation.as_ref();
        let took = operation.map(|operation| self.context.clock.now().duration_since(operation.begun_at));
        (self.context.observe)(&Happening::Over {
            kind: operation.map_or(Kind::Delete, |operation| operation.kind),
            backend: vm.backend,
            failure: failure.as_ref(),
            took: took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default(),
            forced: operation.is_some_and(|operation| operation.options.force),
        });
        if let Some(span) = self.span.take() {
            spans::over(&span, None, failure.as_ref());
        }
        tracing::info!(vm_id = %vm.id, reason = failure.as_ref().map(|failure| failure.reason.as_str()), "vm gone");
        for reply in self.waiting.drain(..) {
            let answer = failure.clone().map_or_else(|| Ok(Arc::clone(&vm)), |failure| Err(Refusal::Failed(failure)));
            let _ = reply.send(answer);
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            let _ = command.reply.send(Err(Refusal::Gone(vm.id.clone())));
        }
        End::Gone
    }

    /// Changes the row and tells those who watch. Nothing is done before the database has taken it, so this waits until it
    /// does, or the daemon stops: then the next one goes on from the row as it is.
    async fn change(&mut self, event: Option<(&'static str, String)>, change: impl Fn(&mut Vm)) {
        let event = event.map(|(kind, message)| NewEvent { time: self.context.clock.now(), kind, message });
        loop {
            let mut next = (*self.vm()).clone();
            change(&mut next);
            match self.try_write(next, event.as_ref()).await {
                Ok(()) => return,
                Err(error) => self.refused(&error).await,
            }
            if self.shutdown.is_cancelled() {
                return;
            }
        }
    }

    async fn try_write(&mut self, mut next: Vm, event: Option<&NewEvent>) -> Result<(), store::Error> {
        next.generation += 1;
        next.updated_at = self.context.clock.now();
        let event = self.context.store.write(&next, event).await?;
        self.vm.send_replace(Arc::new(next));
        if let Some(event) = event {
            // Nobody has to listen.
            let _ = self.context.events.send(event);
        }
        Ok(())
    }

    async fn refused(&self, error: &store::Error) {
        tracing::error!(vm_id = %self.vm().id, error = error as &dyn std::error::Error, "the database refuses; trying again");
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(RECOVER) => {}
        }
    }
}

/// Steps of the jail are found by their word (guide, "VM Creation Fails").
fn told(step: Step) -> &'static str {
    match step {
        Step::Jail | Step::Launch | Step::Start | Step::Reap => "a step of the jailer failed",
        _ => "a step failed",
    }
}

/// How long still until some time after a moment.
fn until(clock: &dyn cairn_core::Clock, from: jiff::Timestamp, pause: Duration) -> Duration {
    let passed = Duration::try_from(clock.now().duration_since(from)).unwrap_or_default();
    pause.saturating_sub(passed)
}

/// Waits for the end of the hypervisor; for ever when nobody can say.
async fn ended(context: &Context, vm: &Vm) {
    let mut pause = PAUSES.0;
    while let Err(error) = context.keepers.ended(&vm.id).await {
        tracing::warn!(vm_id = %vm.id, code = error.code, reason = error.reason, "the keeper cannot be watched; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
