//! Objects in files, held against the very schemas that an API server would hold them against.

use serde_json::Value;

use super::Problem;
use super::node::{Key, Node, Tree};

/// What `metadata` may have; the API server's own fields are there in objects that were saved from a cluster.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// From what likeness on a name is suggested; 1 is equal.
const LIKE: f64 = 0.6;

/// Puts a name beside an unknown one.
pub(super) fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase());
    let known = known.into_iter().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= LIKE);
    known.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| format!("did you mean {name}?"))
}

/// Makes a problem of a line, a field, a reason and a hint.
pub(super) type At<'a> = dyn Fn(u64, &str, String, Option<String>) -> Problem + 'a;

/// Collects what an object in a file does otherwise than its schema says.
pub(super) struct Check<'a> {
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) at: &'a At<'a>,
}

impl Check<'_> {
    fn problem(&mut self, line: u64, field: &str, reason: impl Into<String>, hint: Option<String>) {
        self.problems.push((self.at)(line, field, reason.into(), hint));
    }

    /// Names that are not among the known ones.
    pub(super) fn names(&mut self, node: &Node, field: &str, known: &[&str]) {
        for Key { name, line, .. } in node.keys() {
            if !known.contains(&name.as_str()) {
                let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                self.problem(*line, &field, "is not known", did_you_mean(name, known.iter().copied()));
            }
        }
    }

    /// `metadata`: its names, and that labels and annotations are text.
    pub(super) fn metadata(&mut self, object: &Node) {
        let Some(metadata) = object.get("metadata") else {
            return self.problem(object.line, "metadata.name", "is missing", None);
        };
        self.names(metadata, "metadata", &METADATA);
        match metadata.get("name").map(Node::text) {
            Some(Some(name)) if !name.is_empty() => {}
            Some(_) => self.problem(metadata.line_of("name"), "metadata.name", "is not text", None),
            None => self.problem(metadata.line, "metadata.name", "is missing", None),
        }
        for field in ["labels", "annotations"] {
            for key in metadata.get(field).map_or(&[][..], Node::keys) {
                if key.value.text().is_none() {
                    let field = format!("metadata.{field}.{}", key.name);
                    self.problem(key.line, &field, "is not text", Some("put it in quotes".to_owned()));
                }
            }
        }
    }

    /// A value against the schema of its field.
    pub(super) fn value(&mut self, node: &Node, schema: &Value, field: &str) {
        let wanted = schema["type"].as_str().unwrap_or_default();
        match (&node.tree, wanted) {
            (Tree::Null, _) => {}
            (Tree::Map(keys), "object") => self.object(node, keys, schema, field),
            (Tree::List(items), "array") => self.list(node, items, schema, field),
            (Tree::Text(text), "string") => self.text(node, text, schema, field),
            (Tree::Bool(_), "boolean") => {}
            (Tree::Number(number), "integer") => {
                let Some(number) = number.as_i64() else {
                    return self.problem(node.line, field, format!("{number} is not a whole number"), None);
                };
                let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
                if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                    let bound = |bound: Option<i64>| bound.map_or_else(String::new, |bound| bound.to_string());
                    let reason = format!("{number} is not within {} to {}", bound(least), bound(most));
                    self.problem(node.line, field, reason, None);
                }
            }
            (found, _) => {
                let wanted = match wanted {
                    "object" => "a map",
                    "array" => "a list",
                    "string" => "text",
                    "boolean" => "true or false",
                    _ => "a whole number",
                };
                let scalar = matches!(found, Tree::Number(_) | Tree::Bool(_));
                let hint = (wanted == "text" && scalar).then(|| "put it in quotes".to_owned());
                self.problem(node.line, field, format!("is {}, not {wanted}", kind(found)), hint);
            }
        }
    }

    fn object(&mut self, node: &Node, keys: &[Key], schema: &Value, field: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for key in keys {
            let field = format!("{field}.{}", key.name);
            match properties.get(&key.name) {
                Some(schema) => self.value(&key.value, schema, &field),
                None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
                None => {
                    let hint = did_you_mean(&key.name, properties.keys().map(String::as_str));
                    self.problem(key.line, &field, "is not known", hint);
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if node.get(name).is_none_or(|value| matches!(value.tree, Tree::Null)) {
                self.problem(node.line, &format!("{field}.{name}"), "is missing", None);
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Value, field: &str) {
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| items.len() as u64 > *most) {
            self.problem(node.line, field, format!("has {} entries; the most is {most}", items.len()), None);
        }
        if let Some(least) = schema["minItems"].as_u64().filter(|least| (items.len() as u64) < *least) {
            self.problem(node.line, field, format!("has {} entries; the least is {least}", items.len()), None);
        }
        for (index, item) in items.iter().enumerate() {
            self.value(item, &schema["items"], &format!("{field}[{index}]"));
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, field: &str) {
        if let Some(allowed) = schema["enum"].as_array() {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                let reason = format!("{text:?} is none of {}", allowed.join(", "));
                self.problem(node.line, field, reason, did_you_mean(text, allowed));
            }
        }
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.problem(node.line, field, format!("has {length} characters; the most is {most}"), None);
        }
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.problem(node.line, field, "is empty", None);
        }
    }
}

fn kind(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "nothing",
        Tree::Bool(_) => "true or false",
        Tree::Number(_) => "a number",
        Tree::Text(_) => "text",
        Tree::List(_) => "a list",
        Tree::Map(_) => "a map",
    }
}
