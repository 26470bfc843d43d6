//! Somebody else says which images may run (kubernetes/kubernetes, `plugin/pkg/admission/imagepolicy`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use types::{Status, ensure_object, str_at};

use crate::cluster::Cluster;
use crate::plugins::common::list;
use crate::request::{Notes, Operation, Request};
use crate::settings::SettingsError;

const NAME: &str = "ImagePolicyWebhook";
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// What a pod says of itself whose images nobody could be asked about.
const FAILED_OPEN: &str = "alpha.image-policy.k8s.io/failed-open";
/// Answers that are remembered at most.
const MOST_ANSWERS: usize = 1024;
/// So long nobody is asked again who did not answer, so that one request asks once.
const SILENT: Duration = Duration::from_secs(2);

/// Where images are asked about, and what is made of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePolicyConfig {
    /// The kubeconfig of the server that knows.
    pub kubeconfig: PathBuf,
    /// How long it is left alone after the first failure.
    pub retry_backoff: Duration,
    allow: Duration,
    deny: Duration,
    default_allow: bool,
}

impl ImagePolicyConfig {
    /// Out of the plugin's configuration.
    pub(crate) fn read(config: &Value) -> Result<Self, SettingsError> {
        let fault = |why: String| SettingsError::Plugin { plugin: NAME, why };
        let config = &config["imagePolicy"];
        let file = str_at(config, &["kubeConfigFile"]).filter(|f| !f.is_empty());
        let file = file.ok_or_else(|| fault("imagePolicy.kubeConfigFile is missing".into()))?;
        let time = |field: &str, scale: u64, default: Duration, most: Duration| match &config[field] {
            Value::Null => Ok(default),
            value => match value.as_i64() {
                Some(-1) => Ok(Duration::ZERO),
                Some(0) => Ok(default),
                Some(n) => {
                    let given = u64::try_from(n).ok().map(|n| Duration::from_millis(n.saturating_mul(scale)));
                    let least = if scale == 1 { Duration::ZERO } else { Duration::from_secs(1) };
                    given.filter(|t| *t > least && *t <= most).ok_or_else(|| {
                        fault(format!(
                            "imagePolicy.{field}: valid value is between {least:?} and {most:?}, got {value}"
                        ))
                    })
                }
                None => Err(fault(format!("imagePolicy.{field}: {value} is no whole number"))),
            },
        };
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let default_allow = match &config["defaultAllow"] {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            other => {
                return Err(fault(format!("imagePolicy.defaultAllow: {other} is neither true nor false")));
            }
        };
        Ok(Self {
            kubeconfig: file.into(),
            retry_backoff: time("retryBackoff", 1, Duration::from_millis(500), minutes(5))?,
            allow: time("allowTTL", 1000, minutes(5), minutes(30))?,
            deny: time("denyTTL", 1000, Duration::from_secs(30), minutes(30))?,
            default_allow,
        })
    }
}

/// What was said of some images: whether they may run, why not, and what the audit should know.
#[derive(Clone, Debug, Default)]
struct Answer {
    allowed: bool,
    reason: String,
    annotations: Vec<(String, String)>,
}

type Known = Result<Answer, String>;

pub(crate) struct ImagePolicy {
    config: ImagePolicyConfig,
    answers: Mutex<HashMap<String, (Timestamp, Known)>>,
}

impl ImagePolicy {
    pub(crate) fn new(config: ImagePolicyConfig) -> Self {
        Self { config, answers: Mutex::default() }
    }

    /// Marks a pod whose images nobody can be asked about now, and which is let in all the same.
    pub(crate) async fn admit(&self, request: &Request<'_>, pod: &mut Value, cluster: &dyn Cluster) {
        if self.config.default_allow
            && let Some(spec) = spec(request, pod)
            && self.ask(spec, cluster).await.is_err()
        {
            ensure_object(ensure_object(pod, "metadata"), "annotations")[FAILED_OPEN] = "true".into();
        }
    }

    /// Refuses what must not run.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        pod: &Value,
        cluster: &dyn Cluster,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let Some(spec) = spec(request, pod) else { return Ok(()) };
        let answer = match self.ask(spec, cluster).await {
            Ok(answer) => answer,
            Err(_) if self.config.default_allow => {
                notes.annotate(format!("{AUDIT_PREFIX}failed-open"), "true");
                return Ok(());
            }
            Err(why) => return Err(request.forbidden_of(Some(pod), &why)),
        };
        for (key, value) in &answer.annotations {
            notes.annotate(format!("{AUDIT_PREFIX}{key}"), value.as_str());
        }
        if answer.allowed {
            return Ok(());
        }
        let why = match answer.reason.as_str() {
            "" => "one or more images rejected by webhook backend".to_owned(),
            reason => format!("image policy webhook backend denied one or more images: {reason}"),
        };
        Err(request.forbidden_of(Some(pod), &why))
    }

    async fn ask(&self, spec: Value, cluster: &dyn Cluster) -> Known {
        let question = spec.to_string();
        let now = cluster.now();
        if let Some((_, known)) = self.answers.lock().get(&question).filter(|(end, _)| *end > now) {
            return known.clone();
        }
        let review = json!({"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {}, "spec": spec});
        let known = cluster.review_images(&review).await.map(|answer| {
            let status = &answer["status"];
            let annotations = status["auditAnnotations"].as_object().into_iter().flatten();
            Answer {
                allowed: status["allowed"] == true,
                reason: str_at(status, &["reason"]).unwrap_or_default().to_owned(),
                annotations: annotations
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                    .collect(),
            }
        });
        let hold = match &known {
            Ok(answer) if answer.allowed => self.config.allow,
            Ok(_) => self.config.deny,
            Err(_) => SILENT,
        };
        let now = cluster.now();
        let mut answers = self.answers.lock();
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, (end, _)| *end > now);
            if answers.len() >= MOST_ANSWERS {
                answers.clear();
            }
        }
        answers.insert(question, (now + hold, known.clone()));
        known
    }
}

/// The question about a pod's images, if a request brings any.
fn spec(request: &Request<'_>, pod: &Value) -> Option<Value> {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    let fields: &[&str] = match request.subresource {
        _ if !written => return None,
        "" if request.is("", "pods") => &["containers", "initContainers"],
        "ephemeralcontainers" if request.is_part("", "pods", "ephemeralcontainers") => {
            &["ephemeralContainers"]
        }
        _ => return None,
    };
    let images: Vec<Value> = fields
        .iter()
        .flat_map(|field| list(&pod["spec"], &[field]))
        .map(|c| json!({"image": str_at(c, &["image"]).unwrap_or_default()}))
        .collect();
    let mut spec = json!({"containers": images, "namespace": request.namespace});
    let annotations: Map<String, Value> = pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.contains(".image-policy.k8s.io/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !annotations.is_empty() {
        spec["annotations"] = Value::Object(annotations);
    }
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_upstreams() {
        let read = |config: Value| {
            ImagePolicyConfig::read(&json!({"imagePolicy": config})).map_err(|e| e.to_string())
        };
        let usual = read(json!({"kubeConfigFile": "/k", "allowTTL": 0, "denyTTL": -1})).unwrap();
        assert_eq!(
            (usual.allow.as_secs(), usual.deny.as_secs(), usual.retry_backoff.as_millis()),
            (300, 0, 500)
        );
        let given = json!({"kubeConfigFile": "/k", "allowTTL": 50, "denyTTL": 60, "retryBackoff": 700, "defaultAllow": true});
        let given = read(given).unwrap();
        assert_eq!(
            (given.allow.as_secs(), given.deny.as_secs(), given.retry_backoff.as_millis()),
            (50, 60, 700)
        );
        assert!(given.default_allow);
        for (config, why) in [
            (json!({}), "imagePolicy.kubeConfigFile is missing"),
            (
                json!({"kubeConfigFile": "/k", "allowTTL": 1}),
                "imagePolicy.allowTTL: valid value is between 1s and 1800s",
            ),
            (json!({"kubeConfigFile": "/k", "denyTTL": 1801}), "imagePolicy.denyTTL: valid value is between"),
            (
                json!({"kubeConfigFile": "/k", "retryBackoff": -5}),
                "imagePolicy.retryBackoff: valid value is between",
            ),
            (
                json!({"kubeConfigFile": "/k", "retryBackoff": "x"}),
                "imagePolicy.retryBackoff: \"x\" is no whole number",
            ),
            (
                json!({"kubeConfigFile": "/k", "defaultAllow": 1}),
                "imagePolicy.defaultAllow: 1 is neither true nor false",
            ),
        ] {
            let told = read(config.clone()).unwrap_err();
            assert!(told.contains(why), "{config}: {told}");
        }
    }
}
