use client::snapshots::BEING_DELETED;
use types::local_volumes::CLASS;

use super::*;

fn snapshot(more: Value) -> VolumeSnapshot {
    let mut all = json!({"metadata": {"namespace": "n", "name": "s", "uid": "1", "finalizers": [SOURCE_FINALIZER]},
        "spec": {"source": {"persistentVolumeClaimName": "c"}, "volumeSnapshotClassName": CLASS}});
    types::patch::merge_patch(&mut all, more);
    testkit::object(all)
}

fn class(name: &str, driver: &str, mark: &str) -> Arc<VolumeSnapshotClass> {
    arc(json!({"metadata": {"name": name, "annotations": {DEFAULT_CLASS: mark}}, "driver": driver,
        "deletionPolicy": "Delete"}))
}

fn content(more: Value) -> Arc<VolumeSnapshotContent> {
    let mut all = json!({"metadata": {"name": "snapcontent-1"}, "spec": {"driver": DRIVER, "deletionPolicy": "Delete",
        "source": {"volumeHandle": "v"}, "volumeSnapshotRef": {"namespace": "n", "name": "s", "uid": "1"}}});
    types::patch::merge_patch(&mut all, more);
    arc(all)
}

fn arc<T: serde::de::DeserializeOwned>(object: Value) -> Arc<T> {
    Arc::new(testkit::object(object))
}

/// A bound claim of ours, with finalizer, and the class.
fn seen() -> Seen {
    let claim = json!({"metadata": {"namespace": "n", "name": "c", "uid": "7", "finalizers": [CLAIM_FINALIZER]},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
    let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "7"},
        "volumeMode": "Filesystem",
        "csi": {"driver": DRIVER, "volumeHandle": "v", "volumeAttributes": {"node": "n1", "kind": "image"}}}});
    Seen {
        content: None,
        class: Some(class(CLASS, DRIVER, "true")),
        classes: Vec::new(),
        claim: Some(arc(claim)),
        volume: Some(arc(volume)),
        restoring: false,
    }
}

fn said(step: Step) -> (&'static str, String, bool) {
    match step {
        Step::Fail { reason, message, unready } => (reason, message, unready),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_gets_a_content_and_tells_what_that_says() {
    let bare = snapshot(json!({"metadata": {"finalizers": null}}));
    let Step::Finalizers(all) = plan(&bare, &seen()) else { panic!("is protected") };
    assert_eq!(all, [SOURCE_FINALIZER]);
    let mut free = seen();
    free.claim = Some(arc(json!({"metadata": {"namespace": "n", "name": "c", "uid": "7"},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}})));
    assert!(matches!(plan(&snapshot(json!({})), &free), Step::HoldClaim));
    let Step::Make(made) = plan(&snapshot(json!({})), &seen()) else { panic!("is made") };
    assert_eq!(made.metadata.name.as_deref(), Some("snapcontent-1"));
    assert_eq!(made.metadata.labels.as_ref().unwrap()[NODE_LABEL], "n1");
    assert_eq!(made.spec.source.volume_handle.as_deref(), Some("v"));
    assert_eq!(made.spec.source_volume_mode.as_deref(), Some("Filesystem"));
    assert_eq!((made.spec.deletion_policy.as_str(), made.is_held()), ("Delete", true));
    assert!(made.is_of(&snapshot(json!({}))));
    // Nothing is known of it yet, then all is.
    let with = |more: Value| Seen { content: Some(content(more)), ..seen() };
    let Step::Say { status, created, ready } = plan(&snapshot(json!({})), &with(json!({}))) else {
        panic!("is said")
    };
    assert_eq!(status["boundVolumeSnapshotContentName"], "snapcontent-1");
    assert_eq!((status["readyToUse"].clone(), created, ready), (json!(false), false, false));
    let bound = json!({"metadata": {"finalizers": [SOURCE_FINALIZER, BOUND_FINALIZER]}, "status": status});
    let taken = json!({"status": {"snapshotHandle": "n1/s", "creationTime": 1_700_000_000_000_000_001i64,
        "restoreSize": 33_554_432, "readyToUse": true}});
    let step = plan(&snapshot(bound.clone()), &with(taken.clone()));
    let Step::Say { status, created, ready } = step else { panic!("is said") };
    assert!(created && ready);
    assert_eq!(
        (&status["restoreSize"], &status["creationTime"]),
        (&json!("32Mi"), &json!("2023-11-14T22:13:20Z"))
    );
    let mut done = bound.clone();
    done["status"] = status;
    assert!(matches!(plan(&snapshot(done.clone()), &with(taken)), Step::Nothing));
    // The bound one is protected as long as its content goes with it.
    let mut bare = done.clone();
    bare["metadata"]["finalizers"] = json!([SOURCE_FINALIZER]);
    assert!(matches!(plan(&snapshot(bare.clone()), &with(json!({}))), Step::Finalizers(_)));
    let kept = with(json!({"spec": {"deletionPolicy": "Retain"}}));
    assert!(matches!(plan(&snapshot(bare), &kept), Step::Nothing));
    // What went wrong on the node is told; a content that is lost is not made again.
    let failed = with(json!({"status": {"readyToUse": false, "error": {"message": "full"}}}));
    let Step::Say { status, .. } = plan(&snapshot(bound), &failed) else { panic!("is said") };
    assert_eq!(status["error"]["message"], "full");
    let (reason, _, unready) = said(plan(&snapshot(done.clone()), &seen()));
    assert_eq!((reason, unready), ("SnapshotContentMissing", true));
    done["status"]["readyToUse"] = false.into();
    assert_eq!(said(plan(&snapshot(done), &seen())).0, "SnapshotContentMissing");
}

#[test]
fn classes_are_found_or_missed() {
    let unnamed = || snapshot(json!({"spec": {"volumeSnapshotClassName": null}}));
    let among = |classes: Vec<Arc<VolumeSnapshotClass>>| Seen { class: None, classes, ..seen() };
    let ours = || class("ours", DRIVER, "true");
    let all = vec![class("x", "x.io", "true"), class("plain", DRIVER, "false"), ours()];
    let Step::TakeClass(name) = plan(&unnamed(), &among(all)) else { panic!("is taken") };
    assert_eq!(name, "ours");
    let text = "Failed to set default snapshot class with error";
    let (reason, message, unready) = said(plan(&unnamed(), &among(vec![])));
    assert_eq!((reason, unready), ("SetDefaultSnapshotClassFailed", false));
    assert_eq!(message, format!("{text} cannot find default snapshot class"));
    let (_, message, _) = said(plan(&unnamed(), &among(vec![ours(), class("too", DRIVER, "true")])));
    assert_eq!(message, format!("{text} 2 default snapshot classes were found"));
    let (reason, message, _) = said(plan(&snapshot(json!({})), &Seen { class: None, ..seen() }));
    assert_eq!(reason, "GetSnapshotClassFailed");
    assert_eq!(
        message,
        "Failed to get snapshot class with error volumesnapshotclass.snapshot.storage.k8s.io \"local\" not found"
    );
    // It is said once.
    let told = json!({"status": {"error": {"message": message}}});
    assert!(matches!(plan(&snapshot(told), &Seen { class: None, ..seen() }), Step::Nothing));
}

#[test]
fn what_cannot_be_taken_is_told_in_upstreams_words() {
    let pending = |more: Value| {
        let mut claim =
            json!({"metadata": {"namespace": "n", "name": "c", "uid": "7"}, "status": {"phase": "Pending"}});
        types::patch::merge_patch(&mut claim, more);
        Seen { claim: Some(arc(claim)), volume: None, ..seen() }
    };
    let (reason, message, _) = said(plan(&snapshot(json!({})), &pending(json!({}))));
    assert_eq!(reason, "SnapshotContentCreationFailed");
    assert_eq!(
        message,
        "Failed to create snapshot content with error failed to get input parameters to create snapshot s: \"the PVC c is \
         not yet bound to a PV, will not attempt to take a snapshot\""
    );
    let (_, message, _) = said(plan(&snapshot(json!({})), &Seen { claim: None, volume: None, ..seen() }));
    assert!(
        message.ends_with("failed to update s on API server: cannot get claim from snapshot"),
        "{message}"
    );
    let going = pending(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let (_, message, _) = said(plan(&snapshot(json!({})), &going));
    assert!(message.ends_with("cannot add finalizer on claim because it is being deleted"), "{message}");
    let both = json!({"spec": {"source": {"volumeSnapshotContentName": "x"}}});
    assert_eq!(said(plan(&snapshot(both), &seen())).0, "SnapshotValidationError");
    let foreign = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "7"},
        "csi": {"driver": "x.io", "volumeHandle": "v"}}});
    let foreign = || Some(arc(foreign.clone()));
    let (_, message, _) = said(plan(&snapshot(json!({})), &Seen { volume: foreign(), ..seen() }));
    assert!(message.contains("volume v is one of driver \"x.io\""), "{message}");
    // Others look after theirs.
    for other in [
        Seen { class: Some(class("x", "x.io", "")), ..seen() },
        Seen { content: Some(content(json!({"spec": {"driver": "x.io"}}))), ..seen() },
        Seen { class: None, volume: foreign(), ..seen() },
        Seen { class: None, ..pending(json!({"metadata": {"annotations": {PROVISIONER: "x.io"}}})) },
    ] {
        assert!(matches!(plan(&snapshot(json!({})), &other), Step::Nothing));
    }
}

#[test]
fn a_content_that_was_there_is_bound() {
    let given = || {
        let source = json!({"persistentVolumeClaimName": null, "volumeSnapshotContentName": "old"});
        snapshot(json!({"spec": {"source": source}}))
    };
    let with = |uid: Value, more: Value| {
        let mut all = json!({"metadata": {"name": "old"}, "spec": {"source": {"volumeHandle": null,
            "snapshotHandle": "n1/x"}, "volumeSnapshotRef": {"uid": uid}}});
        types::patch::merge_patch(&mut all, more);
        Seen { content: Some(content(all)), claim: None, volume: None, ..seen() }
    };
    let Step::Bind(change) = plan(&given(), &with(Value::Null, json!({}))) else { panic!("is bound") };
    assert_eq!(
        change,
        json!({"spec": {"volumeSnapshotRef": {"uid": "1"}, "volumeSnapshotClassName": CLASS}})
    );
    let bound = json!({"spec": {"volumeSnapshotClassName": CLASS}});
    assert!(matches!(plan(&given(), &with(json!("1"), bound)), Step::Say { .. }));
    assert_eq!(said(plan(&given(), &with(json!("2"), json!({})))).0, "SnapshotContentMisbound");
    assert_eq!(said(plan(&given(), &Seen { content: None, ..seen() })).0, "SnapshotContentMissing");
    let taken = with(json!("1"), json!({"spec": {"source": {"snapshotHandle": null, "volumeHandle": "v"}}}));
    assert_eq!(said(plan(&given(), &taken)).0, "SnapshotContentMismatch");
}

#[test]
fn a_snapshot_goes_after_its_content() {
    let both = json!([SOURCE_FINALIZER, BOUND_FINALIZER, "other"]);
    let going = |finalizers: &Value| {
        snapshot(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}}))
    };
    let with = |more: Value| Seen { content: Some(content(more)), ..seen() };
    let marked = json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}});
    let mut deleted = marked.clone();
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let restoring = |more: Value| Seen { restoring: true, ..with(more) };
    assert!(matches!(
        plan(&going(&both), &restoring(json!({}))),
        Step::Refuse { reason: "SnapshotDeletePending", .. }
    ));
    assert!(matches!(plan(&going(&both), &with(json!({}))), Step::MarkContent));
    assert!(matches!(plan(&going(&both), &with(marked.clone())), Step::DeleteContent));
    let Step::Finalizers(rest) = plan(&going(&both), &with(deleted.clone())) else { panic!("lets go") };
    assert_eq!(rest, [BOUND_FINALIZER, "other"]);
    assert!(matches!(plan(&going(&json!(rest)), &with(deleted)), Step::Nothing), "waits for its content");
    let Step::Finalizers(rest) = plan(&going(&both), &seen()) else { panic!("lets go") };
    assert_eq!(rest, ["other"]);
    let mut kept = marked;
    kept["spec"]["deletionPolicy"] = "Retain".into();
    let Step::Finalizers(rest) = plan(&going(&both), &with(kept)) else { panic!("lets go") };
    assert_eq!(rest, ["other"]);
    // Another one's content is none of its business.
    let others = with(json!({"spec": {"volumeSnapshotRef": {"uid": "2"}}}));
    assert!(matches!(plan(&going(&both), &others), Step::Finalizers(_)));
    assert!(matches!(plan(&going(&json!(["other"])), &seen()), Step::Nothing));
}

#[test]
fn a_claim_is_held_while_a_snapshot_is_taken() {
    let status = |status: Value| snapshot(json!({"status": status}));
    assert!(
        is_in_work(&status(Value::Null), false) && is_in_work(&status(json!({"readyToUse": false})), true)
    );
    assert!(!is_in_work(&status(json!({"readyToUse": true})), true));
    let time = json!({"readyToUse": false, "creationTime": "2026-01-01T00:00:00Z"});
    assert!(!is_in_work(&status(time), false), "its content is lost");
    let going = snapshot(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert!(is_in_work(&going, true) && !is_in_work(&going, false));
    let claim = |by: &str| testkit::object(json!({"metadata": {"annotations": {PROVISIONER: by}}}));
    assert!(is_own_claim(&claim(DRIVER), None) && !is_own_claim(&claim("x.io"), None));
    assert!(is_own_claim(&claim("x.io"), seen().volume.as_deref()));
}
