//! `gantry down`: nothing of the cluster is left but its data.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use node::Cri;
use runtime::Runtime;

use crate::config::ServerArgs;
use crate::daemon;

/// A cluster that could not be brought down; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    #[error("ending containers and removing mounts takes root; run it again with sudo")]
    Root,
    #[error("cannot stop the server (process {pid}): {source}")]
    Stop { pid: i32, source: nix::Error },
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot remove the pods: {0}")]
    Pods(#[from] runtime::Error),
    #[error("cannot remove the pods of the container runtime: {0}")]
    Elsewhere(#[from] node::EngineError),
    #[error(transparent)]
    Kubelet(#[from] crate::kubelet::KubeletError),
    #[error("cannot remove the pods' network: {0}")]
    Network(#[from] crate::node::StartNodeError),
    #[error("cannot take the pods' volumes away: {0}")]
    Volumes(#[from] volumes::Fault),
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
    #[error("{0} does not look like a data directory of gantry (it has no pki); it is left alone")]
    NotOurs(PathBuf),
}

/// Stops the server, ends its pods, and removes their networks, mounts and cgroups; with `purge` the data, too.
pub fn run(args: &ServerArgs, purge: bool) -> Result<(), DownError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DownError::Root);
    }
    match daemon::running(args) {
        Some(running) => {
            println!("  stopping the server");
            daemon::stop(running).map_err(|source| DownError::Stop { pid: running.pid, source })?;
        }
        None => println!("  the server is not running"),
    }
    if args.run_dir.exists() {
        println!("  removing pods");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(DownError::Threads)?.block_on(clean(args, purge))?;
        remove(&args.run_dir)?;
    }
    // What is mounted there may be anybody's files: it goes before anything is deleted.
    volumes::release_all(&args.data_dir)?;
    if purge && args.data_dir.exists() {
        // A mistyped directory must not cost anybody their files.
        if !args.data_dir.join("pki").exists() {
            return Err(DownError::NotOurs(args.data_dir.clone()));
        }
        println!("  deleting {}", args.data_dir.display());
        remove(&args.data_dir)?;
    }
    println!("The cluster is down.");
    Ok(())
}

/// How long a pod's processes have after they are asked to end.
const GRACE: Duration = Duration::from_secs(2);

/// How many pods end at once: most of it is waiting, for their processes and for the kernel.
const AT_ONCE: usize = 32;

async fn clean(args: &ServerArgs, purge: bool) -> Result<(), DownError> {
    if let Some(config) = crate::node::cri_config(args, &args.kubelet.settings()?) {
        let cri = Cri::connect(&config).await.map_err(node::EngineError::from)?;
        cri.remove_all(GRACE, purge).await?;
        return Ok(crate::node::remove_networks(args).await?);
    }
    let runtime = &Runtime::open(crate::node::runtime_config(args)).await?;
    let ends = runtime.sandboxes().into_iter().map(|sandbox| async move {
        let stops = runtime.containers(&sandbox.spec.id).into_iter().map(|container| async move {
            // Whatever does not end in time is killed with its sandbox.
            let _ = runtime.stop_container(&container.id, GRACE, None).await;
        });
        futures::future::join_all(stops).await;
        runtime.remove_sandbox(&sandbox.spec.id).await?;
        sandbox.spec.log_dir.as_deref().filter(|_| purge).map_or(Ok(()), remove)
    });
    let ended: Vec<Result<(), DownError>> =
        futures::stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
    ended.into_iter().collect::<Result<(), DownError>>()?;
    let networks = crate::node::remove_networks(args).await;
    runtime.close_down().await?;
    Ok(networks?)
}

fn remove(path: &std::path::Path) -> Result<(), DownError> {
    match sys::remove_tree(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DownError::File { attempt: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
