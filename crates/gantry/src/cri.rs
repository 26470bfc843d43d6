//! `gantry cri`: our engine behind the Container Runtime Interface, for a kubelet that is not ours, and for `crictl`.

use std::path::PathBuf;
use std::sync::Arc;

use base::{Drain, SystemClock};
use clap::Args;
use cri_server::{CriConfig, CriError, CriService};
use image::ImageStore;
use ipnet::Ipv4Net;
use runtime::{Runtime, RuntimeConfig};
use tokio::net::UnixListener;

use crate::daemon::{READY, tell};
use crate::kubelet::handler;
use crate::systemd;

/// Settings of the runtime interface.
#[derive(Clone, Debug, Args)]
pub struct CriArgs {
    /// The socket to listen at
    #[arg(
        long,
        env = "GANTRY_CRI_LISTEN",
        value_name = "SOCKET",
        default_value = "unix:///run/gantry/cri.sock",
        value_parser = socket
    )]
    pub listen: PathBuf,
    /// Where images and containers are kept
    #[arg(long, env = "GANTRY_DATA_DIR", value_name = "DIR", default_value = "/var/lib/gantry")]
    pub data_dir: PathBuf,
    /// Where sockets and network namespaces are kept
    #[arg(long, env = "GANTRY_RUN_DIR", value_name = "DIR", default_value = "/run/gantry")]
    pub run_dir: PathBuf,
    /// Addresses of the sandboxes, until a kubelet says otherwise
    #[arg(long, env = "GANTRY_POD_CIDR", value_name = "CIDR", default_value = "10.42.0.0/24")]
    pub pod_cidr: Ipv4Net,
    /// The bridge that sandboxes are joined to
    #[arg(long, env = "GANTRY_BRIDGE", value_name = "NAME", default_value = "gantry0")]
    pub bridge: String,
    /// The parent of all cgroups that are made and that nobody else names a parent for
    #[arg(long, env = "GANTRY_CGROUP_PARENT", value_name = "PATH", default_value = "gantry")]
    pub cgroup_parent: String,
    /// An OCI runtime that RuntimeClasses may name as their handler: runc=/usr/sbin/runc; may be repeated
    #[arg(long, env = "GANTRY_RUNTIME_HANDLER", value_name = "NAME=PATH", value_delimiter = ',', value_parser = handler)]
    pub runtime_handler: Vec<(String, PathBuf)>,
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
    match path.is_absolute() {
        true => Ok(path),
        false => Err("give a unix socket by its absolute path, such as unix:///run/gantry/cri.sock".into()),
    }
}

/// A runtime interface that cannot start; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CriStartError {
    #[error("making namespaces, mounts and cgroups takes root; run it again with sudo")]
    Root,
    #[error(
        "a gantry {0} runs with this run directory, and would take its sandboxes for its own; give another --run-dir, --data-dir, --bridge and --cgroup-parent"
    )]
    Taken(String),
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot open the container runtime: {0}")]
    Runtime(#[from] runtime::Error),
    #[error("cannot open the image store: {0}")]
    Images(#[from] image::StoreError),
    #[error(transparent)]
    Serve(#[from] CriError),
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Serves until it is told to stop. Containers go on.
pub fn run(args: &CriArgs) -> Result<(), CriStartError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(CriStartError::Root);
    }
    let threads =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CriStartError::Threads)?;
    threads.block_on(serve(args))
}

async fn serve(args: &CriArgs) -> Result<(), CriStartError> {
    for folder in [&args.data_dir, &args.run_dir] {
        std::fs::create_dir_all(folder).map_err(|source| CriStartError::File {
            attempt: "create folder",
            path: folder.clone(),
            source,
        })?;
    }
    let pid_file = args.run_dir.join("server.pid");
    if let Some(other) = crate::daemon::command_of(&pid_file) {
        return Err(CriStartError::Taken(other));
    }
    // Before anything is made that would have to be taken away.
    let listener = cri_server::bind(&args.listen).await?;
    let written = std::fs::write(&pid_file, std::process::id().to_string());
    let attempt = "write";
    written.map_err(|source| CriStartError::File { attempt, path: pid_file.clone(), source })?;
    let drain = Drain::new();
    let outcome = start(args, listener, &drain).await;
    if outcome.is_ok() {
        tell(READY);
        systemd::ready(&drain);
        crate::server::stop_signal(None).await;
    }
    tracing::info!("stopping");
    systemd::stopping();
    drain.drain().await;
    let _ = std::fs::remove_file(&args.listen);
    let _ = std::fs::remove_file(&pid_file);
    outcome
}

async fn start(args: &CriArgs, listener: UnixListener, drain: &Drain) -> Result<(), CriStartError> {
    let runtime = Runtime::open(RuntimeConfig {
        data_dir: args.data_dir.clone(),
        run_dir: args.run_dir.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        shim: vec!["/proc/self/exe".into(), "shim".into()],
    });
    let (runtime, images) = (runtime.await?, ImageStore::open(&args.data_dir)?);
    let config = CriConfig {
        data_dir: args.data_dir.clone(),
        bridge: args.bridge.clone(),
        pod_cidr: args.pod_cidr,
        handlers: args.runtime_handler.iter().cloned().collect(),
    };
    let service = CriService::open(config, runtime, images, Arc::new(SystemClock), drain).await?;
    cri_server::serve(service, listener, drain);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_absolute_with_or_without_a_scheme() {
        assert_eq!(socket("unix:///run/x.sock"), Ok("/run/x.sock".into()));
        assert_eq!(socket("/run/x.sock"), Ok("/run/x.sock".into()));
        assert!(socket("x.sock").is_err() && socket("tcp://1.2.3.4:5").is_err());
    }
}
