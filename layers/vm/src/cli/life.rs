//! Looking at VMs, and what is done with one that is there.

use std::time::Duration;

use cairn_core::ErrorKind;
use clap::Args;
use cli::{Daemon, Output, segment, usage};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::form_urlencoded;
use web::Problem;

use super::tree;
use super::view::{FailureView, VmView, list as items};
use crate::errors;
use crate::model::State;
use crate::plan::GRACE;

/// One request waits no longer than this at the daemon, so that nothing in between takes silence for death.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);

/// A VM.
#[derive(Debug, Args)]
pub struct One {
    /// The VM
    #[arg(value_name = "VM")]
    pub(super) id: String,
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only those in this state; as often as needed
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,
    /// So many at most; all where it is left out
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// The VM
    #[arg(value_name = "VM")]
    id: String,
    /// The state; as often as needed, any of them then [default: running]
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,
    /// No longer than this
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = settings::parse_duration)]
    timeout: Duration,
}

/// Flags of what lets a guest end.
#[derive(Debug, Args)]
pub struct Ending {
    /// The VM
    #[arg(value_name = "VM")]
    id: String,
    /// Do not ask the guest
    #[arg(long)]
    force: bool,
    /// The guest has so long to end by itself [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = settings::parse_duration, conflicts_with = "force")]
    timeout: Option<Duration>,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The VM
    #[arg(value_name = "VM")]
    id: String,
    /// Do not ask the guest, where it runs
    #[arg(long)]
    force: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn list(list: &List, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for state in &list.state {
        query.append_pair("state_filter", &state.wire());
    }
    if let Some(limit) = list.limit {
        query.append_pair("page_size", &limit.to_string());
    }
    let query = query.finish();
    let answer: Value = daemon.get(&format!("/v1/vms{}{query}", if query.is_empty() { "" } else { "?" })).await?;
    if output.json {
        output.json(&items(&answer, "vms"));
        return Ok(());
    }
    let rows: Vec<_> = items(&answer, "vms")
        .iter()
        .map(|one| {
            let vm = VmView::of(one);
            let vcpus = super::view::text(&vm.vcpu_count);
            let (state, memory, address) = (vm.short_state().to_owned(), vm.memory(), vm.address());
            let created = vm.created();
            [vm.vm_id, state, vcpus, memory, address, vm.customer_id, created]
        })
        .collect();
    output.table(["VM", "STATE", "CPUS", "MEMORY", "ADDRESS", "CUSTOMER", "CREATED"], &rows);
    if let Some(total) = answer.get("total_count").and_then(super::view::number)
        && total > rows.len() as u64
    {
        output.note(format_args!("{} of {total} are shown", rows.len()));
    }
    Ok(())
}

pub(super) async fn show(id: &str, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer: Value = daemon.get(&format!("/v1/vms/{}", segment(id))).await?;
    if output.json {
        output.json(&answer);
        return Ok(());
    }
    let vm = VmView::of(&answer);
    let line = |name: &str, value: &str| {
        if !value.is_empty() {
            output.line(format_args!("{name:<12}{value}"));
        }
    };
    line("vm", &vm.vm_id);
    line("state", vm.short_state());
    if vm.failure.is_none() {
        line("why", &vm.reason);
    }
    line("customer", &vm.customer_id);
    line("processors", &super::view::text(&vm.vcpu_count));
    line("memory", &vm.memory());
    line("hypervisor", vm.backend.as_deref().unwrap_or_default());
    line("created", &vm.created());
    if let Some(failure) = &vm.failure {
        show_failure(failure, output);
    }
    for (name, value) in [("network", vm.network_info.as_ref()), ("asked for", answer.get("config"))] {
        let lines = value.map(tree::lines).unwrap_or_default();
        if !lines.is_empty() {
            output.line(format_args!("{name}"));
        }
        for line in lines {
            output.line(format_args!("  {line}"));
        }
    }
    Ok(())
}

fn show_failure(failure: &FailureView, output: &Output) {
    let exit = failure.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    output.line(format_args!("failed      {} ({}{exit})", failure.reason, failure.code));
    if !failure.console_tail.is_empty() {
        output.line("console's end");
    }
    for line in failure.console_tail.lines() {
        output.line(format_args!("  {}", line.trim_end()));
    }
    output.note(format_args!("hint: cairn explain {}", failure.code));
}

/// Something without options.
pub(super) async fn change(id: &str, verb: &str, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer = daemon.work(&format!("/v1/vms/{}/{verb}", segment(id)), &json!({})).await?;
    told(id, &answer, output);
    Ok(())
}

/// Something that lets the guest end.
pub(super) async fn end(ending: &Ending, verb: &str, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let mut body = json!({ "force": ending.force });
    if let Some(timeout) = ending.timeout {
        let seconds = u32::try_from(timeout.as_millis().div_ceil(1000));
        body["timeout_seconds"] = json!(seconds.map_err(|_| usage("this time-out is too long"))?);
    }
    let answer = daemon.work(&format!("/v1/vms/{}/{verb}", segment(&ending.id)), &body).await?;
    told(&ending.id, &answer, output);
    Ok(())
}

fn told(id: &str, answer: &Value, output: &Output) {
    if output.json {
        output.json(answer);
    } else {
        output.line(format_args!("{id} is {}", VmView::of(answer).short_state()));
    }
}

pub(super) async fn delete(delete: &Delete, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let path = format!("/v1/vms/{}", segment(&delete.id));
    if delete.dry_run {
        let answer: Value = daemon.get(&path).await?;
        if output.json {
            output.json(&json!({ "dry_run": true, "vm": answer }));
            return Ok(());
        }
        let vm = VmView::of(&answer);
        let running = matches!(vm.short_state(), "RUNNING" | "PAUSED");
        let grace = GRACE.as_secs();
        match (running, delete.force) {
            (true, true) => {
                output.line(format_args!("{} is {} and would be ended by force", vm.vm_id, vm.short_state()))
            }
            (true, false) => {
                output.line(format_args!("{} is {} and would have {grace} s to end", vm.vm_id, vm.short_state()))
            }
            (false, _) => output.line(format_args!("{} is {}", vm.vm_id, vm.short_state())),
        }
        output.line("its disks, its addresses and its console would be removed");
        return Ok(());
    }
    let request = daemon.patient(Method::DELETE, &format!("{path}?force={}", delete.force));
    daemon.send(request).await?;
    if output.json {
        output.json(&json!({ "vm_id": delete.id, "deleted": true }));
    } else {
        output.line(format_args!("{} is gone", delete.id));
    }
    Ok(())
}

impl Wait {
    pub(super) fn until(id: &str, state: State) -> Self {
        Self { id: id.to_owned(), state: vec![state], timeout: Duration::from_secs(60) }
    }
}

pub(super) async fn wait(wait: &Wait, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let answer = wait_for(wait, daemon).await?;
    told(&wait.id, &answer, output);
    Ok(())
}

/// Asks again and again, each time for a little while, until the time is over.
pub(super) async fn wait_for(wait: &Wait, daemon: &Daemon) -> Result<Value, Problem> {
    let deadline = Instant::now().checked_add(wait.timeout).ok_or_else(|| usage("this time-out is too long"))?;
    let states = if wait.state.is_empty() { vec![State::Running] } else { wait.state.clone() };
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_REQUEST);
        let mut query = form_urlencoded::Serializer::new(String::new());
        for state in &states {
            query.append_pair("state", &state.wire());
        }
        query.append_pair("timeout", &left.as_secs_f64().ceil().to_string());
        let path = format!("/v1/vms/{}/wait?{}", segment(&wait.id), query.finish());
        match daemon.read(daemon.patient(Method::GET, &path)).await {
            Err(problem) if is_over(&problem) => {
                if Instant::now() >= deadline {
                    return Err(Problem::new(ErrorKind::Unreachable, &problem.code, problem.detail.clone())
                        .hint(format!("look at it: cairn vm show {}", wait.id)));
                }
            }
            answer => return answer,
        }
    }
}

/// The daemon's word that the time is over; a proxy's has no code of ours.
fn is_over(problem: &Problem) -> bool {
    matches!(problem.status, 408 | 504) && errors::ALL.contains(&problem.code.as_str())
}
