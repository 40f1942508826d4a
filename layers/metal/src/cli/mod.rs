//! `cairn metal …`: the commands, and the client that carries them to a controller.

mod artifact;
mod client;
mod image;
mod job;
mod output;
mod server;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use web::Problem;

pub use output::{Output, for_a_terminal};

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
}

/// Which controller is talked to, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Controller")]
pub struct Endpoint {
    /// Address of the controller
    #[arg(long, env = "CAIRN_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: url::Url,
    /// User name, where the controller asks for one
    #[arg(long, env = "CAIRN_USER", global = true)]
    user: Option<String>,
    /// File with the user's password; '-' reads it from standard input
    #[arg(long, env = "CAIRN_PASSWORD_FILE", value_name = "FILE", global = true)]
    user_password_file: Option<PathBuf>,
    /// File with the certificate authorities that the controller's certificate is checked against
    #[arg(long, env = "CAIRN_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
}

/// Carries a command out. `data_dir` is where `image build` puts its result when nothing else is said.
pub async fn run(
    command: MetalCommand,
    endpoint: &Endpoint,
    data_dir: &std::path::Path,
    output: &Output,
) -> Result<(), Problem> {
    match command {
        MetalCommand::Server(command) => server::run(command, &client::Client::new(endpoint)?, output).await,
        MetalCommand::Job(command) => job::run(command, &client::Client::new(endpoint)?, output).await,
        MetalCommand::Artifact(command) => artifact::run(command, &client::Client::new(endpoint)?, output).await,
        MetalCommand::Image(command) => image::run(command, data_dir, output).await,
    }
}
