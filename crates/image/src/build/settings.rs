use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Config, ImageConfiguration};

pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image says about running it, in a form that instructions can change.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) user: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) working_dir: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ports: BTreeSet<String>,
    pub(super) volumes: BTreeSet<String>,
    pub(super) stop_signal: Option<String>,
    pub(super) author: Option<String>,
}

impl Settings {
    /// Those of `FROM scratch`.
    pub(super) fn scratch() -> Self {
        Self { env: vec![("PATH".into(), DEFAULT_PATH.into())], ..Self::default() }
    }

    pub(super) fn read(image: &ImageConfiguration) -> Self {
        let Some(config) = image.config() else { return Self::default() };
        let env = config.env().iter().flatten();
        Self {
            user: config.user().clone().unwrap_or_default(),
            env: env.map(|pair| pair.split_once('=').map_or((pair.clone(), String::new()), owned)).collect(),
            entrypoint: config.entrypoint().clone(),
            cmd: config.cmd().clone(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            labels: config.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ports: config.exposed_ports().iter().flatten().cloned().collect(),
            volumes: config.volumes().iter().flatten().cloned().collect(),
            stop_signal: config.stop_signal().clone(),
            author: image.author().clone(),
        }
    }

    pub(super) fn write(&self) -> Config {
        fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
            (!items.is_empty()).then_some(items)
        }
        let mut config = Config::default();
        config
            .set_user((!self.user.is_empty()).then(|| self.user.clone()))
            .set_env(some(self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()))
            .set_entrypoint(self.entrypoint.clone())
            .set_cmd(self.cmd.clone())
            .set_working_dir((!self.working_dir.is_empty()).then(|| self.working_dir.clone()))
            .set_exposed_ports(some(self.ports.iter().cloned().collect()))
            .set_volumes(some(self.volumes.iter().cloned().collect()))
            .set_stop_signal(self.stop_signal.clone())
            .set_labels((!self.labels.is_empty()).then(|| self.labels.clone().into_iter().collect()));
        config
    }

    pub(super) fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set_env(&mut self, name: &str, value: String) {
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.env.push((name.to_owned(), value)),
        }
    }

    /// `path` seen from the working directory.
    pub(super) fn absolute(&self, path: &str) -> String {
        let joined =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.working_dir) };
        let clean = super::copy::clean(&joined);
        // Whether it ends with a slash decides what COPY does with it.
        let is_directory = path.ends_with('/') || path == "." || path.ends_with("/.");
        let slash = if is_directory && clean.as_os_str() != "" { "/" } else { "" };
        format!("/{}{slash}", clean.display())
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
