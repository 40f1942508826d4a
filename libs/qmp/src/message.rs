//! What a line from QEMU is.

use serde_json::{Map, Value};

/// Something that happened without having been asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, as `SHUTDOWN`.
    pub name: String,
    /// What belongs to it; `Null` when nothing does.
    pub data: Value,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first one of a connection.
    Greeting {
        /// QEMU's version, as `7.2.22`.
        version: String,
    },
    /// A command was done.
    Return {
        /// The command's id, when it had one.
        id: Option<u64>,
        /// What it gave back.
        value: Value,
    },
    /// A command was refused.
    Refusal {
        /// The command's id; none when QEMU could not read the command.
        id: Option<u64>,
        /// Kind of error, as `CommandNotFound`.
        class: String,
        /// A sentence.
        description: String,
    },
    /// Something happened.
    Event(Event),
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON.
    #[error("a line of {size} bytes is no JSON")]
    Json {
        /// Bytes of the line.
        size: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but none of the forms that the protocol has.
    #[error("a line is neither greeting, answer nor event")]
    Form,
}

impl Message {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// When it is no message.
    pub fn parse(line: &[u8]) -> Result<Self, MessageError> {
        let value: Value =
            serde_json::from_slice(line).map_err(|source| MessageError::Json { size: line.len(), source })?;
        let Value::Object(mut object) = value else { return Err(MessageError::Form) };
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(value) = object.remove("return") {
            return Ok(Self::Return { id, value });
        }
        if let Some(error) = object.remove("error") {
            return Ok(Self::Refusal { id, class: text(&error, "class")?, description: text(&error, "desc")? });
        }
        if let Some(name) = object.remove("event") {
            let name = name.as_str().ok_or(MessageError::Form)?.to_owned();
            return Ok(Self::Event(Event { name, data: object.remove("data").unwrap_or_default() }));
        }
        greeting(&object).ok_or(MessageError::Form)
    }
}

fn text(value: &Value, key: &str) -> Result<String, MessageError> {
    value[key].as_str().map(str::to_owned).ok_or(MessageError::Form)
}

fn greeting(object: &Map<String, Value>) -> Option<Message> {
    let version = &object.get("QMP")?["version"]["qemu"];
    let number = |name: &str| version[name].as_u64();
    let version = format!("{}.{}.{}", number("major")?, number("minor")?, number("micro")?);
    Some(Message::Greeting { version })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_specifications_examples_are_read() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 3}, "package": "v3.0.0"},
            "capabilities": ["oob"]}}"#;
        assert_eq!(Message::parse(greeting).unwrap(), Message::Greeting { version: "3.0.0".to_owned() });
        let done = br#"{"return": {"running": true}, "id": 7}"#;
        assert_eq!(Message::parse(done).unwrap(), Message::Return { id: Some(7), value: json!({"running": true}) });
        let refused = br#"{"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}}"#;
        let Message::Refusal { id: None, class, description } = Message::parse(refused).unwrap() else { panic!() };
        assert_eq!((class.as_str(), description.as_str()), ("GenericError", "JSON parse error, expecting value"));
        let event = br#"{"timestamp": {"seconds": 1258551470, "microseconds": 802384}, "event": "POWERDOWN"}"#;
        let powerdown = Event { name: "POWERDOWN".to_owned(), data: Value::Null };
        assert_eq!(Message::parse(event).unwrap(), Message::Event(powerdown));
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        assert!(matches!(Message::parse(b"{"), Err(MessageError::Json { size: 1, .. })));
        for bad in ["[]", "{}", r#"{"QMP": {}}"#, r#"{"event": 1}"#, r#"{"error": {}}"#] {
            assert!(matches!(Message::parse(bad.as_bytes()), Err(MessageError::Form)), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn what_was_written_is_read(id in any::<u64>(), text in ".{0,40}") {
            let line = json!({ "return": text, "id": id }).to_string();
            prop_assert_eq!(
                Message::parse(line.as_bytes()).unwrap(),
                Message::Return { id: Some(id), value: Value::String(text) }
            );
        }
    }
}
