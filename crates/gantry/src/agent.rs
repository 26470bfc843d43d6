//! `gantry agent`: a node without an API of its own. It belongs to the cluster of another server, or to none.

mod identity;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use auth::{CertificateRequest, KeyPairPem, Pki, ServingCertificate, Usage};
use base::{Drain, SystemClock};
use clap::{Args, Parser};
use ipnet::Ipv4Net;
use network::Network;
use node::{Authorization, CertificateStore, CertificateUse, Membership, NodeConfig, Rotation};
use registry::Registry;

use crate::config::{ConfigError, ServerArgs};
use crate::daemon::{READY, tell};
use crate::kubelet::{KubeletArgs, KubeletError};
use crate::managers::ManagerArgs;
use crate::manifests::Rules;
use crate::node::{StartNodeError, engine, network_config, pod_cidr, shutdown_places};
use crate::{systemd, usage};
use identity::{Cluster, IdentityArgs, IdentityError};

/// Settings of a node.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// YAML file with any of these settings, by the flags' names
    #[arg(long, env = "GANTRY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Belong to no cluster: run the pods of --pod-manifest-path and nothing else
    #[arg(long, env = "GANTRY_STANDALONE")]
    pub standalone: bool,
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// Where images and volumes are kept
    #[arg(long, env = "GANTRY_DATA_DIR", value_name = "DIR", default_value = "/var/lib/gantry")]
    pub data_dir: PathBuf,
    /// Where sockets and network namespaces are kept
    #[arg(long, env = "GANTRY_RUN_DIR", value_name = "DIR", default_value = "/run/gantry")]
    pub run_dir: PathBuf,
    /// Where the containers' logs are kept
    #[arg(long, env = "GANTRY_LOG_DIR", value_name = "DIR", default_value = "/var/log/pods")]
    pub log_dir: PathBuf,
    /// The port of the node agent
    #[arg(long, env = "GANTRY_NODE_PORT", value_name = "PORT", default_value_t = 10250)]
    pub agent_port: u16,
    /// This node's address, as others reach it [default: the address of the default route]
    #[arg(long, env = "GANTRY_NODE_IP", value_name = "IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// This node's name [default: the host's name]
    #[arg(long, env = "GANTRY_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Addresses of this node's pods
    #[arg(long, env = "GANTRY_POD_CIDR", value_name = "CIDR", default_value = "10.42.0.0/24")]
    pub pod_cidr: Ipv4Net,
    /// Addresses of Services
    #[arg(long, env = "GANTRY_SERVICE_CIDR", value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: Ipv4Net,
    /// The bridge that pods are joined to
    #[arg(long, env = "GANTRY_BRIDGE", value_name = "NAME", default_value = "gantry0")]
    pub bridge: String,
    /// The parent of all cgroups that are made
    #[arg(long, env = "GANTRY_CGROUP_PARENT", value_name = "PATH", default_value = "gantry")]
    pub cgroup_parent: String,
    #[command(flatten)]
    pub managers: ManagerArgs,
    #[command(flatten)]
    pub kubelet: KubeletArgs,
}

/// An agent that cannot start or go on; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(
        "name the cluster with --server and --token, or with --bootstrap-kubeconfig or --agent-kubeconfig, or run --standalone without one"
    )]
    Nowhere,
    #[error("--standalone belongs to no cluster, and {0} names one; leave one of them out")]
    Both(&'static str),
    #[error("making namespaces, mounts and cgroups takes root; run it again with sudo")]
    Root,
    #[error("the environment cannot be used: {0}")]
    Environment(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Pki(#[from] auth::PkiError),
    #[error(transparent)]
    Tls(#[from] auth::TlsError),
    #[error(transparent)]
    Certificates(#[from] node::CertificateError),
    #[error(transparent)]
    Node(#[from] StartNodeError),
    #[error("cannot run the node: {0}")]
    Run(#[from] node::NodeError),
    #[error("cannot keep the process's number: {0}")]
    Pid(Box<crate::server::ServerError>),
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Runs a node until it is told to stop. Containers go on.
pub fn run(args: &AgentArgs) -> Result<(), AgentError> {
    let cluster = args.identity.cluster()?;
    match &cluster {
        None if !args.standalone => return Err(AgentError::Nowhere),
        Some(cluster) if args.standalone => return Err(AgentError::Both(cluster.named_by)),
        _ => {}
    }
    let server = args.as_server()?;
    server.check()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::Root);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AgentError::Threads)?;
    let outcome = runtime.block_on(serve(args, &server, cluster));
    // A thread may hang in a file system that does not answer; the process ends without it.
    runtime.shutdown_timeout(crate::daemon::LAST_WORDS);
    outcome
}

impl AgentArgs {
    /// The same settings as a server has them, for what servers and agents do alike.
    fn as_server(&self) -> Result<ServerArgs, AgentError> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Defaults {
            #[command(flatten)]
            server: ServerArgs,
        }
        let defaults = Defaults::try_parse_from(std::iter::empty::<String>());
        let Defaults { server } =
            defaults.map_err(|fault| AgentError::Environment(usage::sentence(&fault)))?;
        Ok(ServerArgs {
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
            log_dir: self.log_dir.clone(),
            agent_port: self.agent_port,
            node_ip: self.node_ip,
            node_name: self.node_name.clone(),
            cluster_cidr: self.pod_cidr,
            service_cidr: self.service_cidr,
            bridge: self.bridge.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            kubelet: self.kubelet.clone(),
            ..server
        })
    }
}

async fn serve(args: &AgentArgs, server: &ServerArgs, cluster: Option<Cluster>) -> Result<(), AgentError> {
    let failed = |(path, source)| AgentError::File { attempt: "create folder", path, source };
    server.make_folders().map_err(failed)?;
    crate::daemon::await_the_dying(server);
    crate::server::write_pid(&server.pid_file()).map_err(|error| AgentError::Pid(Box::new(error)))?;
    let drain = Drain::new();
    let outcome = start(args, server, cluster, &drain).await;
    if let Ok(node) = &outcome {
        tell(READY);
        systemd::ready(&drain);
        crate::server::stop_signal(Some(node).filter(|_| args.kubelet.shutdown_on_sigterm)).await;
    }
    tracing::info!("stopping");
    systemd::stopping();
    drain.drain().await;
    if outcome.is_err() {
        crate::node::abandon_runtime(server).await;
    }
    let _ = std::fs::remove_file(server.pid_file());
    outcome.map(drop)
}

async fn start(
    args: &AgentArgs,
    server: &ServerArgs,
    cluster: Option<Cluster>,
    drain: &Drain,
) -> Result<node::NodeHandle, AgentError> {
    let name = server.node_name()?;
    let mut kubelet = args.kubelet.settings()?;
    kubelet.managers =
        args.managers.settings(kubelet.managers, &args.data_dir).map_err(ConfigError::Managers)?;
    if cluster.is_none() {
        // Nobody could be asked.
        kubelet.authorization = Authorization::AlwaysAllow;
    }
    let names = vec![server.node_ip().to_string(), name.clone()];
    let own = own_certificate(args, &names, cluster.is_none())?;
    let shown = ServingCertificate::new(&own.pair)?;
    let clients = match (&kubelet.client_ca_file, &cluster) {
        (Some(path), _) => std::fs::read_to_string(path).map_err(|source| AgentError::File {
            attempt: "read",
            path: path.clone(),
            source,
        })?,
        (None, Some(cluster)) => cluster.ca.clone(),
        (None, None) => own.ca,
    };
    let tls = auth::changing_server_tls(shown.clone(), &clients)?;
    let pki = args.data_dir.join("pki");
    let client = match cluster {
        None => identity::nobody(),
        Some(cluster) => {
            let folder = CertificateStore::open(&pki, "kubelet-client")?;
            let client = cluster.join(&name, folder, kubelet.rotate_certificates, drain)?;
            if kubelet.server_tls_bootstrap {
                let rotation = Rotation {
                    usage: CertificateUse::Serving,
                    node: name.clone(),
                    names,
                    store: CertificateStore::open(&pki, "kubelet-server")?,
                    client: client.clone(),
                    bootstrap: None,
                    rotate: true,
                    apply: Box::new(move |pair| shown.show(pair)),
                    clock: Arc::new(SystemClock),
                    jitter: Box::new(identity::jitter),
                };
                rotation.start(drain);
            }
            client
        }
    };
    let membership = if args.standalone { Membership::Alone } else { Membership::Remote };
    let network = Network::open(network_config(server)).await.map_err(StartNodeError::from)?;
    let engine = engine(server, &kubelet, network).await?;
    let config = NodeConfig {
        ip: server.node_ip(),
        port: args.agent_port,
        data_dir: args.data_dir.clone(),
        log_dir: args.log_dir.clone(),
        // Services and their names are not served here.
        cluster_dns: None,
        cluster_domain: "cluster.local".into(),
        pod_cidr: pod_cidr(server).to_string(),
        kubelet,
        tls: Arc::new(tls),
        membership,
        manifests: args.kubelet.manifests(Rules::new(|| Arc::new(Registry::builtin())))?,
        shutdown: shutdown_places(server),
        name,
    };
    let clock = Arc::new(SystemClock);
    Ok(node::run(config, client, engine, clock, drain.clone()).await?)
}

/// What the agent's server shows until the cluster has signed something else, and who has signed it.
struct Own {
    pair: KeyPairPem,
    ca: String,
}

/// Made when it is missing. A node alone also has a certificate for whoever administers it.
fn own_certificate(args: &AgentArgs, names: &[String], alone: bool) -> Result<Own, AgentError> {
    let pki = Pki::open_as(&args.data_dir.join("pki/agent"), "gantry-agent-ca", &SystemClock)?;
    let mut names = names.to_vec();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    names.sort();
    names.dedup();
    let request = |file: &str, name: &str, group: &str, names: Vec<String>, usage| CertificateRequest {
        file: file.into(),
        common_name: name.into(),
        organization: group.into(),
        names,
        usage,
    };
    let pair = pki.issue(&request("kubelet", "kubelet", "", names, Usage::Server))?;
    if alone {
        pki.issue(&request("admin", "kubernetes-admin", "system:masters", vec![], Usage::Client))?;
    }
    Ok(Own { pair, ca: pki.ca().to_owned() })
}
