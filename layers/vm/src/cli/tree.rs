//! JSON as people read it: a line for each value, indented below its key.

use serde_json::Value;

use super::view::text;

/// The lines of a value.
pub(super) fn lines(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    write(value, 0, &mut all);
    all
}

fn write(value: &Value, depth: usize, all: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(_, value)| !is_empty(value)) {
                match flat(value) {
                    Some(text) => all.push(format!("{indent}{key}: {text}")),
                    None => {
                        all.push(format!("{indent}{key}:"));
                        write(value, depth + 1, all);
                    }
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                match flat(value) {
                    Some(text) => all.push(format!("{indent}- {text}")),
                    None => {
                        let from = all.len();
                        write(value, depth + 1, all);
                        if let Some(first) = all.get_mut(from) {
                            first.replace_range(..indent.len() + 2, &format!("{indent}- "));
                        }
                    }
                }
            }
        }
        _ => all.push(format!("{indent}{}", text(value))),
    }
}

/// What fits on the line of its key.
fn flat(value: &Value) -> Option<String> {
    match value {
        Value::Object(_) => None,
        Value::Array(list) => {
            let plain = list.iter().all(|one| !one.is_object() && !one.is_array());
            plain.then(|| list.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        _ => Some(text(value)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_tree_is_indented() {
        // Keys in the order of the alphabet, which is kept whether JSON sorts them or not.
        let value = json!({ "address": "10.0.0.2", "count": 7, "dns": ["1.1.1.1", "::1"], "none": null,
            "rules": [{ "packets": 3, "to": "10.0.0.0/8" }, { "ports": { "tcp": [80] }, "to": "::/0" }] });
        insta::assert_snapshot!(super::lines(&value).join("\n"), @r"
        address: 10.0.0.2
        count: 7
        dns: 1.1.1.1, ::1
        rules:
          - packets: 3
            to: 10.0.0.0/8
          - ports:
              tcp: 80
            to: ::/0
        ");
        assert_eq!(super::lines(&json!("x")), ["x"]);
        assert_eq!(super::lines(&json!([[{ "a": 1, "b": 2 }]])), ["- - a: 1", "    b: 2"]);
    }
}
