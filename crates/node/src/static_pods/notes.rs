//! What is remembered of the node's own pods in their folders: an agent that starts again may not find the manifest any
//! more, and the pod must end as it asked to.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};

use super::{Entry, Source};
use crate::error::NodeError;

const FILE: &str = "static-pod.json";

#[derive(Serialize, Deserialize)]
struct Note {
    pod: Pod,
    print: String,
    source: Source,
    place: String,
}

/// Remembers a pod. `folder` is its own, and is made if need be.
pub(crate) fn write(folder: &Path, entry: &Entry) -> Result<(), NodeError> {
    let path = folder.join(FILE);
    let failed = |attempt, source| NodeError::File { attempt, path: path.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(|source| failed("create the folder of", source))?;
    // A status is of a moment, but for what follows from the manifest.
    let class = entry.pod.status.as_ref().and_then(|status| status.qos_class.clone());
    let status = class.map(|class| PodStatus { qos_class: Some(class), ..PodStatus::default() });
    let note = Note {
        pod: Pod { status, ..Pod::clone(&entry.pod) },
        print: entry.print.clone(),
        source: entry.source,
        place: entry.place.clone(),
    };
    let text = serde_json::to_vec(&note).map_err(|e| failed("write", e.into()))?;
    let beside = folder.join("static-pod.new");
    std::fs::write(&beside, text).map_err(|source| failed("write", source))?;
    std::fs::rename(&beside, &path).map_err(|source| failed("write", source))
}

/// Every pod that is remembered below `pods`.
pub(crate) fn read_all(pods: &Path) -> Vec<Entry> {
    let Ok(folders) = std::fs::read_dir(pods) else { return Vec::new() };
    let read = |path: &Path| match std::fs::read(path) {
        Ok(text) => serde_json::from_slice::<Note>(&text).map_err(std::io::Error::from),
        Err(error) => Err(error),
    };
    let found = folders.flatten().filter_map(|folder| {
        let path = folder.path().join(FILE);
        match read(&path) {
            Ok(Note { pod, print, source, place }) => {
                Some(Entry { pod: Arc::new(pod), print, source, place })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read what was noted of a static pod");
                None
            }
        }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_remembered_without_their_status() {
        let pods = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "qosClass": "Burstable"}});
        let entry = Entry {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            print: "p".into(),
            source: Source::File,
            place: "/m/a.yaml".into(),
        };
        write(&pods.path().join("u"), &entry).unwrap();
        std::fs::create_dir(pods.path().join("another")).unwrap();
        std::fs::create_dir(pods.path().join("broken")).unwrap();
        std::fs::write(pods.path().join("broken").join(FILE), "rubbish").unwrap();
        let found = read_all(pods.path());
        assert_eq!(found.len(), 1);
        let status = found[0].pod.status.clone().unwrap();
        assert_eq!((found[0].print.as_str(), status.phase), ("p", None));
        assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
        assert_eq!(found[0].pod.spec, entry.pod.spec);
    }
}
