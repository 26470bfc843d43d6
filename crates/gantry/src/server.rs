//! One process with everything: store, API, controllers, scheduler, node agent, traffic.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::{ApiServer, Config, FrontProxy, NodeClient, Tls};
use auth::{CertificateRequest, KeyPairPem, Pki, StaticTokens, TokenIssuer, Usage};
use base::{Drain, RandomIds, SystemClock};
use node::NodeHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::components::Control;
use crate::config::{ConfigError, ServerArgs};
use crate::daemon::{READY, tell};
use crate::{kubeconfig, systemd};

/// A server that cannot start or go on; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Datastore(#[from] crate::datastore::DatastoreError),
    #[error(transparent)]
    Pki(#[from] auth::PkiError),
    #[error(transparent)]
    Access(#[from] crate::access::AccessError),
    #[error(transparent)]
    Tokens(#[from] auth::TokenError),
    #[error("{path}: {source}")]
    TokenFile { path: PathBuf, source: auth::TokenFileError },
    #[error(
        "cannot listen on {address}: {source}; choose another port with --https-port or end what uses it"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot listen on {address}: {source}; choose another port with --{flag} or end what uses it")]
    ListenPage { address: SocketAddr, flag: &'static str, source: std::io::Error },
    #[error(transparent)]
    Api(#[from] apiserver::StartError),
    #[error(transparent)]
    Tls(#[from] auth::TlsError),
    #[error(transparent)]
    Node(#[from] crate::node::StartNodeError),
    #[error("making namespaces, mounts and cgroups takes root; run it again with sudo")]
    Root,
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Runs a server until it is told to stop.
pub fn run(args: &ServerArgs) -> Result<(), ServerError> {
    args.check()?;
    if !args.disable_agent && !nix::unistd::geteuid().is_root() {
        return Err(ServerError::Root);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServerError::Threads)?;
    let outcome = runtime.block_on(serve(args));
    // A thread may hang in a file system that does not answer; the process ends without it.
    runtime.shutdown_timeout(crate::daemon::LAST_WORDS);
    outcome
}

async fn serve(args: &ServerArgs) -> Result<(), ServerError> {
    let failed = |(path, source)| ServerError::File { attempt: "create folder", path, source };
    args.make_folders().map_err(failed)?;
    crate::daemon::await_the_dying(args);
    let drain = Drain::new();
    // The port first: two servers on one machine is the likeliest mistake.
    let address = SocketAddr::new(IpAddr::V4(args.bind_address), args.https_port);
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
    let store = args.datastore.open(&args.data_dir, args.datastore.options()?).await?;

    let credentials = Credentials::prepare(args)?;
    let mut access = args.access.config()?;
    access.stand_before(&credentials.front_proxy, &credentials.front_proxy_ca)?;
    let config = Config {
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        tokens: credentials.tokens.clone(),
        static_tokens: credentials.static_tokens.clone(),
        ca_pem: credentials.ca.clone(),
        service_cidr: args.service_cidr,
        node_ports: 30000..=32767,
        advertise: (args.node_ip(), args.https_port),
        in_flight: 600,
        garbage_collection: args.controllers.tuning.enable_garbage_collector,
        access,
        admission: args.admission()?,
        runtime_config: args.runtime_config.clone().unwrap_or_default(),
        tracing: args.tracing()?,
        node_client: Some(NodeClient {
            tls: Arc::new(auth::client_tls(&credentials.to_nodes, &credentials.ca)?),
        }),
    };
    let api = ApiServer::start(config, store.clone(), drain.clone()).await?;
    let tls = Tls::new(&credentials.serving, &credentials.ca)?;
    api.add_metrics(crate::components::all_pages());
    serve_pages(args, &api, &tls, &drain).await?;
    let serving = drain.spawn(api.clone().serve(listener, tls, drain.clone()));

    let admin = kubeconfig::render(
        &crate::admin::url(args),
        &credentials.ca,
        &credentials.admin.certificate,
        &credentials.admin.key,
    );
    let path = args.kubeconfig();
    kubeconfig::write(&path, &admin).map_err(|source| ServerError::File {
        attempt: "write",
        path,
        source,
    })?;
    write_pid(&args.pid_file())?;
    tracing::info!(%address, "the API is ready");
    tell("the API is ready");
    // They end before the API does, so that their last writes still go through.
    let components = Drain::new();
    components.spawn_until_started(crate::heap::attend());
    let control = Control {
        ca_pem: credentials.ca.clone(),
        pki: credentials.pki.clone(),
        pods: args.cluster_cidr,
        settings: args.controllers.clone(),
        scheduling: args.scheduling()?,
    };
    crate::components::start(&api, &control, &components);
    if !args.disable_metrics {
        crate::components::start_metrics(&api, &components);
    }
    let outcome = start_node(args, &api, &credentials, &components).await;
    if let Ok(node) = &outcome {
        tell(READY);
        systemd::ready(&drain);
        stop_signal(node.as_ref().filter(|_| args.kubelet.shutdown_on_sigterm)).await;
    }
    let outcome = outcome.map(drop);
    tracing::info!("stopping");
    systemd::stopping();
    components.drain().await;
    if outcome.is_err() {
        crate::node::abandon(args).await;
    }
    drain.drain().await;
    let _ = serving.await;
    store.close().await;
    let _ = std::fs::remove_file(args.pid_file());
    outcome
}

/// Serves what scheduler and controllers count at ports of their own, if there are any.
async fn serve_pages(
    args: &ServerArgs,
    api: &ApiServer,
    tls: &Tls,
    drain: &Drain,
) -> Result<(), ServerError> {
    let scheduler = (args.scheduler.scheduler_port, "scheduler-port", crate::components::scheduler_page());
    let controllers =
        (args.scheduler.controllers_port, "controllers-port", crate::components::controllers_page());
    for (port, flag, page) in [scheduler, controllers] {
        let Some(port) = port else { continue };
        let address = SocketAddr::new(IpAddr::V4(args.bind_address), port);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServerError::ListenPage { address, flag, source })?;
        drain.spawn(api.clone().serve(listener, tls.telling_only(page), drain.clone()));
    }
    Ok(())
}

async fn start_node(
    args: &ServerArgs,
    api: &ApiServer,
    credentials: &Credentials,
    components: &Drain,
) -> Result<Option<NodeHandle>, ServerError> {
    if args.disable_agent {
        return Ok(None);
    }
    let clients = match &args.kubelet.settings().map_err(ConfigError::from)?.client_ca_file {
        None => credentials.ca.clone(),
        Some(path) => std::fs::read_to_string(path).map_err(|source| ServerError::File {
            attempt: "read",
            path: path.clone(),
            source,
        })?,
    };
    let tls = auth::server_tls(&credentials.agent, &clients)?;
    let node = crate::node::start(args, api, tls, components).await?;
    tell(&format!("node {} is Ready", args.node_name()?));
    Ok(Some(node))
}

pub fn write_pid(path: &Path) -> Result<(), ServerError> {
    std::fs::write(path, std::process::id().to_string()).map_err(|source| ServerError::File {
        attempt: "write",
        path: path.to_owned(),
        source,
    })
}

/// Waits for the word to stop. If a node is given, it is shut down first where the word is SIGTERM; a second one ends that.
pub async fn stop_signal(node: Option<&NodeHandle>) {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => return,
            }
            let Some(node) = node else { return };
            tokio::select! {
                done = node.shut_down() => if let Err(error) = done {
                    tracing::warn!(%error, "the node is not shut down");
                },
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}

/// Every certificate, key and token a server needs: kept from the last start, or made now.
struct Credentials {
    pki: Arc<Pki>,
    ca: String,
    serving: KeyPairPem,
    admin: KeyPairPem,
    to_nodes: KeyPairPem,
    agent: KeyPairPem,
    /// Shown to extension API servers, with an authority of its own.
    front_proxy: KeyPairPem,
    front_proxy_ca: String,
    tokens: Arc<TokenIssuer>,
    static_tokens: StaticTokens,
}

impl Credentials {
    fn prepare(args: &ServerArgs) -> Result<Self, ServerError> {
        let pki = Pki::open(&args.data_dir.join("pki"), &SystemClock)?;
        let mut names: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
        ]
        .map(str::to_owned)
        .into();
        let api_service = std::net::Ipv4Addr::from(u32::from(args.service_cidr.network()) + 1);
        names.push(api_service.to_string());
        names.push(args.node_ip().to_string());
        names.push(args.node_name()?);
        names.extend(args.tls_san.iter().cloned());
        names.sort();
        names.dedup();
        let request = |file: &str, name: &str, group: &str, names: Vec<String>, usage| CertificateRequest {
            file: file.into(),
            common_name: name.into(),
            organization: group.into(),
            names,
            usage,
        };
        let serving = pki.issue(&request("apiserver", "kube-apiserver", "", names, Usage::Server))?;
        let admin =
            pki.issue(&request("admin", "kubernetes-admin", "system:masters", vec![], Usage::Client))?;
        let to_nodes = pki.issue(&request(
            "apiserver-kubelet-client",
            "kube-apiserver-kubelet-client",
            "system:masters",
            vec![],
            Usage::Client,
        ))?;
        let node = args.node_name()?;
        let agent = pki.issue(&request(
            "kubelet",
            &format!("system:node:{node}"),
            "system:nodes",
            vec![args.node_ip().to_string(), node],
            Usage::Both,
        ))?;
        let folder = args.data_dir.join("pki/front-proxy");
        let front = Pki::open_as(&folder, "gantry-front-proxy-ca", &SystemClock)?;
        let front_proxy = front.issue(&request("client", FrontProxy::CLIENT, "", vec![], Usage::Client))?;
        let (private, public) = pki.service_account_key()?;
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let tokens = TokenIssuer::with(
            issuer,
            &private,
            &public,
            args.access.token_options()?,
            Arc::new(SystemClock),
        )?;
        let static_tokens = match &args.token_auth_file {
            None => StaticTokens::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ServerError::File {
                    attempt: "read",
                    path: path.clone(),
                    source,
                })?;
                StaticTokens::parse(&text)
                    .map_err(|source| ServerError::TokenFile { path: path.clone(), source })?
            }
        };
        Ok(Self {
            ca: pki.ca().to_owned(),
            pki: Arc::new(pki),
            serving,
            admin,
            to_nodes,
            agent,
            front_proxy,
            front_proxy_ca: front.ca().to_owned(),
            tokens: Arc::new(tokens),
            static_tokens,
        })
    }
}
