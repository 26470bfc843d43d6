use serde_json::Value;
use types::local_volumes::{DRIVER, NODE_LABEL, of_snapshot_handle};

use super::only_lets_go;
use crate::plugins::common::text;

/// Keeps a content until its node has dealt with the snapshot.
const FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// Of a snapshot of the built-in storage, the node that keeps it may say how it is, and that it need not be kept any
/// more. Upstream's nodes have nothing to do with snapshots.
pub(super) fn content(node: &str, subresource: &str, new: &Value, old: &Value) -> Result<(), String> {
    if text(old, &["spec", "driver"]) != DRIVER {
        return Ok(());
    }
    if text(old, &["metadata", "labels", NODE_LABEL]) != node {
        return Err(format!("node {node:?} can only change contents of snapshots that it keeps"));
    }
    if subresource == "status" {
        let rest = |content: &Value| {
            let mut content = content.clone();
            let all = types::object(&mut content);
            all.remove("status");
            for field in ["resourceVersion", "managedFields"] {
                types::object(&mut content["metadata"]).remove(field);
            }
            content
        };
        let handle = text(new, &["status", "snapshotHandle"]);
        let own = handle.is_empty() || of_snapshot_handle(handle).is_some_and(|(of, _)| of == node);
        return if rest(new) == rest(old) && own {
            Ok(())
        } else {
            Err(format!("node {node:?} may only tell of its own snapshots in the status of a content"))
        };
    }
    if only_lets_go(FINALIZER, new, old) {
        return Ok(());
    }
    Err(format!("node {node:?} may only take the finalizer {FINALIZER:?} off a content"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given() -> Value {
        json!({"metadata": {"name": "c", "labels": {NODE_LABEL: "n1"}, "finalizers": [FINALIZER, "other"],
            "resourceVersion": "1"}, "spec": {"driver": DRIVER, "deletionPolicy": "Delete"}})
    }

    fn changed(change: Value) -> Value {
        let mut content = given();
        types::patch::merge_patch(&mut content, change);
        content
    }

    #[test]
    fn a_node_tells_and_lets_go_and_no_more() {
        let main = |change: Value| content("n1", "", &changed(change), &given());
        assert_eq!(main(json!({"metadata": {"finalizers": ["other"], "resourceVersion": "2"}})), Ok(()));
        for bad in [
            json!({"metadata": {"finalizers": []}}),
            json!({"metadata": {"finalizers": [FINALIZER, "other", "new"]}}),
            json!({"metadata": {"labels": {NODE_LABEL: "n2"}}}),
            json!({"metadata": {"annotations": {"a": "b"}}}),
            json!({"spec": {"deletionPolicy": "Retain"}}),
            json!({"metadata": {"finalizers": ["other"]}, "status": {"readyToUse": true}}),
        ] {
            assert!(main(bad.clone()).unwrap_err().contains("may only take the finalizer"), "{bad}");
        }
        let status = |change: Value| content("n1", "status", &changed(change), &given());
        assert_eq!(status(json!({"status": {"readyToUse": true, "snapshotHandle": "n1/s"}})), Ok(()));
        assert_eq!(status(json!({"status": {"error": {"message": "full"}}})), Ok(()));
        for bad in [
            json!({"status": {"snapshotHandle": "n2/s"}}),
            json!({"status": {"snapshotHandle": "s"}}),
            json!({"status": {"readyToUse": true}, "metadata": {"labels": {"a": "b"}}}),
            json!({"spec": {"deletionPolicy": "Retain"}}),
        ] {
            assert!(status(bad.clone()).unwrap_err().contains("its own snapshots"), "{bad}");
        }
        for subresource in ["", "status"] {
            let stranger = content("n2", subresource, &given(), &given());
            assert!(stranger.unwrap_err().contains("can only change contents of snapshots that it keeps"));
        }
    }
}
