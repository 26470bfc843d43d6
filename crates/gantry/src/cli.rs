//! The command line.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, ServerArgs};
use crate::server;

/// A whole cloud-native platform in one binary
#[derive(Parser)]
#[command(name = "gantry", version, propagate_version = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server in the foreground
    #[command(args_override_self = true)]
    Server(ServerArgs),
}

/// Runs the command that the arguments name.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = config::with_file(std::env::args_os().collect())?;
    let cli = Cli::parse_from(arguments);
    match cli.command {
        Command::Server(args) => {
            log_to_stderr();
            server::run(&args)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("GANTRY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true).init();
}
