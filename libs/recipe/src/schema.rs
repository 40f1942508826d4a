//! The JSON Schema of a recipe, and what is wrong with a document that does not follow one.

use std::sync::LazyLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde::Serialize;
use serde_json::Value;

/// The schema (draft-07) that this version writes onto task media.
pub const SCHEMA: &str = include_str!("recipe.schema.json");

/// `$id` of [`SCHEMA`].
pub const SCHEMA_ID: &str = "https://shoal.dev/provisioner/recipe.schema.json";

/// Fields whose contents may be secret: no message repeats them.
const SECRET_FIELDS: [&str; 6] = ["/user_data", "/unattend_xml", "/ks_cfg", "/ks.cfg", "/env", "/metadata"];

/// The longest value that a message repeats, in bytes.
const SHOWN_VALUE_LIMIT: usize = 80;

/// One thing that is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer, for example `/partition_layout/0/size`.
    pub path: String,
    /// The same for people: `partition_layout[0].size`; empty for the whole document.
    pub field: String,
    /// Stable code: `unknown_key`, `required`, `type`, `pattern`, `unknown_value`, `too_large`, `too_small`,
    /// `invalid`, and those that [`crate::parse`] adds.
    pub code: &'static str,
    /// One sentence; never repeats what may be secret.
    pub message: String,
}

/// The schema itself cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON.
    #[error("the recipe schema is not JSON")]
    Json(#[source] serde_json::Error),
    /// JSON, but no schema.
    #[error("the recipe schema does not compile: {0}")]
    Compile(String),
}

/// What is wrong with `document` by the schema in `schema_text`; nothing when it is valid. The schema cannot pull
/// others in.
pub fn validate_against(schema_text: &str, document: &Value) -> Result<Vec<Violation>, SchemaError> {
    let schema: Value = serde_json::from_str(schema_text).map_err(SchemaError::Json)?;
    let validator = compile(&schema)?;
    Ok(violations(&validator, &schema, document))
}

/// `$id` of a schema text, when it has one.
pub fn schema_id(schema_text: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(schema_text).ok()?;
    Some(schema.get("$id")?.as_str()?.to_owned())
}

/// What is wrong by [`SCHEMA`].
pub(crate) fn validate(document: &Value) -> Vec<Violation> {
    static OWN: LazyLock<Option<(Value, Validator)>> = LazyLock::new(|| {
        let schema = serde_json::from_str(SCHEMA).ok()?;
        let validator = compile(&schema).ok()?;
        Some((schema, validator))
    });
    match &*OWN {
        Some((schema, validator)) => violations(validator, schema, document),
        // The tests compile the schema, so no build that passed them comes here.
        None => vec![Violation::new("", "invalid", "the built-in schema does not compile".to_owned())],
    }
}

fn compile(schema: &Value) -> Result<Validator, SchemaError> {
    if !schema.is_object() {
        return Err(SchemaError::Compile("it is not an object".to_owned()));
    }
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft7).offline();
    options.build(schema).map_err(|error| SchemaError::Compile(error.to_string()))
}

fn violations(validator: &Validator, schema: &Value, document: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    for error in validator.iter_errors(document) {
        describe(&error, schema, &mut found);
    }
    found.sort_by(|one, other| (&one.path, one.code).cmp(&(&other.path, other.code)));
    found.dedup();
    found
}

/// Turns one error of the validator into violations in our words.
fn describe(error: &ValidationError<'_>, schema: &Value, found: &mut Vec<Violation>) {
    let path = error.instance_path().as_str().to_owned();
    let mut add = |path: &str, code, message| found.push(Violation::new(path, code, message));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = known_keys(schema, error.schema_path().as_str());
            for key in unexpected {
                let message = match nearest(key, &known) {
                    Some(near) => format!("unknown key {key:?}; did you mean {near:?}?"),
                    None => format!("unknown key {key:?}"),
                };
                add(&child(&path, key), "unknown_key", message);
            }
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            add(&child(&path, key), "required", format!("{key:?} is missing"));
        }
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(set) => set.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or "),
            };
            add(&path, "type", format!("{expected} was expected, not {}", type_name(error.instance())));
        }
        ValidationErrorKind::Pattern { pattern } => {
            add(&path, "pattern", format!("{} does not match {pattern}", shown(&path, error.instance())));
        }
        ValidationErrorKind::Enum { options } => {
            add(&path, "unknown_value", format!("{} is none of {options}", shown(&path, error.instance())));
        }
        ValidationErrorKind::PropertyNames { error } => {
            let name = error.instance().as_str().unwrap_or_default().to_owned();
            add(&child(&path, &name), "pattern", format!("{name:?} cannot be a name here"));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            describe_choice(error, context, schema, found);
        }
        kind => match limit(kind) {
            Some((code, message)) => add(&path, code, message),
            // Its text repeats neither a value nor the whole document.
            None => add(&path, "invalid", error.masked().to_string()),
        },
    }
}

/// Code and message of a value that is too large or too small.
fn limit(kind: &ValidationErrorKind) -> Option<(&'static str, String)> {
    Some(match kind {
        ValidationErrorKind::MaxLength { limit } => ("too_large", format!("more than {limit} characters")),
        ValidationErrorKind::MaxItems { limit } => ("too_large", format!("more than {limit} entries")),
        ValidationErrorKind::MaxProperties { limit } => ("too_large", format!("more than {limit} keys")),
        ValidationErrorKind::Maximum { limit } => ("too_large", format!("more than {limit}")),
        ValidationErrorKind::MinLength { limit } => ("too_small", format!("fewer than {limit} characters")),
        ValidationErrorKind::MinItems { limit } => ("too_small", format!("fewer than {limit} entries")),
        ValidationErrorKind::MinProperties { limit } => ("too_small", format!("fewer than {limit} keys")),
        ValidationErrorKind::Minimum { limit } => ("too_small", format!("less than {limit}")),
        _ => return None,
    })
}

/// Describes by the choice that was most likely meant: the first one of the right type.
fn describe_choice(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    schema: &Value,
    found: &mut Vec<Violation>,
) {
    let here = error.instance_path().as_str();
    let wrong_type = |one: &ValidationError<'_>| {
        matches!(one.kind(), ValidationErrorKind::Type { .. }) && one.instance_path().as_str() == here
    };
    match context.iter().find(|errors| !errors.iter().any(wrong_type)) {
        Some(errors) => errors.iter().for_each(|error| describe(error, schema, found)),
        None => {
            let message = format!("{} cannot stand here", type_name(error.instance()));
            found.push(Violation::new(here, "type", message));
        }
    }
}

impl Violation {
    /// A violation at a JSON pointer.
    pub(crate) fn new(path: &str, code: &'static str, message: String) -> Self {
        Self { path: path.to_owned(), field: field(path), code, message }
    }
}

/// A JSON pointer as people write fields.
fn field(path: &str) -> String {
    let mut field = String::new();
    for part in path.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            field.push_str(&format!("[{part}]"));
        } else {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(&part);
        }
    }
    field
}

fn child(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The keys that the schema knows beside the `additionalProperties` at `schema_path`.
fn known_keys(schema: &Value, schema_path: &str) -> Vec<String> {
    let parent = schema_path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let properties = schema.pointer(parent).and_then(|parent| parent.get("properties")).and_then(Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// The known key that `key` was likely meant to be: at most a third of its letters differ.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let distance = |candidate: &String| strsim::osa_distance(&key.to_lowercase(), candidate);
    let near = known.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(near) <= (key.chars().count() / 3).max(1)).then(|| near.clone())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as a message may show it.
fn shown(path: &str, value: &Value) -> String {
    let text = value.to_string();
    if SECRET_FIELDS.iter().any(|secret| path.starts_with(secret)) || text.len() > SHOWN_VALUE_LIMIT {
        return "the value".to_owned();
    }
    text
}
