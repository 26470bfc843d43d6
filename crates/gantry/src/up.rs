//! `gantry up`: a cluster in the background.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;

use crate::config::{ConfigError, ServerArgs};
use crate::daemon::{self, READY};
use crate::kubeconfig;

/// A cluster that could not be brought up; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot write to the data directory {path}: {source}; choose another one with --data-dir")]
    Data { path: PathBuf, source: std::io::Error },
    #[error("making namespaces, mounts and cgroups takes root; run it again with sudo")]
    Root,
    #[error("cannot start the server: {0}")]
    Spawn(std::io::Error),
    #[error("{0}")]
    Server(String),
    #[error("the server ended before it was ready; see {0}")]
    Ended(PathBuf),
}

/// Settings of `up` besides the server's.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Add the cluster to ~/.kube/config without asking
    #[arg(long, env = "GANTRY_MERGE_KUBECONFIG")]
    pub merge_kubeconfig: bool,
}

/// Starts a server in the background and returns when its node is Ready. A cluster that is up already is left as
/// it is.
pub fn run(args: &UpArgs) -> Result<(), UpError> {
    let server = &args.server;
    server.check()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(UpError::Root);
    }
    if let Some(running) = daemon::running(server) {
        println!("The cluster is up already (process {}).", running.pid);
        summary(server);
        return Ok(());
    }
    let begun = Instant::now();
    start(server)?;
    println!("The cluster is Ready after {:.1} s.", begun.elapsed().as_secs_f64());
    offer_merge(args);
    summary(server);
    Ok(())
}

fn start(args: &ServerArgs) -> Result<(), UpError> {
    let log_path = args.log_file();
    let log = std::fs::create_dir_all(&args.data_dir)
        .and_then(|()| OpenOptions::new().create(true).append(true).open(&log_path))
        .map_err(|source| UpError::Data { path: args.data_dir.clone(), source })?;
    let program = std::env::current_exe().map_err(UpError::Spawn)?;
    // The same settings, whether they came from flags, environment or file: the subcommand alone differs.
    let flags = std::env::args_os().skip(2).filter(|a| a != "--merge-kubeconfig");
    let mut child = Command::new(program)
        .arg("server")
        .arg("--detach")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(UpError::Spawn)?;
    // The server says what it is doing on its standard output, and at last that it is ready.
    let Some(output) = child.stdout.take() else { return Err(UpError::Ended(log_path)) };
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        match line.strip_prefix("error: ") {
            _ if line == READY => return Ok(()),
            Some(error) => {
                // It says so when it has put everything away, and ends.
                let _ = child.wait();
                return Err(UpError::Server(error.to_owned()));
            }
            None => println!("  {line}"),
        }
    }
    Err(UpError::Ended(log_path))
}

/// The file `kubectl` reads by default.
fn default_kubeconfig() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"))
}

fn offer_merge(args: &UpArgs) {
    let Some(target) = default_kubeconfig() else { return };
    let agreed = args.merge_kubeconfig || {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        terminal && ask(&format!("Add this cluster to {}? [y/N] ", target.display()))
    };
    if !agreed {
        return;
    }
    match kubeconfig::merge_file(&target, &args.server.kubeconfig()) {
        Ok(()) => println!("Added the cluster to {}.", target.display()),
        Err(error) => eprintln!("gantry: cannot add the cluster to {}: {error}", target.display()),
    }
}

fn ask(question: &str) -> bool {
    print!("{question}");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn summary(args: &ServerArgs) {
    let kubeconfig = args.kubeconfig();
    println!("  API         https://127.0.0.1:{}", args.https_port);
    println!("  kubeconfig  {}", kubeconfig.display());
    println!("  log         {}", args.log_file().display());
    println!("Next: export KUBECONFIG={}; kubectl get pods -A", kubeconfig.display());
}
