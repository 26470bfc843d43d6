//! From a manifest to the pod that the node runs (kubernetes/kubernetes, `pkg/kubelet/config/common.go`).

use std::sync::Arc;

use base::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::references::reference;
use super::{HASH, SEEN, SOURCE};

/// The API's rules for pods. They live where the API does; the node only knows that there are some.
pub trait PodRules: Send + Sync {
    /// The pods that a text in YAML or JSON holds, fitted to their schema: one, or those of a list.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn read(&self, text: &str) -> Result<Vec<Value>, String>;

    /// Fills in what was left out, gives a new pod's status, and validates.
    ///
    /// # Errors
    /// What is wrong with the pod, as the API would word it.
    fn finish(&self, pod: Value) -> Result<Value, String>;
}

/// Who wants a pod to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    File,
    Url,
}

impl Source {
    /// As annotations have it (`pkg/kubelet/types/constants.go`).
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Url => "http",
        }
    }
}

/// A pod out of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    /// Tells this manifest from any other.
    pub(crate) print: String,
    pub(crate) source: Source,
    /// The file or URL.
    pub(crate) place: String,
}

/// Where a manifest was found, and who runs it.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) node: &'a str,
    pub(crate) source: Source,
    pub(crate) place: &'a str,
    pub(crate) now: Timestamp,
}

/// Priorities that classes have which every cluster has (`pkg/apis/scheduling/types.go`).
const CLASSES: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Makes the pod that the node runs out of one that was read.
pub(crate) fn entry(mut pod: Value, origin: Origin<'_>, rules: &dyn PodRules) -> Result<Entry, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&pod["metadata"]["name"]);
    if name.is_empty() {
        return Err("invalid pod: name is needed for the pod".to_owned());
    }
    let print = print(&pod, origin);
    let given = text(&pod["metadata"]["uid"]);
    let uid = if given.is_empty() { print.clone() } else { given };
    // Folders and cgroups are called by it.
    if !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || uid.len() > 64 {
        return Err(format!("invalid pod: metadata.uid: {uid:?} is more than letters, digits and hyphens"));
    }
    let metadata = &mut pod["metadata"];
    metadata["name"] = format!("{name}-{}", origin.node.to_lowercase()).into();
    if text(&metadata["namespace"]).is_empty() {
        metadata["namespace"] = "default".into();
    }
    metadata["uid"] = uid.clone().into();
    metadata["annotations"][HASH] = uid.into();
    metadata["annotations"][SOURCE] = origin.source.name().into();
    metadata["annotations"][SEEN] = origin.now.to_string().into();
    let spec = &mut pod["spec"];
    spec["nodeName"] = origin.node.into();
    if spec["priority"].is_null() {
        let class = CLASSES.iter().find(|(name, _)| spec["priorityClassName"] == *name);
        if let Some((_, value)) = class {
            spec["priority"] = (*value).into();
        }
    }
    if origin.source == Source::File {
        // What ails the node is no reason to send such a pod away.
        tolerate(spec, json!({"operator": "Exists", "effect": "NoExecute"}));
    }
    let pod = rules.finish(pod)?;
    if let Some(what) = reference(&pod) {
        return Err(format!("static pods may not reference {what}"));
    }
    let pod = serde_json::from_value(pod).map_err(|why| format!("invalid pod: {why}"))?;
    Ok(Entry { pod: Arc::new(pod), print, source: origin.source, place: origin.place.to_owned() })
}

fn tolerate(spec: &mut Value, toleration: Value) {
    let same =
        |other: &Value| ["key", "operator", "value", "effect"].iter().all(|f| other[f] == toleration[f]);
    match spec["tolerations"].as_array_mut() {
        Some(list) => match list.iter_mut().find(|other| same(other)) {
            Some(other) => *other = toleration,
            None => list.push(toleration),
        },
        None => spec["tolerations"] = json!([toleration]),
    }
}

/// A hash of a manifest and its place, whatever the order of its fields.
fn print(pod: &Value, origin: Origin<'_>) -> String {
    let mut hash = Fnv::default();
    hash.value(pod);
    match origin.source {
        Source::File => hash.text(&format!("host:{}file:{}", origin.node, origin.place)),
        Source::Url => hash.text(&format!("url:{}", origin.place)),
    }
    format!("{:032x}", hash.0)
}

/// FNV-1a with 128 bits, as upstream uses it: nobody is to be kept from finding another manifest of the same hash.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn text(&mut self, text: &str) {
        // The end is marked, so that two texts are not taken for others of the same letters.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut fields: Vec<_> = map.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| *name);
                self.text("{");
                for (name, value) in fields {
                    self.text(name);
                    self.value(value);
                }
                self.text("}");
            }
            Value::Array(list) => {
                self.text("[");
                list.iter().for_each(|value| self.value(value));
                self.text("]");
            }
            other => self.text(&other.to_string()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Rules that let everything through.
    pub(crate) struct Lenient;

    impl PodRules for Lenient {
        fn read(&self, text: &str) -> Result<Vec<Value>, String> {
            serde_json::from_str(text).map(|pod| vec![pod]).map_err(|e| e.to_string())
        }

        fn finish(&self, pod: Value) -> Result<Value, String> {
            Ok(pod)
        }
    }

    fn origin(place: &str) -> Origin<'_> {
        Origin { node: "Node-1", source: Source::File, place, now: "2026-01-01T00:00:00.5Z".parse().unwrap() }
    }

    fn made(pod: Value, place: &str) -> Result<Entry, String> {
        entry(pod, origin(place), &Lenient)
    }

    fn manifest() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c"}]}})
    }

    #[test]
    fn it_is_named_after_its_node_and_its_content() {
        let made_of = |pod: Value, place: &str| made(pod, place).unwrap().pod;
        let pod = made_of(manifest(), "/m/web.yaml");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let uid = pod.metadata.uid.clone().unwrap();
        assert!(uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit()), "{uid}");
        let annotations = pod.metadata.annotations.as_ref().unwrap();
        assert_eq!((annotations[HASH].as_str(), annotations[SOURCE].as_str()), (uid.as_str(), "file"));
        assert_eq!(annotations[SEEN], "2026-01-01T00:00:00.5Z");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        let toleration = &spec.tolerations.as_ref().unwrap()[0];
        assert_eq!(toleration.effect.as_deref(), Some("NoExecute"));
        let uid_of = |pod: Value, place: &str| made_of(pod, place).metadata.uid.clone().unwrap();
        assert_eq!(uid_of(manifest(), "/m/web.yaml"), uid);
        assert_ne!(uid_of(manifest(), "/m/other.yaml"), uid);
        let mut changed = manifest();
        changed["spec"]["containers"][0]["image"] = "i:2".into();
        assert_ne!(uid_of(changed, "/m/web.yaml"), uid);
    }

    #[test]
    fn an_own_uid_stays_and_a_change_shows_all_the_same() {
        let mut pod = manifest();
        pod["metadata"]["uid"] = "0a-1".into();
        let first = made(pod.clone(), "x").unwrap();
        assert_eq!(first.pod.metadata.uid.as_deref(), Some("0a-1"));
        pod["spec"]["hostNetwork"] = true.into();
        assert_ne!(made(pod.clone(), "x").unwrap().print, first.print);
        pod["metadata"]["uid"] = "../../etc".into();
        assert!(made(pod, "x").unwrap_err().contains("metadata.uid"));
    }

    #[test]
    fn well_known_classes_have_their_priority() {
        let mut pod = manifest();
        pod["spec"]["priorityClassName"] = "system-node-critical".into();
        let priority = |pod: &Value| made(pod.clone(), "x").unwrap().pod.spec.as_ref().unwrap().priority;
        assert_eq!(priority(&pod), Some(2_000_001_000));
        pod["spec"]["priority"] = 7.into();
        assert_eq!(priority(&pod), Some(7));
    }

    #[test]
    fn a_toleration_is_not_said_twice() {
        let mut pod = manifest();
        pod["spec"]["tolerations"] =
            json!([{"operator": "Exists", "effect": "NoExecute"}, {"key": "k", "operator": "Exists"}]);
        let made = made(pod, "x").unwrap();
        assert_eq!(made.pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert_eq!(made(json!({}), "x").unwrap_err(), "invalid pod: name is needed for the pod");
        let mut pod = manifest();
        pod["spec"]["serviceAccountName"] = "me".into();
        assert_eq!(made(pod, "x").unwrap_err(), "static pods may not reference serviceaccounts");
    }
}
