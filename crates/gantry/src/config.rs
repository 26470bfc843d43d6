//! What a server is told: flags, then `GANTRY_*` in the environment, then a YAML file, all by the same names.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::Ipv4Net;

/// A configuration that cannot be used; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not YAML with names and values: {why}")]
    Yaml { path: PathBuf, why: String },
    #[error("node name {0:?} is no lower-case DNS name; set --node-name")]
    NodeName(String),
}

/// Settings of a server and of the node it runs on.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// YAML file with any of these settings, by the flags' names
    #[arg(long, env = "GANTRY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the cluster's state, images and volumes are kept
    #[arg(long, env = "GANTRY_DATA_DIR", value_name = "DIR", default_value = "/var/lib/gantry")]
    pub data_dir: PathBuf,
    /// Where sockets and network namespaces are kept
    #[arg(long, env = "GANTRY_RUN_DIR", value_name = "DIR", default_value = "/run/gantry")]
    pub run_dir: PathBuf,
    /// Where the containers' logs are kept
    #[arg(long, env = "GANTRY_LOG_DIR", value_name = "DIR", default_value = "/var/log/pods")]
    pub log_dir: PathBuf,
    /// The address to listen on
    #[arg(long, env = "GANTRY_BIND_ADDRESS", value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: Ipv4Addr,
    /// The port of the Kubernetes API
    #[arg(long, env = "GANTRY_HTTPS_PORT", value_name = "PORT", default_value_t = 6443)]
    pub https_port: u16,
    /// The port of the node agent
    #[arg(long, env = "GANTRY_NODE_PORT", value_name = "PORT", default_value_t = 10250)]
    pub agent_port: u16,
    /// This node's address, as others reach it [default: the address of the default route]
    #[arg(long, env = "GANTRY_NODE_IP", value_name = "IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// This node's name [default: the host's name]
    #[arg(long, env = "GANTRY_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// More names and addresses that the API's certificate is good for
    #[arg(long, env = "GANTRY_TLS_SAN", value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// Addresses of pods
    #[arg(long, env = "GANTRY_CLUSTER_CIDR", value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services
    #[arg(long, env = "GANTRY_SERVICE_CIDR", value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: Ipv4Net,
    /// The bridge that pods are joined to
    #[arg(long, env = "GANTRY_BRIDGE", value_name = "NAME", default_value = "gantry0")]
    pub bridge: String,
    /// The parent of all cgroups that are made
    #[arg(long, env = "GANTRY_CGROUP_PARENT", value_name = "PATH", default_value = "gantry")]
    pub cgroup_parent: String,
    /// Tokens that are always valid: lines of token,user,uid,"group1,group2"
    #[arg(long, env = "GANTRY_TOKEN_AUTH_FILE", value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Run the control plane only, without a node
    #[arg(long, env = "GANTRY_DISABLE_AGENT")]
    pub disable_agent: bool,
    /// Where the administrator's kubeconfig is written [default: admin.kubeconfig in the data directory]
    #[arg(long, env = "GANTRY_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl ServerArgs {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"))
    }

    /// The running server's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir.join("server.pid")
    }

    /// What a server in the background says.
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }

    /// This node's name.
    pub fn node_name(&self) -> Result<String, ConfigError> {
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default()
                .to_lowercase(),
        };
        let good = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if name.split('.').all(good) { Ok(name) } else { Err(ConfigError::NodeName(name)) }
    }

    /// This node's address: the one given, else the one packets to the outside would leave from, else loopback.
    pub fn node_ip(&self) -> Ipv4Addr {
        // Connecting a datagram socket sends nothing; it only asks the routing table.
        let routed = || -> Option<Ipv4Addr> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.connect("192.0.2.1:9").ok()?;
            match socket.local_addr().ok()?.ip() {
                std::net::IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
                _ => None,
            }
        };
        self.node_ip.or_else(routed).unwrap_or(Ipv4Addr::LOCALHOST)
    }
}

/// Puts the settings of the file that `--config` names in front of the arguments, so that flags overrule them.
/// Settings that the environment has are left out, so that the environment does too.
pub fn with_file(arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    let named = |flag: &str| {
        let texts: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
        let at = texts.iter().position(|a| *a == flag);
        let joined = texts.iter().find_map(|a| a.strip_prefix(flag)?.strip_prefix('=')).map(str::to_owned);
        joined.or_else(|| texts.get(at? + 1).map(|t| (*t).to_owned()))
    };
    let Some(path) = named("--config").or_else(|| std::env::var("GANTRY_CONFIG").ok()).map(PathBuf::from)
    else {
        return Ok(arguments);
    };
    let flags = read_file(&path)?;
    // Behind the program's and the subcommand's names.
    let split = arguments.len().min(2);
    let (head, tail) = arguments.split_at(split);
    Ok(head
        .iter()
        .cloned()
        .chain(flags.into_iter().map(OsString::from))
        .chain(tail.iter().cloned())
        .collect())
}

fn read_file(path: &Path) -> Result<Vec<String>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let yaml = |why: String| ConfigError::Yaml { path: path.to_owned(), why };
    let values: serde_json::Value = serde_norway::from_str(&text).map_err(|e| yaml(e.to_string()))?;
    let mut flags = Vec::new();
    let Some(map) = values.as_object() else {
        return if values.is_null() { Ok(flags) } else { Err(yaml("the top level is no mapping".into())) };
    };
    for (name, value) in map {
        if std::env::var_os(format!("GANTRY_{}", name.replace('-', "_").to_uppercase())).is_some() {
            continue;
        }
        let text = match value {
            serde_json::Value::Bool(true) => {
                flags.push(format!("--{name}"));
                continue;
            }
            serde_json::Value::Bool(false) | serde_json::Value::Null => continue,
            serde_json::Value::String(s) => s.clone(),
            serde_json::Value::Array(items) => {
                let texts: Vec<String> =
                    items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect();
                texts.join(",")
            }
            serde_json::Value::Number(n) => n.to_string(),
            serde_json::Value::Object(_) => return Err(yaml(format!("the value of {name} is a mapping"))),
        };
        flags.push(format!("--{name}={text}"));
    }
    Ok(flags)
}
