//! `cairn metal …`: the commands, and the client that carries them to a controller.

mod artifact;
mod image;
mod job;
mod registry;
mod server;
mod watch;

use clap::Subcommand;
use cli::{Daemon, Endpoint, Output};
use web::Problem;

/// Commands of the metal layer.
#[derive(Debug, Subcommand)]
pub enum MetalCommand {
    /// Servers: a serial number, a BMC and what belongs to them
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// Jobs: one run of a recipe on one server
    #[command(subcommand)]
    Job(job::JobCommand),
    /// The maintenance image that machines boot to be installed
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Artifacts in the controller's registry: what is installed
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
    /// Registries elsewhere: who pulls there, and who signs their certificates
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
}

/// Carries a command out. `data_dir` is where `image build` puts its result when nothing else is said.
pub async fn run(
    command: MetalCommand,
    endpoint: &Endpoint,
    data_dir: &std::path::Path,
    output: &Output,
) -> Result<(), Problem> {
    match command {
        MetalCommand::Server(command) => server::run(command, &Daemon::new(endpoint)?, output).await,
        MetalCommand::Job(command) => job::run(command, &Daemon::new(endpoint)?, output).await,
        MetalCommand::Artifact(command) => artifact::run(command, &Daemon::new(endpoint)?, output).await,
        MetalCommand::Registry(command) => registry::run(command, &Daemon::new(endpoint)?, output).await,
        MetalCommand::Image(command) => image::run(command, data_dir, output).await,
    }
}
