//! What is so about an object, one entry for each thing that can be said.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a status takes of a message.
const MESSAGE_LENGTH: usize = 32_768;

/// One observation about the object. There is one entry for each type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, such as `Applied`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(max = 16))]
    pub status: String,
    /// The generation of the object that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` was last another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// Why, in one word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Why, in a sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl Condition {
    /// Puts an observation among the others. The time of the last transition stays as it was unless `status` changed, and
    /// a message that is longer than a status takes is cut at its end.
    pub fn set(conditions: &mut Vec<Self>, mut new: Self, now: Timestamp) {
        if let Some((end, _)) = new.message.char_indices().nth(MESSAGE_LENGTH) {
            new.message.truncate(end);
        }
        match conditions.iter_mut().find(|old| old.kind == new.kind) {
            Some(old) => {
                let same = old.status == new.status && old.last_transition_time.is_some();
                new.last_transition_time = if same { old.last_transition_time } else { Some(now) };
                *old = new;
            }
            None => {
                new.last_transition_time = Some(now);
                conditions.push(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Condition;

    fn applied(status: &str, message: &str) -> Condition {
        Condition {
            kind: "Applied".into(),
            status: status.into(),
            observed_generation: Some(3),
            last_transition_time: None,
            reason: "Success".into(),
            message: message.into(),
        }
    }

    #[test]
    fn the_time_of_a_transition_moves_only_with_the_status() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut conditions = Vec::new();
        Condition::set(&mut conditions, applied("True", "one"), at(1));
        Condition::set(&mut conditions, applied("True", "two"), at(2));
        assert_eq!((conditions[0].last_transition_time, conditions[0].message.as_str()), (Some(at(1)), "two"));
        Condition::set(&mut conditions, applied("False", "three"), at(3));
        assert_eq!((conditions.len(), conditions[0].last_transition_time), (1, Some(at(3))));
    }

    #[test]
    fn a_message_fits_into_the_schema() {
        let mut conditions = Vec::new();
        Condition::set(&mut conditions, applied("True", &"ü".repeat(40_000)), Timestamp::UNIX_EPOCH);
        assert_eq!(conditions[0].message.chars().count(), 32_768);
    }
}
