//! Files into objects.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use host::FileError;
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::node::{Node, Tree};
use super::schema::{Check, did_you_mean};
use super::secret::{self, EXPOSED};
use super::{DEFAULT_NAMESPACE, Entry, Error, Inventory, Place, Problem, links};
use crate::resources::check::{self, Finding, LocalRepositories, Weight};
use crate::resources::{API_VERSION, Machine, NixosConfiguration, definitions};

const KINDS: [&str; 3] = ["Machine", "NixosConfiguration", "Secret"];

pub(super) fn inventory(path: &Path) -> Result<Inventory, Error> {
    let mut reader = Reader::new()?;
    for file in files(path)? {
        reader.file(&file)?;
    }
    let Reader { mut inventory, mut problems, .. } = reader;
    links::check(&inventory, &mut problems);
    if problems.is_empty() {
        return Ok(inventory);
    }
    problems.append(&mut inventory.warnings);
    Err(Error::Problems(problems))
}

/// The file itself, or those of a directory in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let metadata = std::fs::metadata(path).map_err(FileError::at("read", path))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(FileError::at("list", path))? {
        let file = entry.map_err(FileError::at("list", path))?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ours = file.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if ours && !hidden && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(files) }
}

struct Reader {
    machine: Rc<Value>,
    configuration: Rc<Value>,
    inventory: Inventory,
    problems: Vec<Problem>,
    /// Kind, namespace and name of what was read.
    seen: BTreeMap<(&'static str, String, String), Place>,
}

/// An object that was taken out of a file: what it is called, and where it stands.
struct Found<'a> {
    node: &'a Node,
    file: &'a Path,
    title: String,
}

impl Found<'_> {
    fn problem(&self, line: u64, field: &str, reason: String, hint: Option<String>) -> Problem {
        let place = Place { file: self.file.to_owned(), line };
        Problem { place, object: self.title.clone(), field: field.to_owned(), reason, hint }
    }

    fn finding(&self, finding: Finding) -> Problem {
        self.problem(self.node.line_of(&finding.field), &finding.field, finding.reason, finding.hint)
    }
}

impl Reader {
    fn new() -> Result<Self, Error> {
        let [machine, configuration] = definitions().map_err(Error::Schemas)?.map(|(_, mut definition)| {
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].take()
        });
        let (machine, configuration) = (Rc::new(machine), Rc::new(configuration));
        Ok(Self {
            machine,
            configuration,
            inventory: Inventory::default(),
            problems: Vec::new(),
            seen: BTreeMap::new(),
        })
    }

    fn file(&mut self, path: &Path) -> Result<(), Error> {
        let mut file = File::open(path).map_err(FileError::at("read", path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(FileError::at("read", path))?;
        let exposed = secret::exposed(&file).map_err(FileError::at("read", path))?;
        // A fleet is larger than what a service would take from strangers.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_documents: 200_000, max_nodes: 20_000_000, max_events: 50_000_000 },
            with_snippet: false,
        };
        let documents: Vec<Node> = match serde_saphyr::from_multiple_with_options(&text, options) {
            Ok(documents) => documents,
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line());
                let place = Place { file: path.to_owned(), line };
                let (object, field) = (String::new(), String::new());
                self.problems.push(Problem { place, object, field, reason: error.to_string(), hint: None });
                return Ok(());
            }
        };
        for document in &documents {
            self.object(document, path, exposed);
        }
        Ok(())
    }

    fn object(&mut self, node: &Node, file: &Path, exposed: bool) {
        let text = |field: &str| node.get(field).and_then(Node::text).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let name = node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::text);
        let title = [kind, name.unwrap_or_default()].join(" ").trim().to_owned();
        let found = Found { node, file, title };
        if kind.ends_with("List") && node.get("items").is_some() {
            for item in node.get("items").map_or(&[][..], Node::items) {
                self.object(item, file, exposed);
            }
            return;
        }
        if !matches!(node.tree, Tree::Map(_)) {
            return self.problems.push(found.problem(node.line, "", "is not an object".to_owned(), None));
        }
        let wanted = if kind == "Secret" { "v1" } else { API_VERSION };
        if !KINDS.contains(&kind) {
            let hint = did_you_mean(kind, KINDS).unwrap_or_else(|| format!("one of {}", KINDS.join(", ")));
            let reason = if kind.is_empty() { "is missing".to_owned() } else { format!("{kind:?} is not known here") };
            self.problems.push(found.problem(node.line_of("kind"), "kind", reason, Some(hint)));
        } else if version != wanted {
            let reason = format!("is {version:?}, not {wanted}");
            self.problems.push(found.problem(node.line_of("apiVersion"), "apiVersion", reason, None));
        } else {
            match kind {
                "Machine" => self.machine(&found),
                "NixosConfiguration" => self.configuration(&found),
                _ => self.secret(&found, exposed),
            }
        }
    }

    fn machine(&mut self, found: &Found<'_>) {
        let Some(object) = self.typed::<Machine>(found, &Rc::clone(&self.machine)) else { return };
        self.findings(found, check::machine(&object));
        if let Some(place) = self.place(found, "Machine", &object.metadata) {
            self.inventory.machines.push(Entry { object, place });
        }
    }

    fn configuration(&mut self, found: &Found<'_>) {
        let Some(object) = self.typed::<NixosConfiguration>(found, &Rc::clone(&self.configuration)) else { return };
        self.findings(found, check::configuration(&object, LocalRepositories::Allowed));
        if let Some(place) = self.place(found, "NixosConfiguration", &object.metadata) {
            self.inventory.configurations.push(Entry { object, place });
        }
    }

    fn secret(&mut self, found: &Found<'_>, exposed: bool) {
        let at = |line, field: &str, reason, hint| found.problem(line, field, reason, hint);
        let before = self.problems.len();
        let mut check = Check { problems: &mut self.problems, at: &at };
        check.metadata(found.node);
        let metadata = found.node.get("metadata").map_or(Value::Null, Node::to_json);
        let metadata: ObjectMeta = serde_json::from_value(with_namespace(metadata)).unwrap_or_default();
        let directory = found.file.parent().unwrap_or(Path::new("."));
        let secret = secret::secret(found.node, metadata, directory, &mut check);
        if exposed && secret::has_values(found.node) {
            let (reason, hint) = EXPOSED;
            let hint = format!("{hint} {}", found.file.display());
            self.problems.push(found.problem(found.node.line, "", format!("the file {reason}"), Some(hint)));
        }
        if self.problems.len() == before
            && let Some(place) = self.place(found, "Secret", &secret.metadata)
        {
            self.inventory.secrets.push(Entry { object: secret, place });
        }
    }

    /// The typed object, if it is as its schema says.
    fn typed<T: DeserializeOwned>(&mut self, found: &Found<'_>, schema: &Value) -> Option<T> {
        let before = self.problems.len();
        let at = |line, field: &str, reason, hint| found.problem(line, field, reason, hint);
        let mut check = Check { problems: &mut self.problems, at: &at };
        check.names(found.node, "", &["apiVersion", "kind", "metadata", "spec", "status"]);
        check.metadata(found.node);
        match found.node.get("spec") {
            Some(spec) => check.value(spec, &schema["spec"], "spec"),
            None => check.problems.push(at(found.node.line, "spec", "is missing".to_owned(), None)),
        }
        if let Some(status) = found.node.get("status") {
            check.value(status, &schema["status"], "status");
        }
        if self.problems.len() > before {
            return None;
        }
        let mut object = found.node.to_json();
        object["metadata"] = with_namespace(object["metadata"].take());
        match serde_path_to_error::deserialize(object) {
            Ok(object) => Some(object),
            Err(error) => {
                let field = error.path().to_string();
                let line = found.node.line_of(&field);
                self.problems.push(found.problem(line, &field, error.into_inner().to_string(), None));
                None
            }
        }
    }

    /// Where an object is, unless there is one of the same name already.
    fn place(&mut self, found: &Found<'_>, kind: &'static str, metadata: &ObjectMeta) -> Option<Place> {
        let place = Place { file: found.file.to_owned(), line: found.node.line };
        let name = (kind, metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        if let Some(other) = self.seen.get(&name) {
            let reason = format!("is there twice; the other one is at {other}");
            self.problems.push(found.problem(place.line, "", reason, None));
            return None;
        }
        self.seen.insert(name, place.clone());
        Some(place)
    }

    fn findings(&mut self, found: &Found<'_>, findings: Vec<Finding>) {
        for finding in findings {
            let list = match finding.weight {
                Weight::Error => &mut self.problems,
                Weight::Warning => &mut self.inventory.warnings,
            };
            list.push(found.finding(finding));
        }
    }
}

fn with_namespace(mut metadata: Value) -> Value {
    if metadata["namespace"].is_null() && !metadata.is_null() {
        metadata["namespace"] = json!(DEFAULT_NAMESPACE);
    }
    metadata
}
