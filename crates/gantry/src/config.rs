//! What a server is told: flags, then `GANTRY_*` in the environment, then a YAML file, all by the same names.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::Ipv4Net;

use crate::access::AccessArgs;
use crate::controllers::ControllerArgs;
use crate::datastore::DatastoreArgs;
use crate::kubelet::KubeletArgs;
use crate::managers::ManagerArgs;
use crate::scheduling::{SchedulerArgs, Scheduling};
use crate::usage;

/// A configuration that cannot be used; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not YAML with names and values: {why}")]
    Yaml { path: PathBuf, why: String },
    #[error("{path} cannot be used: {source}")]
    Tracing { path: PathBuf, source: apiserver::TraceConfigError },
    #[error("{path} cannot be used: {why}")]
    Scheduler { path: PathBuf, why: String },
    #[error("the configuration file {path} has no setting named {name}; gantry up --help lists them")]
    Setting { path: PathBuf, name: String },
    #[error("the configuration file {path} cannot be used: {why}")]
    Values { path: PathBuf, why: String },
    #[error("--{flag} {range} is too small; it needs 16 addresses at least")]
    Small { flag: &'static str, range: Ipv4Net },
    #[error("--service-cidr {services} overlaps --cluster-cidr {pods}; choose ranges that are apart")]
    Overlap { services: Ipv4Net, pods: Ipv4Net },
    #[error("--bridge {0:?} is no name for a network link: 1 to 15 characters without slash, colon or space")]
    Bridge(String),
    #[error(transparent)]
    Kubelet(#[from] crate::kubelet::KubeletError),
    #[error("{0}")]
    Managers(String),
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
    /// API versions to serve or not: api/beta=true, group/version=true, group/version/resource=false
    /// [default: the stable ones]
    #[arg(long, env = "GANTRY_RUNTIME_CONFIG", value_name = "SWITCHES")]
    pub runtime_config: Option<apiserver::RuntimeConfig>,
    /// Admission plugins to run besides those that always do
    #[arg(long, env = "GANTRY_ENABLE_ADMISSION_PLUGINS", value_name = "NAME", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins not to run
    #[arg(long, env = "GANTRY_DISABLE_ADMISSION_PLUGINS", value_name = "NAME", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// YAML file with the plugins' settings: an AdmissionConfiguration
    #[arg(long, env = "GANTRY_ADMISSION_CONTROL_CONFIG_FILE", value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    #[command(flatten)]
    pub controllers: ControllerArgs,
    #[command(flatten)]
    pub scheduler: SchedulerArgs,
    #[command(flatten)]
    pub kubelet: KubeletArgs,
    #[command(flatten)]
    pub managers: ManagerArgs,
    /// Do not measure nodes and pods, and leave metrics.k8s.io to somebody else
    #[arg(long, env = "GANTRY_DISABLE_METRICS")]
    pub disable_metrics: bool,
    /// Which requests are noted as traces, and the collector they go to: a TracingConfiguration
    #[arg(long, env = "GANTRY_TRACING_CONFIG_FILE", value_name = "FILE")]
    pub tracing_config_file: Option<PathBuf>,
    /// Run the control plane only, without a node
    #[arg(long, env = "GANTRY_DISABLE_AGENT")]
    pub disable_agent: bool,
    /// Where the administrator's kubeconfig is written [default: admin.kubeconfig in the data directory]
    #[arg(long, env = "GANTRY_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl ServerArgs {
    /// Makes the folders of data and of sockets. The error names the one that cannot be made.
    pub fn make_folders(&self) -> Result<(), (PathBuf, std::io::Error)> {
        let folders = [&self.data_dir, &self.run_dir];
        let make = |folder: &PathBuf| std::fs::create_dir_all(folder).map_err(|e| (folder.clone(), e));
        folders.into_iter().try_for_each(make)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"))
    }

    /// Where the node can be asked to shut down.
    pub fn node_socket(&self) -> PathBuf {
        self.run_dir.join("node.sock")
    }

    /// The running server's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir.join("server.pid")
    }

    /// What a server in the background says.
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }

    /// Makes sure that the settings can be used together, before anything is done.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.node_name()?;
        self.kubelet.settings()?;
        self.managers
            .settings(self.kubelet.settings()?.managers, &self.data_dir)
            .map_err(ConfigError::Managers)?;
        self.scheduling()?;
        let (services, pods) = (self.service_cidr, self.cluster_cidr);
        for (flag, range) in [("service-cidr", services), ("cluster-cidr", pods)] {
            // The API and DNS have fixed places in the one, bridge and pods in the other.
            if range.prefix_len() > 28 {
                return Err(ConfigError::Small { flag, range });
            }
        }
        if services.contains(&pods.network()) || pods.contains(&services.network()) {
            return Err(ConfigError::Overlap { services, pods });
        }
        // The kernel's `dev_valid_name`.
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
        let name = &self.bridge;
        if !(1..=15).contains(&name.len()) || name == "." || name == ".." || name.contains(odd) {
            return Err(ConfigError::Bridge(name.clone()));
        }
        Ok(())
    }

    /// Which admission plugins run, and how. A plugin's settings stand in the file itself or in one that it names.
    pub fn admission(&self) -> Result<apiserver::AdmissionSettings, ConfigError> {
        let mut config = match &self.admission_control_config_file {
            Some(path) => read_yaml(path)?,
            None => serde_json::Value::Null,
        };
        for plugin in config.get_mut("plugins").and_then(|p| p.as_array_mut()).into_iter().flatten() {
            if let (Some(path), true) = (plugin["path"].as_str(), plugin["configuration"].is_null()) {
                // Beside the file that names it, unless it says otherwise.
                let folder = self.admission_control_config_file.as_deref().and_then(Path::parent);
                plugin["configuration"] = read_yaml(&folder.unwrap_or(Path::new("")).join(path))?;
            }
        }
        Ok(apiserver::AdmissionSettings {
            enable: self.enable_admission_plugins.clone(),
            disable: self.disable_admission_plugins.clone(),
            config,
        })
    }

    /// How pods are placed. Whoever serves PodGroups means them.
    pub fn scheduling(&self) -> Result<Scheduling, ConfigError> {
        let served = self.runtime_config.clone().unwrap_or_default();
        self.scheduler.scheduling(served.serves("scheduling.k8s.io", "v1alpha2", "podgroups"))
    }

    /// The settings of traces.
    pub fn tracing(&self) -> Result<Option<apiserver::TraceConfig>, ConfigError> {
        let Some(path) = &self.tracing_config_file else { return Ok(None) };
        let config = apiserver::TraceConfig::read(&read_yaml(path)?);
        config.map(Some).map_err(|source| ConfigError::Tracing { path: path.clone(), source })
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
pub fn with_file(arguments: Vec<OsString>, root: &clap::Command) -> Result<Vec<OsString>, ConfigError> {
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
    let (words, command) = usage::innermost(root, &arguments);
    let settings = read_file(&path)?;
    check_file(&path, root, &settings)?;
    // A file may hold more than this command wants to know.
    let flags = settings.into_iter().filter(|s| has(command, &s.name));
    let flags = flags.filter_map(|s| s.flag_of(command)).map(OsString::from);
    let (head, tail) = arguments.split_at(arguments.len().min(words + 1));
    Ok(head.iter().cloned().chain(flags).chain(tail.iter().cloned()).collect())
}

/// One line of the file.
struct Setting {
    name: String,
    value: Given,
}

/// What a line of the file says.
enum Given {
    Switch(bool),
    Text(String),
}

impl Setting {
    /// What it would be on the command line; nothing, if it is a switch that is off.
    fn flag_of(&self, command: &clap::Command) -> Option<String> {
        let name = &self.name;
        match &self.value {
            Given::Text(text) => Some(format!("--{name}={text}")),
            Given::Switch(on) if takes_value(command, name) => Some(format!("--{name}={on}")),
            Given::Switch(on) => on.then(|| format!("--{name}")),
        }
    }
}

/// Whether a flag is more than a switch.
fn takes_value(command: &clap::Command, name: &str) -> bool {
    let mut all = command.get_arguments();
    all.any(|argument| argument.get_long() == Some(name) && argument.get_action().takes_values())
}

fn has(command: &clap::Command, name: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(name))
}

/// Makes sure that the file's settings exist and have values that can be used, so that the file can be blamed.
fn check_file(path: &Path, root: &clap::Command, settings: &[Setting]) -> Result<(), ConfigError> {
    let Some(up) = root.find_subcommand("up") else { return Ok(()) };
    // What only the agent alone wants to know is for it to check.
    let agent = |name: &str| root.find_subcommand("agent").is_some_and(|agent| has(agent, name));
    if let Some(unknown) = settings.iter().find(|s| !has(up, &s.name) && !agent(&s.name)) {
        return Err(ConfigError::Setting { path: path.to_owned(), name: unknown.name.clone() });
    }
    let known = settings.iter().filter(|s| has(up, &s.name));
    let flags = std::iter::once("up".to_owned()).chain(known.filter_map(|s| s.flag_of(up)));
    match up.clone().try_get_matches_from(flags) {
        Err(fault) if !usage::is_help(&fault) => {
            Err(ConfigError::Values { path: path.to_owned(), why: usage::sentence(&fault) })
        }
        _ => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
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
            serde_json::Value::Bool(on) => {
                flags.push(Setting { name: name.clone(), value: Given::Switch(*on) });
                continue;
            }
            serde_json::Value::Null => continue,
            serde_json::Value::String(s) => s.clone(),
            serde_json::Value::Array(items) => {
                let texts: Vec<String> =
                    items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect();
                texts.join(",")
            }
            serde_json::Value::Number(n) => n.to_string(),
            serde_json::Value::Object(_) => return Err(yaml(format!("the value of {name} is a mapping"))),
        };
        flags.push(Setting { name: name.clone(), value: Given::Text(text) });
    }
    Ok(flags)
}

/// The content of a YAML file.
pub fn read_yaml(path: &Path) -> Result<serde_json::Value, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    serde_norway::from_str(&text).map_err(|e| ConfigError::Yaml { path: path.to_owned(), why: e.to_string() })
}
