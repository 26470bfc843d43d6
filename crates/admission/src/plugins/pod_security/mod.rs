//! Pod security standards, as namespaces ask for them by labels (kubernetes/kubernetes,
//! `k8s.io/pod-security-admission/admission/admission.go`).

mod baseline;
mod checks;
mod restricted;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use types::{FieldErrors, Path, Status, at};

use super::common::{list, text};
use crate::cluster::Cluster;
use crate::plugin::{Final, Plugin};
use crate::request::{Notes, Operation, Request};

pub(crate) use checks::Fault;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// How many pods of a namespace are looked at when its level changes (`defaultNamespaceMaxPodsToCheck`).
const MOST_PODS: usize = 3000;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as some minor version had it; none for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standard {
    pub(crate) level: Level,
    pub(crate) minor: Option<u32>,
}

impl Standard {
    const NONE: Self = Self { level: Level::Privileged, minor: None };

    /// Whether a rule of some minor version counts.
    pub(crate) fn since(&self, minor: u32) -> bool {
        self.minor.is_none_or(|own| own >= minor)
    }

    fn age(&self) -> u32 {
        self.minor.unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What a namespace asks for.
#[derive(Debug, PartialEq)]
struct Policy {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
}

/// Reads the labels; what cannot be read counts as the most restrictive level, as upstream has it.
fn policy(labels: &Value, errors: &mut FieldErrors) -> Policy {
    let metadata = Path::new("metadata");
    let path = metadata.child("labels");
    let mut one = |mode: &str| {
        let mut standard = Standard::NONE;
        let key = format!("{PREFIX}{mode}");
        if let Some(level) = labels.get(&key).and_then(Value::as_str) {
            standard.level = match level {
                "privileged" => Level::Privileged,
                "baseline" => Level::Baseline,
                "restricted" => Level::Restricted,
                other => {
                    let why = "must be one of privileged, baseline, restricted";
                    errors.invalid(&path.key(&key), other, why);
                    // What is enforced by mistake is enforced fully; the others only talk.
                    if mode == "enforce" { Level::Restricted } else { Level::Privileged }
                }
            };
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(version) = labels.get(&key).and_then(Value::as_str).filter(|v| *v != "latest") {
            let minor = version.strip_prefix("v1.").and_then(|m| m.parse().ok());
            match minor.filter(|m: &u32| format!("v1.{m}") == version) {
                Some(minor) => standard.minor = Some(minor),
                None => errors.invalid(&path.key(&key), version, "must be \"latest\" or \"v1.x\""),
            }
        }
        standard
    };
    Policy { enforce: one("enforce"), audit: one("audit"), warn: one("warn") }
}

/// What a pod does that a standard forbids.
pub(crate) fn evaluate(standard: Standard, metadata: &Value, spec: &Value) -> Vec<Fault> {
    let pod = checks::Pod { standard, metadata, spec };
    match standard.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::check(&pod, false),
        Level::Restricted => {
            let mut faults = baseline::check(&pod, true);
            faults.extend(restricted::check(&pod));
            faults
        }
    }
}

fn detail(faults: &[Fault]) -> String {
    let shown = |f: &Fault| {
        if f.detail.is_empty() { f.reason.clone() } else { format!("{} ({})", f.reason, f.detail) }
    };
    faults.iter().map(shown).collect::<Vec<_>>().join(", ")
}

pub(crate) struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, Final { request, object, old, cluster, notes }: Final<'_>) -> Result<(), Status> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let Some(object) = object else { return Ok(()) };
        if request.is("", "namespaces") {
            return namespace(request, object, old, cluster, notes);
        }
        let Some((template, enforce)) = pod_of(request, object) else { return Ok(()) };
        let Some(namespace) = cluster.get("namespaces", "", request.namespace) else { return Ok(()) };
        let mut errors = FieldErrors::new();
        let policy = policy(&namespace["metadata"]["labels"], &mut errors);
        let all = [policy.enforce, policy.audit, policy.warn];
        if errors.is_empty() && all[usize::from(!enforce)..].iter().all(|s| s.level == Level::Privileged) {
            return Ok(());
        }
        if enforce && request.operation == Operation::Update && old.is_some_and(|old| !matters(object, old)) {
            return Ok(());
        }
        if !errors.is_empty() {
            notes.annotate("pod-security.kubernetes.io/error", format!("Failed to parse policy: {errors}"));
        }
        let spec = &template["spec"];
        let faults = |standard| evaluate(standard, &template["metadata"], spec);
        let audit = faults(policy.audit);
        if !audit.is_empty() {
            let said =
                format!("would violate PodSecurity {:?}: {}", policy.audit.to_string(), detail(&audit));
            notes.annotate("pod-security.kubernetes.io/audit-violations", said);
        }
        if enforce {
            notes.annotate("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
            let found = faults(policy.enforce);
            if !found.is_empty() {
                let why =
                    format!("violates PodSecurity {:?}: {}", policy.enforce.to_string(), detail(&found));
                return Err(request.forbidden_of(Some(object), &why));
            }
        }
        let warn = faults(policy.warn);
        if !warn.is_empty() {
            notes.warn(format!("would violate PodSecurity {:?}: {}", policy.warn.to_string(), detail(&warn)));
        }
        Ok(())
    }
}

/// The pod, or template of one, that an object has; and whether it is a pod itself.
fn pod_of<'a>(request: &Request<'_>, object: &'a Value) -> Option<(&'a Value, bool)> {
    let path: &[&str] = match (&*request.def.gvk.group, &*request.def.resource) {
        ("", "pods") => {
            let quiet = matches!(
                request.subresource,
                "exec" | "attach" | "binding" | "eviction" | "log" | "portforward" | "proxy" | "status"
            );
            return (!quiet).then_some((object, true));
        }
        _ if !request.subresource.is_empty() => return None,
        ("", "podtemplates") => &["template"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template"],
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => &["spec", "template"],
        _ => return None,
    };
    at(object, path).map(|template| (template, false))
}

/// Whether an update of a pod changes anything that the standards look at (`isSignificantPodUpdate`).
fn matters(new: &Value, old: &Value) -> bool {
    let seccomp = |pod: &Value| -> Vec<(String, Value)> {
        let notes = at(pod, &["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten();
        notes
            .filter(|(k, _)| k.contains("seccomp.security.alpha"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let images = |pod: &Value| -> Vec<(String, String)> {
        let all = super::common::CONTAINERS.into_iter().flat_map(|field| list(&pod["spec"], &[field]));
        all.map(|c| (text(c, &["name"]).to_owned(), text(c, &["image"]).to_owned())).collect()
    };
    seccomp(new) != seccomp(old) || images(new) != images(old)
}

/// A namespace whose labels are written: they must be sound, and who tightens them is told of pods that do not fit.
fn namespace(
    request: &Request<'_>,
    object: &Value,
    old: Option<&Value>,
    cluster: &dyn Cluster,
    notes: &mut Notes,
) -> Result<(), Status> {
    let mut errors = FieldErrors::new();
    let new = policy(&object["metadata"]["labels"], &mut errors);
    let Some(old) = old.filter(|_| request.operation == Operation::Update) else {
        return if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid("", "Namespace", request.name, &errors))
        };
    };
    let mut before = FieldErrors::new();
    let was = policy(&old["metadata"]["labels"], &mut before);
    if !errors.is_empty() && before.is_empty() {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let enforce = new.enforce;
    let looser = enforce.age() <= was.enforce.age() && enforce.level <= was.enforce.level;
    if enforce.level == Level::Privileged || looser {
        return Ok(());
    }
    let pods = cluster.list_in("pods", request.name);
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(MOST_PODS) {
        let faults = evaluate(enforce, &pod["metadata"], &pod["spec"]);
        if faults.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = faults.iter().map(|f| f.reason.as_str()).collect();
        let name = text(pod, &["metadata", "name"]).to_owned();
        let entry = found.entry(reasons.join(", ")).or_insert_with(|| (name.clone(), 0));
        entry.1 += 1;
        if name < entry.0 {
            entry.0 = name;
        }
    }
    if pods.len() > MOST_PODS {
        notes.warn(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        notes.warn(format!(
            "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
            request.name,
            enforce.to_string()
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            n => format!("{name} (and {} other pods): {reasons}", n - 1),
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(|line| notes.warn(line));
    Ok(())
}

#[cfg(test)]
mod tests;
