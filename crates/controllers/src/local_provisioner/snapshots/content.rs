//! What is to be done about a content, besides what its node does.

use client::is_deleting;
use client::snapshots::{CONTENT_FINALIZER, VolumeSnapshot, VolumeSnapshotContent};
use types::local_volumes::{DRIVER, NODE_LABEL};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContentStep {
    Nothing,
    Complain(&'static str),
    /// Its node finds it by that.
    Label(String),
    /// Nobody counts on it: it may go.
    Mark,
    Finalizers(Vec<String>),
}

/// The node that looks after a content.
pub(super) fn label(content: &VolumeSnapshotContent) -> Option<&str> {
    content.metadata.labels.as_ref()?.get(NODE_LABEL).map(String::as_str)
}

/// `node` is where its data is, if that is known; `snapshot` the one of the name that it is for.
pub(super) fn plan(
    content: &VolumeSnapshotContent,
    node: Option<&str>,
    snapshot: Option<&VolumeSnapshot>,
    node_is_there: impl Fn(&str) -> bool,
) -> ContentStep {
    if content.spec.driver != DRIVER {
        return ContentStep::Nothing;
    }
    let source = &content.spec.source;
    if source.volume_handle.is_some() == source.snapshot_handle.is_some() {
        return ContentStep::Complain("Exactly one of VolumeHandle and SnapshotHandle should be specified");
    }
    // Somebody else's controller may have made it, or a user.
    if let Some(node) = node.filter(|node| label(content) != Some(*node)) {
        return ContentStep::Label(node.to_owned());
    }
    let finalizers = || content.metadata.finalizers.iter().flatten();
    if is_deleting(&content.metadata) {
        if !content.is_held() {
            return ContentStep::Nothing;
        }
        if !content.may_go() {
            let is_alone = snapshot.is_none_or(|snapshot| !content.is_of(snapshot));
            return if is_alone { ContentStep::Mark } else { ContentStep::Nothing };
        }
        // With its node the snapshot went too, and nobody else would let the object go.
        return if label(content).is_none_or(|node| !node_is_there(node)) {
            ContentStep::Finalizers(finalizers().filter(|f| *f != CONTENT_FINALIZER).cloned().collect())
        } else {
            ContentStep::Nothing
        };
    }
    let is_bound = content.spec.volume_snapshot_ref.uid.as_deref().is_some_and(|uid| !uid.is_empty());
    if is_bound && !content.is_held() {
        return ContentStep::Finalizers(finalizers().cloned().chain([CONTENT_FINALIZER.into()]).collect());
    }
    ContentStep::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::snapshots::BEING_DELETED;
    use serde_json::{Value, json};

    fn next(node: Option<&str>, more: Value) -> ContentStep {
        let mut content = json!({"metadata": {"name": "c", "labels": {NODE_LABEL: "n1"},
            "finalizers": [CONTENT_FINALIZER, "other"]}, "spec": {"driver": DRIVER, "deletionPolicy": "Delete",
            "source": {"volumeHandle": "v"}, "volumeSnapshotRef": {"namespace": "n", "name": "s", "uid": "1"}}});
        types::patch::merge_patch(&mut content, more);
        let snapshot: VolumeSnapshot =
            testkit::object(json!({"metadata": {"namespace": "n", "name": "s", "uid": "1"}}));
        plan(&testkit::object(content), node, Some(&snapshot), |node| node == "n1")
    }

    #[test]
    fn contents_are_protected_and_find_their_node() {
        assert_eq!(next(Some("n1"), json!({})), ContentStep::Nothing);
        assert_eq!(next(Some("n2"), json!({"spec": {"driver": "x.io"}})), ContentStep::Nothing);
        assert_eq!(next(Some("n2"), json!({})), ContentStep::Label("n2".into()));
        assert_eq!(next(Some("n1"), json!({"metadata": {"labels": null}})), ContentStep::Label("n1".into()));
        assert_eq!(next(None, json!({"metadata": {"labels": null}})), ContentStep::Nothing);
        let both = json!({"spec": {"source": {"snapshotHandle": "n1/s"}}});
        assert!(matches!(next(Some("n1"), both), ContentStep::Complain(_)));
        let all = ContentStep::Finalizers(vec!["other".into(), CONTENT_FINALIZER.into()]);
        assert_eq!(next(Some("n1"), json!({"metadata": {"finalizers": ["other"]}})), all);
        let free = json!({"metadata": {"finalizers": null}, "spec": {"volumeSnapshotRef": {"uid": null}}});
        assert_eq!(next(Some("n1"), free), ContentStep::Nothing);
    }

    #[test]
    fn contents_go_with_their_snapshot_or_their_node() {
        let deleted = |more: Value| {
            let mut all = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {BEING_DELETED: "yes"}}});
            types::patch::merge_patch(&mut all, more);
            next(None, all)
        };
        assert_eq!(deleted(json!({})), ContentStep::Nothing, "its node is asked");
        let gone = ContentStep::Finalizers(vec!["other".into()]);
        assert_eq!(deleted(json!({"metadata": {"labels": {NODE_LABEL: "n2"}}})), gone);
        assert_eq!(deleted(json!({"metadata": {"labels": {NODE_LABEL: ""}}})), gone);
        let unmarked = |uid: &str| {
            deleted(json!({"metadata": {"annotations": null, "labels": {NODE_LABEL: "n2"}},
                "spec": {"volumeSnapshotRef": {"uid": uid}}}))
        };
        assert_eq!(unmarked("1"), ContentStep::Nothing, "its snapshot counts on it");
        assert_eq!(unmarked("2"), ContentStep::Mark, "it has none");
    }
}
