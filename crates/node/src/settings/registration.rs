//! What the node says of itself in the API.

use std::collections::BTreeMap;

pub use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

/// Labels of upstream's own that a node may give itself (`staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`).
const ALLOWED: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// And those below these, and in groups that end so.
const ALLOWED_BELOW: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The node's object as it is made, and how it is kept fresh.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationSettings {
    /// Labels besides those that every node has (`--node-labels`).
    pub labels: BTreeMap<String, String>,
    /// Taints (`registerWithTaints`).
    pub taints: Vec<Taint>,
    /// What a cloud calls the machine (`providerID`).
    pub provider_id: Option<String>,
    /// How many images the status tells of; none: all (`nodeStatusMaxImages`, -1).
    pub status_max_images: Option<usize>,
    /// After how many seconds without a word the node is lost; it speaks four times as often
    /// (`nodeLeaseDurationSeconds`).
    pub lease_duration_seconds: u32,
}

impl Default for RegistrationSettings {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            status_max_images: Some(50),
            lease_duration_seconds: 40,
        }
    }
}

impl RegistrationSettings {
    /// What cannot be.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let foreign: Vec<&str> =
            self.labels.keys().map(String::as_str).filter(|name| !is_allowed(name)).collect();
        if !foreign.is_empty() {
            faults.push(format!(
                "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: {foreign:?}\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
                ALLOWED_BELOW.join(", "),
                ALLOWED.join(", ")
            ));
        }
        for (name, value) in &self.labels {
            let wrong = types::qualified_name(name).into_iter().chain(types::label_value(value)).next();
            faults.extend(
                wrong.map(|why| format!("invalid configuration: --node-labels {name}={value}: {why}")),
            );
        }
        for taint in &self.taints {
            if !EFFECTS.contains(&taint.effect.as_str()) {
                faults.push(format!(
                    "invalid configuration: registerWithTaints: invalid taint effect: {:?}, must be one of {}",
                    taint.effect,
                    EFFECTS.join(", ")
                ));
            }
        }
        if self.lease_duration_seconds == 0 {
            faults.push("invalid configuration: nodeLeaseDurationSeconds must be greater than 0".into());
        }
        faults
    }
}

fn is_allowed(label: &str) -> bool {
    let Some((group, _)) = label.split_once('/') else { return true };
    let within = |of: &str| group == of || group.strip_suffix(of).is_some_and(|front| front.ends_with('.'));
    ALLOWED.contains(&label)
        || ALLOWED_BELOW.iter().any(|of| within(of))
        || !(within("kubernetes.io") || within("k8s.io"))
}

/// Reads a taint as `kubectl taint` writes it: `key=value:Effect` or `key:Effect`.
///
/// # Errors
/// A sentence that says what it is like.
pub fn parse_taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("{text:?} is not key=value:NoSchedule, key:NoExecute or the like");
    let (name, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value)));
    if key.is_empty() || !EFFECTS.contains(&effect) {
        return Err(wrong());
    }
    Ok(Taint { key: key.into(), value: value.map(Into::into), effect: effect.into(), time_added: None })
}

/// `registerWithTaints`.
pub(super) fn taints(value: &Value) -> Result<Vec<Taint>, &'static str> {
    const FORM: &str = "[]Taint: key, value and effect";
    let one = |taint: &Value| {
        let map = taint.as_object().ok_or(FORM)?;
        let known = |name: &String| matches!(name.as_str(), "key" | "value" | "effect" | "timeAdded");
        if !map.keys().all(known) || !map.contains_key("key") {
            return Err(FORM);
        }
        serde_json::from_value(taint.clone()).map_err(|_| FORM)
    };
    value.as_array().ok_or(FORM)?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_kubectl_writes_them() {
        let taint = parse_taint("a.example/b=c:NoSchedule").unwrap();
        assert_eq!(
            (&*taint.key, taint.value.as_deref(), &*taint.effect),
            ("a.example/b", Some("c"), "NoSchedule")
        );
        assert_eq!(parse_taint("a:NoExecute").unwrap().value, None);
        for wrong in ["", "a", "a=b", ":NoSchedule", "a:Never"] {
            assert!(parse_taint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_of_upstreams_own_are_few() {
        let with = |name: &str, value: &str| RegistrationSettings {
            labels: [(name.to_owned(), value.to_owned())].into(),
            ..RegistrationSettings::default()
        };
        for fine in ["disk", "example.com/a", "topology.kubernetes.io/zone", "x.node.kubernetes.io/a"] {
            assert_eq!(with(fine, "v").faults(), Vec::<String>::new());
        }
        for wrong in ["node-role.kubernetes.io/worker", "kubernetes.io/a", "a.k8s.io/b"] {
            assert!(with(wrong, "").faults()[0].contains(wrong));
        }
        assert!(with("a b", "").faults()[0].contains("--node-labels a b="));
        assert!(with("a", "b c").faults()[0].contains("--node-labels a=b c"));
    }
}
