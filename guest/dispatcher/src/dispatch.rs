//! From the task medium to the target that the recipe names.

use std::path::Path;
use std::time::Duration;

use cairn_core::Clock;
use host::{Command, Host};
use recipe::{Recipe, TaskTarget};
use serde_json::Value;

use crate::arguments::Dispatch;
use crate::environment::environment_file;
use crate::failure::{Failure, code};
use crate::medium::{self, Medium};
use crate::workspace::{Paths, Workflow, Workspace, recipe_invalid};
use crate::{network, serial};

/// The unit that dispatch runs in.
pub const UNIT: &str = "provision-dispatcher.service";

/// Files of the medium that are handed on as they are.
const HANDED_ON: [&str; 3] = ["user-data", "unattend.xml", "ks.cfg"];

/// Exit status of the dispatcher for a failure. 10 to 18 and 20 are those of the original dispatcher; 19 is the
/// network, which that one did not look after.
pub fn exit_code(failure: &Failure) -> u8 {
    match failure.code.as_str() {
        code::MEDIUM_MISSING | code::MEDIUM_AMBIGUOUS => 10,
        code::MEDIUM_MOUNT => 11,
        code::SCHEMA_UNUSABLE => 12,
        code::RECIPE_UNREADABLE | code::MEDIUM_UNREADABLE => 13,
        code::RECIPE_INVALID | code::TARGET_UNSUPPORTED => 14,
        code::STATE_UNWRITABLE => 15,
        code::START_FAILED => 16,
        code::NOT_PRIVILEGED => 17,
        code::SERIAL_UNKNOWN => 18,
        code::NETWORK_INVALID | code::NETWORK_NO_INTERFACE | code::NETWORK_NO_LINK | code::NETWORK_NO_ADDRESS => 19,
        _ => 20,
    }
}

/// Finds the medium, gets on the network, checks the recipe, fills the workspace and starts the target. A failure is
/// also kept in the workspace, for the report.
pub fn run(
    host: &dyn Host,
    paths: &Paths,
    options: &Dispatch,
    serial_from_environment: Option<&str>,
    clock: &dyn Clock,
) -> Result<TaskTarget, Failure> {
    let started_at = clock.now().to_string();
    let workspace = Workspace::new(&paths.run);
    workspace.create()?;
    let outcome = prepare(host, paths, options, &workspace, serial_from_environment, started_at)
        .and_then(|target| start(host, options, target));
    if let Err(failure) = &outcome {
        // What failed first is what is told; that it could not be kept as well would say less.
        let _ = workspace.keep_failure(UNIT, failure);
    }
    outcome
}

fn prepare(
    host: &dyn Host,
    paths: &Paths,
    options: &Dispatch,
    workspace: &Workspace,
    serial_from_environment: Option<&str>,
    started_at: String,
) -> Result<TaskTarget, Failure> {
    let wait = Duration::from_secs(options.udev_wait_seconds);
    let settle = Command::new("udevadm").arg("settle").arg(format!("--timeout={}", wait.as_secs()));
    if let Err(error) = host.run(&settle.timeout(wait + Duration::from_secs(5))) {
        tracing::warn!(error = %error, "udev did not settle");
    }
    let medium = medium::mount(host, paths, &options.task_iso_device, wait, options.poll_interval)?;
    let outcome = read_medium(host, paths, options, workspace, serial_from_environment, started_at);
    release(host, paths, medium);
    outcome
}

/// The medium is not needed any more; what cannot be unmounted is only a drive that stays locked until power-off.
fn release(host: &dyn Host, paths: &Paths, medium: Medium) {
    if let Err(failure) = medium.release(host, paths) {
        tracing::warn!(error = %failure, "the task medium stays mounted");
    }
}

fn read_medium(
    host: &dyn Host,
    paths: &Paths,
    options: &Dispatch,
    workspace: &Workspace,
    serial_from_environment: Option<&str>,
    started_at: String,
) -> Result<TaskTarget, Failure> {
    // First of all, so that every later failure can be reported.
    let callback = required(&paths.task, "callback.json")?;
    workspace.write("callback.json", &callback)?;
    let callback = workspace.callback()?;
    let network = optional(&paths.task, "network.json")?;
    if let Some(contents) = &network {
        workspace.write("network.json", contents)?;
    }
    if !options.no_network {
        let network = workspace.network().map_err(|failure| Failure::new(code::NETWORK_INVALID, failure.message))?;
        let limit = Duration::from_secs(options.network_wait_seconds);
        network::bring_up(host, &paths.root, network.as_ref(), limit, options.poll_interval)?;
    }
    let serial = serial::serial(host, &paths.root, options.serial_source, serial_from_environment)?;
    if let Some(callback) = &callback
        && callback.server_serial != serial
    {
        tracing::warn!(job = %callback.server_serial, machine = %serial, "the machine gives itself another serial number");
    }
    let (document, recipe, schema_id) = checked_recipe(&paths.task, options)?;
    let target = allowed_target(&recipe, options)?;
    let workflow = Workflow { task_target: target.to_string(), schema_id, started_at, serial };
    fill(&paths.task, workspace, &document, &recipe, &workflow)?;
    Ok(target)
}

/// The recipe, checked against the schema of the medium and then for what a schema cannot say.
fn checked_recipe(medium: &Path, options: &Dispatch) -> Result<(Value, Recipe, Option<String>), Failure> {
    let schema = from_file_or_medium(options.schema_path.as_deref(), medium, "recipe.schema.json")
        .map_err(|failure| Failure::new(code::SCHEMA_UNUSABLE, failure.message))?;
    let schema = String::from_utf8(schema).map_err(Failure::of(code::SCHEMA_UNUSABLE))?;
    let contents = from_file_or_medium(options.recipe_path.as_deref(), medium, "recipe.json")?;
    // The parser's message could repeat a secret: only the place is told.
    let document: Value = serde_json::from_slice(&contents).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Failure::new(code::RECIPE_UNREADABLE, format!("recipe.json is not JSON at {place}"))
    })?;
    let violations = recipe::validate_against(&schema, &document).map_err(Failure::of(code::SCHEMA_UNUSABLE))?;
    if !violations.is_empty() {
        return Err(recipe_invalid(&violations));
    }
    let recipe = recipe::parse(&document).map_err(|violations| recipe_invalid(&violations))?;
    Ok((document, recipe, recipe::schema_id(&schema)))
}

/// Only targets that this system carries are started, whatever a recipe says.
fn allowed_target(recipe: &Recipe, options: &Dispatch) -> Result<TaskTarget, Failure> {
    let target = options.target_override.clone().map_or_else(|| recipe.task_target.clone(), TaskTarget::from);
    if target.can_run() {
        return Ok(target);
    }
    Err(Failure::new(code::TARGET_UNSUPPORTED, format!("{target} cannot be carried out by this maintenance system")))
}

/// Writes what the steps read.
fn fill(
    medium: &Path,
    workspace: &Workspace,
    document: &Value,
    recipe: &Recipe,
    workflow: &Workflow,
) -> Result<(), Failure> {
    workspace.write_json("recipe.json", document)?;
    workspace.write_json("layout.json", &recipe.partition_layout)?;
    workspace.write("recipe.env", environment_file(recipe, workflow).as_bytes())?;
    let inline = [&recipe.user_data, &recipe.unattend_xml, &recipe.ks_cfg];
    for (name, payload) in HANDED_ON.into_iter().zip(inline) {
        let own = optional(medium, name)?;
        if let Some(contents) = own.or_else(|| payload.as_ref().map(|text| text.as_str().as_bytes().to_vec())) {
            workspace.write(name, &contents)?;
        }
    }
    let build = format!("dispatcher {}\nschema {}\n", env!("CARGO_PKG_VERSION"), recipe::SCHEMA_ID);
    workspace.write("build-info.txt", build.as_bytes())?;
    workspace.write_json("workflow.json", workflow)
}

fn start(host: &dyn Host, options: &Dispatch, target: TaskTarget) -> Result<TaskTarget, Failure> {
    if !options.no_start {
        let command = Command::new("systemctl").args(["start", "--no-block"]).arg(target.as_str());
        host.run(&command).map_err(Failure::of(code::START_FAILED))?;
    }
    Ok(target)
}

fn from_file_or_medium(file: Option<&Path>, medium: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = file else { return required(medium, name) };
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

fn required(medium: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = medium.join(name);
    std::fs::read(&path).map_err(|error| unreadable(&path, &error))
}

fn optional(medium: &Path, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let path = medium.join(name);
    match std::fs::read(&path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(code::MEDIUM_UNREADABLE, format!("cannot read {}: {error}", path.display()))
}
