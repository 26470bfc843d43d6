//! The scheduler's configuration file: a KubeSchedulerConfiguration of `kubescheduler.config.k8s.io/v1`
//! (kubernetes/kubernetes, `pkg/scheduler/apis/config`).
//!
//! ```text
//! YAML ─► schema (unknown fields, types) ─► text ─► rules ─► plugins of each profile ─► Settings
//! ```

mod args;
mod plugins;
mod profile;
mod text;
mod validate;

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use types::{Definitions, FieldErrors};

use args::AllArgs;
use plugins::Parts;
use text::{ConfigText, ExtenderText, PluginConfigText, ProfileText};

pub(crate) use args::ShapePoint;
pub(crate) use plugins::Plugin;
pub(crate) use profile::{Profile, Strategy};

const GROUP_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// How long an extender may take (`pkg/scheduler/extender.go`, `DefaultExtenderTimeout`).
const EXTENDER_PATIENCE: Duration = Duration::from_secs(5);

/// A configuration that cannot be used.
#[derive(Clone, Debug)]
pub enum SettingsError {
    /// It is something else.
    Kind {
        /// What it says it is.
        kind: String,
        /// Of which version.
        version: String,
    },
    /// Fields that there are not, or whose values have another type.
    Decode(String),
    /// Values that make no sense.
    Invalid(FieldErrors),
    /// Plugins that do not fit together.
    Plugins {
        /// The profile's scheduler name.
        profile: String,
        /// Why.
        why: String,
    },
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { kind, version } => write!(
                f,
                "no kind {kind:?} is registered for version {version:?}; it must be a {KIND} of {GROUP_VERSION}"
            ),
            Self::Decode(why) => f.write_str(why),
            Self::Invalid(errors) => {
                let all: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
                match all.as_slice() {
                    [one] => f.write_str(one),
                    all => write!(f, "[{}]", all.join(", ")),
                }
            }
            Self::Plugins { profile, why } => {
                write!(f, "initializing profiles: creating profile for scheduler name {profile}: {why}")
            }
        }
    }
}

/// How pods are placed: profiles, extenders, and the pace of the queue.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) profiles: Vec<Arc<Profile>>,
    pub(crate) first_backoff: Duration,
    pub(crate) most_backoff: Duration,
    /// Others who have a say.
    pub extenders: Vec<ExtenderSettings>,
}

/// Somebody else who has a say in the placement of pods, over HTTP
/// (kubernetes/kubernetes, `pkg/scheduler/apis/config/types.go`, `Extender`).
#[derive(Clone, Debug, Default)]
pub struct ExtenderSettings {
    /// Where it is, without a verb.
    pub url: String,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How it is trusted, if it is called over TLS.
    pub tls: Option<ExtenderTls>,
    pub(crate) filter: String,
    pub(crate) preempt: String,
    pub(crate) prioritize: String,
    pub(crate) bind: String,
    pub(crate) weight: i64,
    /// It knows the nodes, and is told their names only.
    pub(crate) knows_nodes: bool,
    /// It is asked only about pods that want one of these; about all if there are none.
    pub(crate) managed: Vec<String>,
    /// Pods are placed without its word when it does not answer.
    pub(crate) ignorable: bool,
}

/// How an extender is called over TLS. What is given in the file itself overrules what is in the file named.
#[derive(Clone, Debug, Default)]
pub struct ExtenderTls {
    /// Its certificate may come from anybody.
    pub insecure: bool,
    /// The name that its certificate must have, if not the URL's.
    pub server_name: String,
    /// The authority's certificate: a file, or PEM in base64.
    pub authority: (String, String),
    /// The client's certificate, likewise.
    pub certificate: (String, String),
    /// The client's key, likewise.
    pub key: (String, String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::standard().clone()],
            first_backoff: Duration::from_secs(1),
            most_backoff: Duration::from_secs(10),
            extenders: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the content of a file.
    pub fn read(file: &Value) -> Result<Self, SettingsError> {
        let text = |field: &str| file[field].as_str().unwrap_or_default().to_owned();
        if (text("kind").as_str(), text("apiVersion").as_str()) != (KIND, GROUP_VERSION) {
            return Err(SettingsError::Kind { kind: text("kind"), version: text("apiVersion") });
        }
        let mut config: ConfigText = decode(KIND, file.clone())?;
        if config.profiles.is_empty() {
            config.profiles.push(ProfileText::default());
        }
        if let [only] = config.profiles.as_mut_slice() {
            only.scheduler_name.get_or_insert_with(|| crate::NAME.to_owned());
        }
        let args = config.profiles.iter().map(|profile| args_of(&profile.plugin_config));
        let args: Vec<AllArgs> = args.collect::<Result<_, _>>()?;
        let mut errors = FieldErrors::new();
        validate::validate(&config, &args, &mut errors);
        if !errors.is_empty() {
            return Err(SettingsError::Invalid(errors));
        }
        let managed = config.extenders.iter().flat_map(|extender| &extender.managed_resources);
        let managed: Vec<String> =
            managed.filter(|resource| resource.ignored_by_scheduler).map(|r| r.name.clone()).collect();
        let profiles = config.profiles.iter().zip(args).map(|(text, args)| {
            let name = text.scheduler_name.as_deref().unwrap_or_default();
            let plugins = |why| SettingsError::Plugins { profile: name.to_owned(), why };
            let parts = Parts::of(&text.plugins).map_err(plugins)?;
            if !parts.sorts() {
                let why = format!(
                    "at least one queue sort plugin is needed for profile with scheduler name {name:?}"
                );
                return Err(plugins(why));
            }
            if !parts.binds() {
                let why =
                    format!("at least one bind plugin is needed for profile with scheduler name {name:?}");
                return Err(plugins(why));
            }
            let percentage = text.percentage_of_nodes_to_score.or(config.percentage_of_nodes_to_score);
            Ok(Arc::new(Profile::new(name, parts, args, percentage.unwrap_or(0), &managed)))
        });
        Ok(Self {
            profiles: profiles.collect::<Result<_, _>>()?,
            first_backoff: Duration::from_secs(config.pod_initial_backoff_seconds.unsigned_abs()),
            most_backoff: Duration::from_secs(config.pod_max_backoff_seconds.unsigned_abs()),
            extenders: config.extenders.into_iter().map(extender).collect(),
        })
    }

    /// The profile of a scheduler's name. Pods of other names are none of ours.
    pub(crate) fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| *profile.name == *name)
    }
}

fn extender(text: ExtenderText) -> ExtenderSettings {
    let tls = text.tls_config.unwrap_or_default();
    let secure = text.url_prefix.starts_with("https:");
    let timeout = text::duration(&text.http_timeout).filter(|timeout| !timeout.is_zero());
    ExtenderSettings {
        url: text.url_prefix,
        timeout: timeout.unwrap_or(EXTENDER_PATIENCE),
        tls: secure.then_some(ExtenderTls {
            // Upstream trusts anybody, too, if no authority is named; here that is asked for in so many words.
            insecure: tls.insecure,
            server_name: tls.server_name,
            authority: (tls.ca_file, tls.ca_data),
            certificate: (tls.cert_file, tls.cert_data),
            key: (tls.key_file, tls.key_data),
        }),
        filter: text.filter_verb,
        preempt: text.preempt_verb,
        prioritize: text.prioritize_verb,
        bind: text.bind_verb,
        weight: text.weight,
        knows_nodes: text.node_cache_capable,
        managed: text.managed_resources.into_iter().map(|resource| resource.name).collect(),
        ignorable: text.ignorable,
    }
}

/// Reads a value of a type of the schema, strictly.
fn decode<T: DeserializeOwned>(name: &str, mut value: Value) -> Result<T, SettingsError> {
    static SCHEMA: LazyLock<Definitions> = LazyLock::new(|| {
        let schema = serde_json::from_str(include_str!("schema.json"));
        Definitions::from_openapi(&schema.unwrap_or_else(|why| unreachable!("the schema is no JSON: {why}")))
    });
    let id = SCHEMA.find(name).unwrap_or_else(|| unreachable!("the schema has no {name}"));
    let errors = SCHEMA.decode(id, &mut value);
    if let Some(mismatch) = errors.mismatch {
        return Err(SettingsError::Decode(mismatch));
    }
    if !errors.unknown.is_empty() {
        let all: Vec<String> =
            errors.unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
        return Err(SettingsError::Decode(format!("strict decoding error: {}", all.join(", "))));
    }
    serde_json::from_value(value).map_err(|why| SettingsError::Decode(why.to_string()))
}

fn args_of(list: &[PluginConfigText]) -> Result<AllArgs, SettingsError> {
    let mut all = AllArgs::default();
    for PluginConfigText { name, args } in list.iter().filter(|config| !config.args.is_null()) {
        let kind = format!("{name}Args");
        for (field, wanted) in [("kind", kind.as_str()), ("apiVersion", GROUP_VERSION)] {
            let said = args[field].as_str().unwrap_or(wanted);
            if said != wanted {
                let why =
                    format!("args for plugin {name} were not of type {GROUP_VERSION}/{kind}, got {said}");
                return Err(SettingsError::Decode(format!("decoding args for plugin {name:?}: {why}")));
            }
        }
        let decoded = match Plugin::of(name) {
            Some(Plugin::DefaultPreemption) => decode(&kind, args.clone()).map(|args| all.preemption = args),
            Some(Plugin::InterPodAffinity) => decode(&kind, args.clone()).map(|args| all.others = args),
            Some(Plugin::NodeAffinity) => decode(&kind, args.clone()).map(|args| all.nodes = args),
            Some(Plugin::NodeResourcesBalancedAllocation) => {
                decode(&kind, args.clone()).map(|args| all.balanced = args)
            }
            Some(Plugin::NodeResourcesFit) => decode(&kind, args.clone()).map(|args| all.fit = args),
            Some(Plugin::PodTopologySpread) => decode(&kind, args.clone()).map(|args| all.spread = args),
            Some(Plugin::VolumeBinding) => decode(&kind, args.clone()).map(|args| all.volumes = args),
            Some(Plugin::DynamicResources) => decode(&kind, args.clone()).map(|args| all.devices = args),
            // Validation has its say about plugins that there are not.
            None => Ok(()),
            Some(_) => Err(SettingsError::Decode("it takes none".to_owned())),
        };
        let named = |why| SettingsError::Decode(format!("decoding args for plugin {name:?}: {why}"));
        decoded.map_err(named)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
