//! The steps of `install-linux.target`. Each can be repeated: it finds out what is done already and does the rest.

mod bootloader;
mod config_drive;
mod first_boot;
mod fstab;
mod image;
mod partition;
mod registry;
mod stamp;
mod target;

use host::Host;
use recipe::Recipe;
use recipe::callback::{Callback, ProgressEvent};

pub use image::{ImageSource, Layer, SourceError};
pub use registry::Registry;

use crate::arguments::Step;
use crate::failure::{Failure, code};
use crate::report::progress::Progress;
use crate::workspace::{Paths, Workspace};

/// What every step needs.
pub struct Context<'a> {
    /// Commands and mounts.
    pub host: &'a dyn Host,
    /// Where everything is.
    pub paths: &'a Paths,
    /// The files that dispatch left.
    pub workspace: Workspace,
    /// The job.
    pub callback: Callback,
    /// What is to be done.
    pub recipe: Recipe,
    /// Where step reports go.
    pub progress: Progress,
}

impl<'a> Context<'a> {
    /// Reads what dispatch left.
    pub fn load(host: &'a dyn Host, paths: &'a Paths) -> Result<Self, Failure> {
        let workspace = Workspace::new(&paths.run);
        let callback = workspace
            .callback()?
            .ok_or_else(|| Failure::new(code::STATE_UNWRITABLE, "the dispatcher has left no callback.json"))?;
        let recipe = workspace.recipe()?;
        let progress = Progress::start(&callback);
        Ok(Self { host, paths, workspace, callback, recipe, progress })
    }

    /// The firmware that this system was booted by.
    fn is_uefi(&self) -> bool {
        self.paths.root.join("sys/firmware/efi").exists()
    }
}

/// Runs a step, tells the controller when it begins and ends, and keeps a failure for the terminal report.
pub fn run(host: &dyn Host, paths: &Paths, step: Step) -> Result<(), Failure> {
    let outcome = Context::load(host, paths).and_then(|context| {
        context.progress.event(step.unit(), ProgressEvent::Started, None);
        let outcome = match step {
            Step::Partition => partition::run(&context),
            Step::ImageLinux => pull(&context),
            Step::BootloaderLinux => bootloader::run(&context),
            Step::ConfigDrive => config_drive::run(&context),
        };
        let (event, message) = match &outcome {
            Ok(message) => (ProgressEvent::Finished, message.clone()),
            Err(failure) => (ProgressEvent::Failed, failure.message.clone()),
        };
        context.progress.event(step.unit(), event, Some(message));
        context.progress.finish();
        outcome
    });
    match outcome {
        Ok(message) => {
            tracing::info!(unit = step.unit(), message, "step finished");
            Ok(())
        }
        Err(failure) => {
            tracing::error!(unit = step.unit(), code = failure.code, error = %failure, "step failed");
            Workspace::new(&paths.run).keep_failure(step.unit(), &failure)?;
            Err(failure)
        }
    }
}

fn pull(context: &Context<'_>) -> Result<String, Failure> {
    let artifact = context.callback.artifact.as_ref();
    let artifact = artifact.ok_or_else(|| Failure::new(code::ARTIFACT_MISSING, "callback.json names no artifact"))?;
    image::run(context, artifact, &Registry::new(artifact)?)
}
