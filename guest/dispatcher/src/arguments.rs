//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::workspace::Paths;

/// Installs an operating system as a recipe says.
#[derive(Debug, Parser)]
#[command(name = "provisioner", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do; without it, the task medium is found and its target started.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How the dispatcher goes about it.
    #[command(flatten)]
    pub dispatch: Dispatch,
    /// Least severe events that are logged.
    #[arg(long, global = true, default_value = "info", env = "PROVISIONER_LOG_LEVEL")]
    pub log_level: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Carries out one step of a target.
    Step {
        /// The step.
        #[command(subcommand)]
        step: Step,
    },
    /// Tells the controller how it ended and powers the machine off.
    Report(Report),
    /// In the installed system: tells the controller that it has booted.
    FirstBoot {
        /// Address and token.
        #[arg(long, default_value = "/etc/cairn/first-boot.json")]
        config: PathBuf,
    },
}

/// The steps of `install-linux.target`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Step {
    /// Wipes the disk, makes partitions and file systems.
    Partition,
    /// Unpacks the artifact onto the root file system.
    ImageLinux,
    /// Writes fstab and installs GRUB and the first-boot reporter.
    BootloaderLinux,
    /// Writes the NoCloud config drive.
    ConfigDrive,
}

impl Step {
    /// The systemd unit that runs the step.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Partition => "partition.service",
            Self::ImageLinux => "image-linux.service",
            Self::BootloaderLinux => "bootloader-linux.service",
            Self::ConfigDrive => "config-drive.service",
        }
    }
}

/// The terminal report.
#[derive(Debug, Args)]
pub struct Report {
    /// How it ended.
    #[command(subcommand)]
    pub ending: Ending,
    /// Leaves the machine on afterwards.
    #[arg(long, global = true)]
    pub no_poweroff: bool,
}

/// How it ended.
#[derive(Debug, Clone, Subcommand)]
pub enum Ending {
    /// Every step ended well.
    Success,
    /// A step failed.
    Failed {
        /// The systemd unit, for example `partition.service`.
        unit: String,
    },
}

/// Flags of the dispatcher.
#[derive(Debug, Clone, Args)]
pub struct Dispatch {
    /// Devices that may hold the task, comma-separated; without it, every device is looked at for a volume TASK_*.
    #[arg(long, value_delimiter = ',')]
    pub task_iso_device: Vec<PathBuf>,
    /// Where the task medium is mounted.
    #[arg(long, default_value = "/mnt/task")]
    pub task_mount_point: PathBuf,
    /// Where the recipe's parts are written.
    #[arg(long, default_value = "/run/provision")]
    pub env_dir: PathBuf,
    /// Recipe; without it, recipe.json of the medium.
    #[arg(long)]
    pub recipe_path: Option<PathBuf>,
    /// Schema; without it, recipe.schema.json of the medium.
    #[arg(long)]
    pub schema_path: Option<PathBuf>,
    /// Seconds to wait for the task medium.
    #[arg(long, default_value_t = 120)]
    pub udev_wait_seconds: u64,
    /// Seconds to wait for link and address.
    #[arg(long, default_value_t = 120)]
    pub network_wait_seconds: u64,
    /// How often to look again, for example 1s or 500ms.
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub poll_interval: std::time::Duration,
    /// Where the serial number comes from.
    #[arg(long, value_enum, default_value_t = SerialSource::Auto)]
    pub serial_source: SerialSource,
    /// Variable that holds the serial number.
    #[arg(long, default_value = "PROVISIONER_SERIAL")]
    pub serial_env_key: String,
    /// Leaves the network as it is.
    #[arg(long)]
    pub no_network: bool,
    /// Prepares everything and starts nothing.
    #[arg(long)]
    pub no_start: bool,
    /// Starts this target instead of the recipe's.
    #[arg(long)]
    pub target_override: Option<String>,
}

impl Dispatch {
    /// Where everything is, with the directories that the flags name.
    pub fn paths(&self) -> Paths {
        Paths { run: self.env_dir.clone(), task: self.task_mount_point.clone(), ..Paths::default() }
    }
}

/// Where the serial number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SerialSource {
    /// The variable, then DMI, then dmidecode, else `unknown`.
    Auto,
    /// `/sys/class/dmi/id/product_serial`.
    Dmi,
    /// `dmidecode -s system-serial-number`.
    Dmidecode,
    /// The variable.
    Env,
}

/// A duration in `s`, `ms` or `m`.
fn interval(text: &str) -> Result<std::time::Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    match unit {
        "ms" => Ok(std::time::Duration::from_millis(number)),
        "" | "s" => Ok(std::time::Duration::from_secs(number)),
        "m" => Ok(std::time::Duration::from_secs(number * 60)),
        _ => Err(format!("{unit:?} is none of ms, s, m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_contracts_calls_are_understood() {
        Arguments::command().debug_assert();
        let parse = |words: &[&str]| Arguments::try_parse_from([&["provisioner"], words].concat()).unwrap();
        let dispatch = parse(&[]).dispatch;
        assert!(dispatch.task_iso_device.is_empty());
        assert_eq!(dispatch.poll_interval.as_secs(), 1);
        assert_eq!(dispatch.env_dir, PathBuf::from("/run/provision"));
        let dispatch = parse(&["--task-iso-device=/dev/sr1,/dev/sr2", "--no-start", "--log-level", "debug"]).dispatch;
        assert_eq!(dispatch.task_iso_device.len(), 2);
        assert!(matches!(parse(&["step", "image-linux"]).command, Some(Command::Step { step: Step::ImageLinux })));
        let Some(Command::Report(report)) = parse(&["report", "failed", "partition.service", "--no-poweroff"]).command
        else {
            panic!("no report")
        };
        assert!(report.no_poweroff);
        assert!(matches!(report.ending, Ending::Failed { unit } if unit == "partition.service"));
        assert!(matches!(parse(&["first-boot"]).command, Some(Command::FirstBoot { .. })));
    }
}
