//! The command line.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::agent::{self, AgentArgs};
use crate::backup::{self, FileArgs, MigrateArgs, SecretsCommand};
use crate::config::{self, ServerArgs};
use crate::cri::{self, CriArgs};
use crate::demo::{self, DemoArgs};
use crate::images::{self, BuildArgs, ImageCommand};
use crate::shutdown::{self, NodeCommand};
use crate::up::{self, UpArgs};
use crate::{check, daemon, down, server, status, usage};

/// A whole cloud-native platform in one binary
#[derive(Parser)]
#[command(name = "gantry", version, propagate_version = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster in the background and wait until it is Ready
    #[command(args_override_self = true)]
    Up(Box<UpArgs>),
    /// Stop the cluster, its pods, networks, mounts and cgroups
    #[command(args_override_self = true)]
    Down {
        #[command(flatten)]
        server: Box<ServerArgs>,
        /// Delete the cluster's data, too
        #[arg(long)]
        purge: bool,
    },
    /// Show whether the cluster runs, and how it is
    #[command(args_override_self = true)]
    Status(Box<ServerArgs>),
    /// Run a small web program as a first Deployment, and show that its pods answer
    #[command(args_override_self = true)]
    Demo(Box<DemoArgs>),
    /// Run a server in the foreground
    #[command(args_override_self = true)]
    Server(Box<ForegroundArgs>),
    /// Run a node in the foreground, without an API of its own
    #[command(args_override_self = true)]
    Agent(Box<AgentArgs>),
    /// Serve the container runtime interface to another kubelet, and to crictl
    #[command(args_override_self = true)]
    Cri(CriArgs),
    /// Work with the node of this machine
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tell what this machine lacks, and the mend
    #[command(args_override_self = true)]
    Check(Box<ServerArgs>),
    /// Write the cluster's state to a file
    #[command(args_override_self = true)]
    Backup(Box<FileArgs>),
    /// Make the cluster's state what a file holds
    #[command(args_override_self = true)]
    Restore(Box<FileArgs>),
    /// Move the cluster's state into etcd, or back
    #[command(args_override_self = true)]
    Migrate(Box<MigrateArgs>),
    /// Work with encryption at rest
    #[command(subcommand)]
    SecretsEncrypt(SecretsCommand),
    /// Work with images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
}

#[derive(Debug, Args)]
struct ForegroundArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Leave the terminal's session
    #[arg(long, hide = true)]
    detach: bool,
}

/// Runs the command that the arguments name.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
    if let name @ ("docker" | "kubectl") = name.rsplit('/').next().unwrap_or_default() {
        return Err(format!("acting as {name} is not available in this version; use the real {name}").into());
    }
    let root = Cli::command();
    let cli = match Cli::try_parse_from(config::with_file(arguments.clone(), &root)?) {
        Ok(cli) => cli,
        Err(help) if usage::is_help(&help) => help.exit(),
        Err(fault) => {
            let (words, _) = usage::innermost(&root, &arguments);
            let words: Vec<_> = arguments[1..=words].iter().map(|w| w.to_string_lossy()).collect();
            let help = [&["gantry".into()][..], &words, &["--help".into()]].concat().join(" ");
            eprintln!("gantry: {}; see {help}", usage::sentence(&fault));
            return Ok(ExitCode::from(2));
        }
    };
    match cli.command {
        Command::Up(args) => up::run(&args)?,
        Command::Down { server, purge } => down::run(&server, purge)?,
        Command::Status(args) => return Ok(status::run(&args)),
        Command::Demo(args) => demo::run(&args)?,
        Command::Server(args) => return foreground(&args),
        Command::Agent(args) => {
            log_to_stderr();
            agent::run(&args)?;
        }
        Command::Cri(args) => {
            log_to_stderr();
            cri::run(&args)?;
        }
        Command::Node(command) => shutdown::run(&command)?,
        Command::Check(args) => return Ok(check::run(&args)),
        Command::Backup(args) => backup::backup(&args)?,
        Command::Restore(args) => backup::restore(&args)?,
        Command::Migrate(args) => backup::migrate(&args)?,
        Command::SecretsEncrypt(command) => backup::secrets(&command)?,
        Command::Image(command) => images::run(command)?,
        Command::Build(args) => images::build(*args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn foreground(args: &ForegroundArgs) -> Result<ExitCode, Box<dyn Error>> {
    log_to_stderr();
    if args.detach {
        // Whoever leads a session already stays where it is.
        let _ = nix::unistd::setsid();
    }
    match server::run(&args.server) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            daemon::tell(&format!("error: {error}"));
            Err(error.into())
        }
    }
}

fn log_to_stderr() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    // The kernel's refusals are answers that we act on: there is no such interface yet, or no more.
    let quiet = "info,nlink::netlink::connection=error";
    let filter = EnvFilter::try_from_env("GANTRY_LOG").unwrap_or_else(|_| EnvFilter::new(quiet));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
}
