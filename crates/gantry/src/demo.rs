//! `gantry demo`: a first Deployment on the cluster that is up.
//!
//! ```text
//! gantry-demo ─build─► image ─apply─► Deployment, Service ─watch─► rolled out ─fetch─► what each pod says
//! ```
//!
//! It goes into the namespace `default`: that is where the `kubectl get pods` of any tutorial looks, and
//! `gantry demo --delete` takes away just what was made.

mod image;
mod objects;
mod rollout;
mod visit;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::admin::{self, AdminError};
use crate::config::ServerArgs;
use crate::daemon;

/// The name of the Deployment and of the Service, and the label of the pods.
const NAME: &str = "gantry-demo";
/// Where everything goes.
const NAMESPACE: &str = "default";
/// What the pods run.
const IMAGE: &str = "gantry-demo:1";
/// Where every node serves it.
const NODE_PORT: u16 = 30080;
/// How many pods.
const REPLICAS: usize = 3;

/// A demo that did not work out; what went wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("putting images into the cluster's store takes root; run it again with sudo")]
    Root,
    #[error("no cluster is up; start one with: gantry up")]
    Down,
    #[error(
        "the demo's program is not at {0}; build it (cargo build -p demo), or say where it is with --program"
    )]
    Program(PathBuf),
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot open the image store: {0}")]
    Store(#[from] ::image::StoreError),
    #[error("{IMAGE} is no name for an image: {0}")]
    Name(#[from] ::image::ReferenceError),
    #[error("cannot build the image: {0}")]
    Build(#[from] ::image::build::BuildError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("cannot {attempt}: {}", client::message(source))]
    Api { attempt: String, source: Box<client::kube::Error> },
    #[error("port {NODE_PORT} belongs to the Service {0} already; delete that, or give it another nodePort")]
    PortTaken(String),
    #[error("cannot watch {what}: {source}")]
    Watch { what: &'static str, source: Box<client::kube::runtime::wait::Error> },
    #[error("the pods are not ready after {} s\n{why}", patience.as_secs())]
    NotReady { patience: Duration, why: String },
    #[error("the pods are not gone after {} s", .0.as_secs())]
    NotGone(Duration),
    #[error("{url} was answered by {answered} of {REPLICAS} pods only; the last attempt: {last}\n{why}")]
    FewAnswers { url: String, answered: usize, last: String, why: String },
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Settings of the demo besides the server's.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The program to run [default: gantry-demo beside gantry]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How long the pods may take to become ready, or to go
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Remove the demo
    #[arg(long)]
    delete: bool,
}

/// Runs the demo, or removes it. Run again, it changes what has changed, and nothing else.
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DemoError::Root);
    }
    if daemon::running(&args.server).is_none() {
        return Err(DemoError::Down);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime
        .map_err(DemoError::Threads)?
        .block_on(async { if args.delete { remove(args).await } else { show(args).await } })
}

async fn show(args: &DemoArgs) -> Result<(), DemoError> {
    let patience = Duration::from_secs(args.timeout);
    let program = image::program(args.program.as_deref())?;
    println!("Building the image {IMAGE} from {}", program.display());
    let id = image::build(&args.server, &program).await?;
    let client = admin::client(&args.server)?;
    objects::apply(&client, &id).await?;
    println!("Waiting for {REPLICAS} pods");
    rollout::wait(&client, patience).await?;
    let pods = rollout::pods(&client).await?;
    let node = args.server.node_ip();
    let url = format!("http://{node}:{NODE_PORT}/");
    let answers = visit::all(&client, node, &pods).await?;
    println!("{url} is answered by {} different pods:", answers.len());
    for answer in &answers {
        println!(
            "  I am {} on {}, version {}, and this is my request {}.",
            answer.pod, answer.node, answer.version, answer.requests
        );
    }
    println!("Go on with:");
    println!("  export KUBECONFIG={}", args.server.kubeconfig().display());
    println!("  kubectl get pods -o wide");
    println!("  curl {url}");
    println!("  kubectl scale deployment {NAME} --replicas=5");
    println!("  {}", again("--delete"));
    Ok(())
}

async fn remove(args: &DemoArgs) -> Result<(), DemoError> {
    let client = admin::client(&args.server)?;
    objects::delete(&client).await?;
    rollout::wait_gone(&client, Duration::from_secs(args.timeout)).await?;
    image::remove(&args.server)?;
    println!("The demo is gone.");
    Ok(())
}

/// This command once more, with the same settings and one flag more.
fn again(flag: &str) -> String {
    let given = std::env::args().skip(2).filter(|a| a != flag);
    ["gantry".to_owned(), "demo".to_owned()]
        .into_iter()
        .chain(given)
        .chain([flag.to_owned()])
        .collect::<Vec<_>>()
        .join(" ")
}
