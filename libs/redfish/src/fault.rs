//! The error body of a Redfish service (DSP0266, "Error responses").

use secrecy::SecretString;
use serde_json::Value;

use crate::redact::scrub;

/// What a service said about a request that it refused. Texts are scrubbed of secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault {
    /// All messages in one line; empty when the body had none.
    pub(crate) message: String,
    /// `MessageId`s in lower case, plus the `code` of the error.
    ids: Vec<String>,
}

/// Message ids of a service that is busy and will take the same request later.
const BUSY: [&str; 5] = [
    "invalidoperationforsystemstate",
    "sys518",
    "servicetemporarilyunavailable",
    "resourceinuse",
    "insufficientresources",
];

/// Message ids of a service that could not fetch the image.
const UNREACHABLE_IDS: [&str; 3] = ["sys446", "rac0904", "vrm0021"];

/// Texts of services that have no message id for it, sushy-tools 2.2.0 among them.
const UNREACHABLE_TEXTS: [&str; 5] = [
    "cannot download virtual media",
    "failed fetching image",
    "rac0904",
    "unable to access the image",
    "unable to locate the iso or img image",
];

impl Fault {
    /// Reads the body of an answer; anything that is not the standard's shape is kept as text.
    pub(crate) fn read<'a>(body: &[u8], secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let text = String::from_utf8_lossy(body);
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Self { message: scrub(&one_line(&text), secrets), ids: Vec::new() };
        };
        let error = value.get("error").unwrap_or(&value);
        let extended = match error.get("@Message.ExtendedInfo").or_else(|| value.get("@Message.ExtendedInfo")) {
            Some(Value::Array(list)) => list.clone(),
            Some(single @ Value::Object(_)) => vec![single.clone()],
            _ => Vec::new(),
        };
        let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut ids: Vec<String> = field(error, "code").into_iter().collect();
        let mut messages: Vec<String> = Vec::new();
        for information in &extended {
            ids.extend(field(information, "MessageId"));
            messages.extend(field(information, "Message").filter(|message| !message.is_empty()));
        }
        if messages.is_empty() {
            messages.extend(field(error, "message"));
        }
        messages.dedup();
        ids.iter_mut().for_each(|id| *id = id.to_lowercase());
        Self { message: scrub(&one_line(&messages.join(" ")), secrets), ids }
    }

    /// The service will take the same request later.
    pub(crate) fn busy(&self) -> bool {
        self.ids.iter().any(|id| BUSY.iter().any(|busy| id.contains(busy)))
    }

    /// The service could not fetch the image it was told to insert.
    pub(crate) fn media_unreachable(&self) -> bool {
        let message = self.message.to_lowercase();
        self.ids.iter().any(|id| UNREACHABLE_IDS.iter().any(|known| id.contains(known)))
            || UNREACHABLE_TEXTS.iter().any(|text| message.contains(text))
    }
}

/// Joins the words of a text with single spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_information_is_preferred() {
        let fault = Fault::read(
            br#"{"error":{"code":"Base.1.8.GeneralError","message":"see below","@Message.ExtendedInfo":[
                {"MessageId":"IDRAC.2.8.SYS446","Message":"Unable to\n reach it."},{"MessageId":7}]}}"#,
            [],
        );
        assert_eq!(fault.message, "Unable to reach it.");
        assert!(fault.media_unreachable());
        assert!(!fault.busy());
    }

    #[test]
    fn other_shapes_are_read_too() {
        let single = Fault::read(
            br#"{"error":{"@Message.ExtendedInfo":{"MessageId":"iLO.2.14.InvalidOperationForSystemState"}}}"#,
            [],
        );
        assert!(single.busy());
        let sushy = Fault::read(br#"{"error":{"message":"Failed fetching image from URL http://x/y: refused"}}"#, []);
        assert!(sushy.media_unreachable());
        assert_eq!(Fault::read(b"<html>\n Busy </html>", []).message, "<html> Busy </html>");
        assert_eq!(Fault::read(b"", []).message, "");
        assert_eq!(Fault::read(b"[1]", []).message, "");
    }
}
