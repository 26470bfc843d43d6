//! The node side of a server: runtime, images, network and the agent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::ApiServer;
use auth::User;
use base::{Drain, SystemClock};
use client::Informers;
use image::ImageStore;
use ipnet::Ipv4Net;
use network::{Network, NetworkConfig};
use node::{
    BuiltIn, Cri, CriConfig, Engine, KubeletSettings, Membership, NodeConfig, NodeHandle, ShutdownPlaces,
};
use runtime::{Runtime, RuntimeConfig};

use crate::config::{ConfigError, ServerArgs};
use crate::in_process;
use crate::manifests::Rules;

/// A node that cannot start; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StartNodeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot open the container runtime: {0}")]
    Runtime(#[from] runtime::Error),
    #[error(
        "pods of the built-in container runtime still run ({0} tells of them); bring them down with gantry down before another one runs this node's pods"
    )]
    BuiltInPods(std::path::PathBuf),
    #[error("cannot use the container runtime: {0}")]
    Cri(#[from] node::CriError),
    #[error("cannot open the image store: {0}")]
    Images(#[from] image::StoreError),
    #[error("cannot set up the pods' network: {0}")]
    Network(#[from] network::NetworkError),
    #[error(transparent)]
    Traffic(#[from] traffic::TrafficError),
    #[error("cannot register the node: {0}")]
    Node(#[from] node::NodeError),
}

/// Where this node's containers live.
pub fn runtime_config(args: &ServerArgs) -> RuntimeConfig {
    RuntimeConfig {
        data_dir: args.data_dir.clone(),
        run_dir: args.run_dir.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        pod_mounts: ["pods", "volumes"].map(|folder| args.data_dir.join(folder)).into(),
        shim: vec!["/proc/self/exe".into(), "shim".into()],
    }
}

/// How long another container runtime is waited for, which may be starting as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// What runs this node's pods: the runtime that is built in, or the one that the settings name.
pub async fn engine(
    args: &ServerArgs,
    settings: &KubeletSettings,
    network: Network,
) -> Result<Engine, StartNodeError> {
    if let Some(config) = cri_config(args, settings) {
        let shims = args.run_dir.join("shims");
        // Two runtimes would run the same pods.
        if std::fs::read_dir(&shims).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(StartNodeError::BuiltInPods(shims));
        }
        return Ok(Engine::Cri(Cri::connect(&config).await?));
    }
    let runtime = Runtime::open(runtime_config(args)).await?;
    Ok(Engine::BuiltIn(BuiltIn { runtime, images: ImageStore::open(&args.data_dir)?, network }))
}

/// Where the other container runtime is, if the settings name one.
pub fn cri_config(args: &ServerArgs, settings: &KubeletSettings) -> Option<CriConfig> {
    Some(CriConfig {
        endpoint: settings.container_runtime_endpoint.clone()?,
        image_endpoint: settings.image_service_endpoint.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        patience: PATIENCE,
    })
}

/// The addresses of this node's pods: the first part of the cluster's range that is as large as a node's, or all of a
/// smaller range.
pub fn pod_cidr(args: &ServerArgs) -> Ipv4Net {
    let range = args.cluster_cidr;
    Ipv4Net::new(range.network(), range.prefix_len().max(args.controllers.node_cidr_mask_size))
        .unwrap_or(range)
}

pub fn network_config(args: &ServerArgs) -> NetworkConfig {
    let mut config = NetworkConfig::new(&args.data_dir, pod_cidr(args));
    config.bridge.clone_from(&args.bridge);
    config.service_cidrs = vec![args.service_cidr];
    config
}

/// Starts the node agent. It ends with `drain`; containers go on.
pub async fn start(
    args: &ServerArgs,
    api: &ApiServer,
    tls: rustls::ServerConfig,
    drain: &Drain,
) -> Result<NodeHandle, StartNodeError> {
    let name = args.node_name()?;
    let kubelet = args.kubelet.settings().map_err(ConfigError::from)?;
    let network = Network::open(network_config(args)).await?;
    let gateway = network.config().gateway();
    let engine = engine(args, &kubelet, network).await?;
    let cluster_dns = Ipv4Addr::from(u32::from(args.service_cidr.network()) + 10);
    let proxy = in_process::client(api, User::authenticated("system:kube-proxy", []));
    traffic::run(&traffic::Config {
        informers: Informers::new(proxy, drain.clone()),
        drain: drain.clone(),
        node: name.clone(),
        cluster_cidrs: vec![args.cluster_cidr],
        dns: (gateway, 53).into(),
        dns_service: cluster_dns,
        domain: "cluster.local".into(),
        resolv_conf: "/etc/resolv.conf".into(),
    })
    .await?;
    if kubelet.rotate_certificates || kubelet.server_tls_bootstrap {
        tracing::warn!(
            "rotateCertificates and serverTLSBootstrap are for agents: a server's own node has no need of them"
        );
    }
    let client = in_process::client(
        api,
        User::authenticated(format!("system:node:{name}"), ["system:nodes".to_owned()]),
    );
    let config = NodeConfig {
        ip: args.node_ip(),
        port: args.agent_port,
        data_dir: args.data_dir.clone(),
        log_dir: args.log_dir.clone(),
        cluster_dns: Some(cluster_dns),
        cluster_domain: "cluster.local".into(),
        pod_cidr: pod_cidr(args).to_string(),
        kubelet: KubeletSettings {
            managers: args
                .managers
                .settings(kubelet.managers.clone(), &args.data_dir)
                .map_err(ConfigError::Managers)?,
            ..kubelet
        },
        tls: Arc::new(tls),
        membership: Membership::Local,
        manifests: {
            let api = api.clone();
            let rules = Rules::new(move || api.registry());
            args.kubelet.manifests(rules).map_err(ConfigError::from)?
        },
        shutdown: shutdown_places(args),
        name,
    };
    let clock = Arc::new(SystemClock);
    Ok(node::run(config, client, engine, clock, drain.clone()).await?)
}

/// Where word of a shutdown comes from.
pub fn shutdown_places(args: &ServerArgs) -> ShutdownPlaces {
    let bus = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
    let bus = bus.as_deref().and_then(|address| address.strip_prefix("unix:path="));
    ShutdownPlaces {
        bus: bus.unwrap_or("/run/dbus/system_bus_socket").into(),
        logind_conf: "/etc/systemd/logind.conf.d".into(),
        control: args.node_socket(),
    }
}

/// Whether pods are another container runtime's: then they may run on, in the cgroups and networks that are there.
fn runs_elsewhere(args: &ServerArgs) -> bool {
    args.kubelet.settings().is_ok_and(|settings| settings.container_runtime_endpoint.is_some())
}

/// Removes what a node that could not start has made, unless pods of an earlier one use it.
pub async fn abandon(args: &ServerArgs) {
    if runs_elsewhere(args) {
        return;
    }
    let clean = async {
        let runtime = Runtime::open(runtime_config(args)).await?;
        if runtime.sandboxes().is_empty() {
            // The one whether or not the other can be had.
            let networks = remove_networks(args).await;
            runtime.close_down().await?;
            networks?;
        }
        Ok::<_, StartNodeError>(())
    };
    if let Err(error) = clean.await {
        tracing::warn!(%error, "cannot clean up after the node that did not start");
    }
}

/// The same for a node that has no server.
pub async fn abandon_runtime(args: &ServerArgs) {
    if runs_elsewhere(args) {
        return;
    }
    let clean = async {
        let runtime = Runtime::open(runtime_config(args)).await?;
        if runtime.sandboxes().is_empty() {
            runtime.close_down().await?;
            Network::open(network_config(args)).await?.destroy().await?;
        }
        Ok::<_, StartNodeError>(())
    };
    if let Err(error) = clean.await {
        tracing::warn!(%error, "cannot clean up after the node that did not start");
    }
}

/// Removes what joins pods to networks.
pub async fn remove_networks(args: &ServerArgs) -> Result<(), StartNodeError> {
    let proxy =
        traffic::services::ProxyConfig { node: args.node_name()?, cluster_cidrs: vec![args.cluster_cidr] };
    let rules =
        traffic::services::Applier::open(traffic::TABLE, proxy).map_err(traffic::TrafficError::from)?;
    rules.remove().await.map_err(traffic::TrafficError::from)?;
    Ok(Network::open(network_config(args)).await?.destroy().await?)
}
