//! What one step of a state machine decided.

use std::time::Duration;

/// The decision of a pure `step(state, seen, now)`. The caller stores the reason with the row and carries the effect out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<State, Effect, Failure> {
    /// Nothing to do yet: why, and when to look again.
    Stay { reason: String, retry_after: Duration },
    /// The next state holds; store it and step again.
    Go(State),
    /// Carry this out, then step again with what was seen.
    Do(Effect),
    /// The object has reached its end.
    Done,
    /// It cannot go on.
    Failed(Failure),
}
