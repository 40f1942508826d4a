//! Spans of operations and of their steps, for lines of the log and for a collector of traces. Names are of the few that
//! there are; which VM it is stands in a field.

use observe::traces::{self, Cause};
use tracing::Span;

use crate::model::{Failure, Operation, Phase, State, VmId};
use crate::plan::{Kind, Step};

/// The span of an operation. It is a part of what it is done for, and may be over after that.
pub(super) fn operation(id: &VmId, kind: Kind, cause: &Cause) -> Span {
    let name = format!("vm {}", kind.as_str());
    let span = tracing::info_span!(parent: None, "operation", otel.name = name, vm_id = %id, operation = kind.as_str());
    cause.lead(&span);
    span
}

/// The span of a try of a step.
pub(super) fn step(parent: &Span, operation: &Operation, step: Step) -> Span {
    let name = format!("step {}", step.as_str());
    let span = tracing::info_span!(parent: parent, "step", otel.name = name, step = step.as_str());
    if operation.phase == Phase::Back {
        traces::put(&span, "vm.undo", true);
    }
    span
}

/// What came of an operation.
pub(super) fn over(span: &Span, state: Option<State>, failure: Option<&Failure>) {
    if let Some(state) = state {
        traces::put(span, "vm.state", state.to_string());
    }
    if let Some(failure) = failure {
        traces::failed(span, &failure.code);
    }
}
