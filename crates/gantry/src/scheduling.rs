//! What the scheduler is told: a KubeSchedulerConfiguration, and how its extenders are called.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::{Remote, RemoteTls};
use clap::Args;
use scheduler::{ExtenderCall, ExtenderSettings, ExtenderTls, Settings};

use crate::config::{ConfigError, read_yaml};

/// Settings of the scheduler, and of where its numbers and the controllers' are told.
#[derive(Clone, Debug, Args)]
pub struct SchedulerArgs {
    /// YAML file that says how pods are placed: a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1
    #[arg(long, env = "GANTRY_SCHEDULER_CONFIG", value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
    /// A port with the scheduler's metrics alone, as kube-scheduler has it at 10259 [default: none; they are at /metrics of
    /// the API, too]
    #[arg(long, env = "GANTRY_SCHEDULER_PORT", value_name = "PORT")]
    pub scheduler_port: Option<u16>,
    /// A port with the controllers' metrics alone, as kube-controller-manager has it at 10257 [default: none; they are at
    /// /metrics of the API, too]
    #[arg(long, env = "GANTRY_CONTROLLERS_PORT", value_name = "PORT")]
    pub controllers_port: Option<u16>,
}

/// How pods are placed, with a way to call each extender.
#[derive(Clone)]
pub struct Scheduling {
    /// What the file says, or the default.
    pub settings: Settings,
    /// In the order of the settings.
    pub extenders: Vec<ExtenderCall>,
    /// Pods of a gang are placed together.
    pub gangs: bool,
}

impl SchedulerArgs {
    /// Reads the file, if there is one. `gangs` is whether PodGroups are served.
    pub fn scheduling(&self, gangs: bool) -> Result<Scheduling, ConfigError> {
        let Some(path) = &self.scheduler_config else {
            return Ok(Scheduling { settings: Settings::default(), extenders: Vec::new(), gangs });
        };
        let fault = |why: String| ConfigError::Scheduler { path: path.clone(), why };
        let settings = Settings::read(&read_yaml(path)?).map_err(|error| fault(error.to_string()))?;
        let calls =
            settings.extenders.iter().enumerate().map(|(n, extender)| {
                call(extender, path).map_err(|why| fault(format!("extenders[{n}]: {why}")))
            });
        Ok(Scheduling { extenders: calls.collect::<Result<_, _>>()?, settings, gangs })
    }
}

/// How an extender is called. Files that are named lie beside the configuration, unless it says otherwise.
fn call(extender: &ExtenderSettings, config: &Path) -> Result<ExtenderCall, String> {
    let folder = config.parent().unwrap_or(Path::new(""));
    let tls = extender.tls.as_ref().map(|tls| remote_tls(tls, folder)).transpose()?.unwrap_or_default();
    let (url, timeout) = (extender.url.trim_end_matches('/').to_owned(), extender.timeout);
    // A fault of the URL shows now, and not when the first pod comes.
    Remote::reached_by(&url, &tls).map_err(|error| format!("urlPrefix: {error}"))?;
    let known: Arc<parking_lot::Mutex<Vec<(String, Remote)>>> = Arc::default();
    Ok(Arc::new(move |verb, body| {
        let remote = {
            let mut known = known.lock();
            match known.iter().find(|(name, _)| name == verb) {
                Some((_, remote)) => Ok(remote.clone()),
                None => Remote::reached_by(&format!("{url}/{verb}"), &tls)
                    .inspect(|remote| known.push((verb.to_owned(), remote.clone()))),
            }
        };
        let (url, verb) = (format!("{url}/{verb}"), verb.to_owned());
        Box::pin(async move {
            let remote = remote.map_err(|error| error.to_string())?;
            let answer = remote.post_once(&body, timeout).await;
            answer.map_err(|why| format!("failed {verb} with extender at URL {url}: {why}"))
        })
    }))
}

fn remote_tls(tls: &ExtenderTls, folder: &Path) -> Result<RemoteTls, String> {
    if tls.insecure {
        return Err("tlsConfig.insecure is not supported; name the authority in caFile or caData".into());
    }
    let read = |field: &str, (file, data): &(String, String)| -> Result<String, String> {
        if !data.is_empty() {
            let text = types::decode_base64(data).and_then(|bytes| String::from_utf8(bytes).ok());
            return text.ok_or_else(|| format!("tlsConfig.{field}Data is not PEM in base64"));
        }
        if file.is_empty() {
            return Ok(String::new());
        }
        let path = folder.join(file);
        std::fs::read_to_string(&path)
            .map_err(|error| format!("tlsConfig.{field}File: cannot read {}: {error}", path.display()))
    };
    let certificate = read("cert", &tls.certificate)?;
    let key = read("key", &tls.key)?;
    if certificate.is_empty() != key.is_empty() {
        return Err("tlsConfig has a certificate without a key, or a key without a certificate".into());
    }
    Ok(RemoteTls {
        authority: read("ca", &tls.authority)?,
        identity: (!certificate.is_empty()).then_some((certificate, key)),
        server_name: Some(tls.server_name.clone()).filter(|name| !name.is_empty()),
    })
}
