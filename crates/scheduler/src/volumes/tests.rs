use std::sync::Arc;

use client::storage;
use client::{Key, PodView};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use types::patch::merge_patch;

use super::*;
use crate::pod::PodInfo;
use crate::preempt::{Decision, Terms, decide};
use crate::view::ClusterView;

fn object<K: DeserializeOwned>(mut base: Value, more: Value) -> Arc<K> {
    merge_patch(&mut base, more);
    Arc::new(testkit::object(base))
}

fn node(name: &str, zone: &str) -> Node {
    let mut node = testkit::node(name, 8, 8, 10);
    node.metadata.labels.get_or_insert_default().insert("topology.kubernetes.io/zone".into(), zone.into());
    node
}

/// Two nodes, each in a zone of its own.
fn view() -> ClusterView {
    let mut view = ClusterView::new();
    view.set_node(&node("n1", "z1"));
    view.set_node(&node("n2", "z2"));
    class(&mut view, "later", json!({}));
    view
}

fn class(view: &mut ClusterView, name: &str, more: Value) {
    let base = json!({"metadata": {"name": name}, "provisioner": "x.io/y", "volumeBindingMode": "WaitForFirstConsumer"});
    view.volumes.set_class(name, Some(object(base, more)));
}

fn claim(view: &mut ClusterView, name: &str, more: Value) {
    let base = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "5"},
        "spec": {"storageClassName": "later", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
    view.volumes.set_claim(Key::new("n", name), Some(object(base, more)));
}

fn on(key: &str, value: &str) -> Value {
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]}})
}

fn volume(view: &mut ClusterView, name: &str, more: Value) {
    let base = json!({"metadata": {"name": name, "resourceVersion": "5"}, "status": {"phase": "Available"},
        "spec": {"storageClassName": "later", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    view.volumes.set_volume(Key::new("", name), Some(object(base, more)));
}

/// A claim with a volume on a node.
fn bound(view: &mut ClusterView, name: &str, more: Value, of: Value) {
    let marks =
        json!({"metadata": {"annotations": {storage::BIND_COMPLETED: "yes"}}, "spec": {"volumeName": name}});
    let mut marks = marks;
    merge_patch(&mut marks, more);
    claim(view, name, marks);
    volume(view, name, of);
}

fn pod(name: &str, volumes: Value) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"containers": [], "volumes": volumes}});
    Arc::new(PodInfo::new(&testkit::object::<PodView>(pod)))
}

fn uses(claims: &[&str]) -> Arc<PodInfo> {
    let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    pod("p", claims.iter().map(volume).collect())
}

fn placed(pod: &PodInfo, view: &mut ClusterView) -> String {
    let terms = Terms { budgets: &[], may_preempt: true, bargains: false };
    match decide(pod, view, &terms, &mut |_| {}) {
        Decision::Node(node) => node.to_string(),
        Decision::Preempt { node, .. } => format!("{node}, when others have left"),
        Decision::Bargain { .. } => unreachable!("there are no extenders"),
        Decision::Nowhere { why, .. } => why.to_string(),
    }
}

fn refused(why: &str) -> String {
    format!(
        "0/2 nodes are available: {why}. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption \
         is not helpful for scheduling."
    )
}

#[test]
fn a_pod_waits_for_its_claims_in_upstreams_words() {
    let mut view = view();
    class(&mut view, "now", json!({"volumeBindingMode": "Immediate"}));
    claim(&mut view, "unbound", json!({"spec": {"storageClassName": "now"}}));
    claim(&mut view, "named", json!({"spec": {"volumeName": "v"}}));
    claim(&mut view, "lost", json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}));
    claim(&mut view, "going", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    claim(&mut view, "p-own", json!({}));
    let immediate = "pod has unbound immediate PersistentVolumeClaims";
    for (name, why) in [
        ("none", "persistentvolumeclaim \"none\" not found"),
        ("unbound", immediate),
        ("named", immediate),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"v\""),
        ("going", "persistentvolumeclaim \"going\" is being deleted"),
    ] {
        assert_eq!(placed(&uses(&[name]), &mut view), refused(why));
    }
    let own = |volume: &str| pod("p", json!([{"name": volume, "ephemeral": {}}]));
    let why = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-other\"";
    assert_eq!(placed(&own("other"), &mut view), refused(why));
    let why = "PVC n/p-own was not created for pod n/p (pod is not owner)";
    assert_eq!(placed(&own("own"), &mut view), refused(why));
    assert_eq!(placed(&uses(&[]), &mut ClusterView::new()), "no nodes available to schedule pods");
}

#[test]
fn a_bound_volume_must_be_within_reach() {
    let mut view = view();
    let host = "kubernetes.io/hostname";
    bound(&mut view, "there", json!({}), json!({"spec": {"nodeAffinity": on(host, "n2")}}));
    bound(&mut view, "nowhere", json!({}), json!({"spec": {"nodeAffinity": on(host, "n9")}}));
    bound(
        &mut view,
        "zoned",
        json!({}),
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z1__z3"}}}),
    );
    bound(
        &mut view,
        "far",
        json!({}),
        json!({"metadata": {"labels": {"failure-domain.beta.kubernetes.io/zone": "z9"}}}),
    );
    assert_eq!(placed(&uses(&["there"]), &mut view), "n2");
    assert_eq!(placed(&uses(&["zoned"]), &mut view), "n1");
    let why = "2 node(s) had volume node affinity conflict";
    assert_eq!(placed(&uses(&["nowhere"]), &mut view), refused(why));
    assert_eq!(placed(&uses(&["far"]), &mut view), refused("2 node(s) had no available volume zone"));
    let why = "1 node(s) had no available volume zone, 1 node(s) had volume node affinity conflict";
    assert_eq!(placed(&uses(&["there", "zoned"]), &mut view), refused(why));
    view.volumes.set_volume(Key::new("", "there"), None);
    let why = "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    assert_eq!(placed(&uses(&["there"]), &mut view), refused(why));
}

#[test]
fn a_delayed_claim_finds_a_volume_or_a_place_to_make_one() {
    let mut view = view();
    class(&mut view, "by-hand", json!({"provisioner": storage::NO_PROVISIONER}));
    let zone = "topology.kubernetes.io/zone";
    let terms = json!([{"matchLabelExpressions": [{"key": zone, "values": ["z2"]}]}]);
    class(&mut view, "zonal", json!({"allowedTopologies": terms}));
    claim(&mut view, "one", json!({"spec": {"storageClassName": "by-hand"}}));
    claim(
        &mut view,
        "two",
        json!({"spec": {"storageClassName": "by-hand", "resources": {"requests": {"storage": "2Gi"}}}}),
    );
    claim(&mut view, "zonal", json!({"spec": {"storageClassName": "zonal"}}));
    assert_eq!(placed(&uses(&["zonal"]), &mut view), "n2");
    let nothing = "2 node(s) didn't find available persistent volumes to bind";
    assert_eq!(placed(&uses(&["one"]), &mut view), refused(nothing));
    let here = |node: &str, size: &str| {
        json!({"spec": {"storageClassName": "by-hand", "nodeAffinity": on("kubernetes.io/hostname", node),
            "capacity": {"storage": size}}})
    };
    volume(&mut view, "large", here("n1", "9Gi"));
    volume(&mut view, "small", here("n2", "1Gi"));
    assert_eq!(placed(&uses(&["two"]), &mut view), "n1");
    // One volume is not for two claims.
    assert_eq!(placed(&uses(&["one", "two"]), &mut view), refused(nothing));
    volume(&mut view, "other", here("n1", "1Gi"));
    assert_eq!(placed(&uses(&["one", "two"]), &mut view), "n1");
    let plan = view.plan(&uses(&["two", "one"]), "n1");
    let given: Vec<(&str, String)> =
        plan.bind.iter().map(|b| (b.claim.name(), b.volume.name_any())).collect();
    assert_eq!(
        given,
        [("one", "other".to_owned()), ("two", "large".to_owned())],
        "the smallest that will do"
    );

    // What is given away is nobody else's, until that comes to nothing.
    view.volumes.assume(&plan);
    claim(
        &mut view,
        "three",
        json!({"spec": {"storageClassName": "by-hand", "resources": {"requests": {"storage": "2Gi"}}}}),
    );
    assert_eq!(placed(&uses(&["three"]), &mut view), refused(nothing));
    view.volumes.forsake(&plan);
    assert_eq!(placed(&uses(&["three"]), &mut view), "n1");
}

#[test]
fn a_claim_whose_volume_is_being_made_stays_with_its_node() {
    let mut view = view();
    claim(&mut view, "c", json!({}));
    let plan = view.plan(&uses(&["c"]), "n2");
    assert!(plan.provision[0].changed && plan.bind.is_empty());
    view.volumes.assume(&plan);
    assert_eq!(placed(&uses(&["c"]), &mut view), "n2");
    view.remove_node("n2");
    let why = placed(&uses(&["c"]), &mut view);
    assert!(why.starts_with("0/1 nodes are available: 1 node(s) didn't find available"), "{why}");
}

#[test]
fn room_counts_where_the_driver_tells_of_it() {
    let mut view = view();
    claim(&mut view, "c", json!({}));
    let driver = json!({"metadata": {"name": "x.io/y"}, "spec": {"storageCapacity": true}});
    view.volumes.set_driver("x.io/y", Some(object(driver, json!({}))));
    let why = "2 node(s) did not have enough free storage";
    assert_eq!(placed(&uses(&["c"]), &mut view), refused(why));
    let capacity = |most: &str| {
        object(
            json!({"metadata": {"name": "s"}, "storageClassName": "later", "capacity": "9Gi", "maximumVolumeSize": most,
                "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": "z2"}}}),
            json!({}),
        )
    };
    view.volumes.set_capacity(Key::new("n", "s"), Some(capacity("1Mi")));
    assert_eq!(placed(&uses(&["c"]), &mut view), refused(why));
    view.volumes.set_capacity(Key::new("n", "s"), Some(capacity("5Gi")));
    assert_eq!(placed(&uses(&["c"]), &mut view), "n2");
}

#[test]
fn what_others_use_may_be_in_the_way() {
    let mut view = view();
    bound(&mut view, "once", json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}), json!({}));
    let user = pod("user", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "once"}}]));
    view.add_pod("n1", &user);
    let why = placed(&uses(&["once"]), &mut view);
    let wording =
        "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    assert!(why.contains(wording), "{why}");
    let mut urgent = PodInfo::clone(&uses(&["once"]));
    urgent.priority = 9;
    assert_eq!(placed(&urgent, &mut view), "n1, when others have left");
    view.remove_pod("user");
    assert_eq!(view.users(&Key::new("n", "once")), 0);
    let free = placed(&uses(&["once"]), &mut view);
    assert!(free == "n1" || free == "n2", "{free}");

    let disk = |name: &str, read_only: bool| {
        pod(name, json!([{"name": "d", "gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]))
    };
    view.add_pod("n1", &disk("a", true));
    view.add_pod("n2", &disk("b", false));
    assert_eq!(placed(&disk("c", true), &mut view), "n1");
    assert!(placed(&disk("c", false), &mut view).contains("2 node(s) had no available disk"));
}

#[test]
fn a_node_attaches_only_so_many() {
    let mut view = view();
    let csi = |handle: &str| json!({"spec": {"csi": {"driver": "x.io/y", "volumeHandle": handle}}});
    for name in ["a", "b"] {
        bound(&mut view, name, json!({}), csi(name));
    }
    let limit = |node: &str, count: i32| {
        object(
            json!({"metadata": {"name": node}, "spec": {"drivers": [
                {"name": "x.io/y", "nodeID": node, "allocatable": {"count": count}}]}}),
            json!({}),
        )
    };
    view.volumes.set_node("n1", Some(limit("n1", 1)));
    view.volumes.set_node("n2", Some(limit("n2", 0)));
    assert_eq!(placed(&uses(&["a"]), &mut view), "n1");
    let user = pod("user", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "a"}}]));
    view.add_pod("n1", &user);
    assert_eq!(placed(&uses(&["a"]), &mut view), "n1", "it is there already");
    assert!(placed(&uses(&["b"]), &mut view).contains("2 node(s) exceed max volume count"));
    claim(&mut view, "new", json!({}));
    assert!(placed(&uses(&["new"]), &mut view).contains("2 node(s) exceed max volume count"));
}

#[test]
fn what_is_attached_still_takes_its_place() {
    let mut view = view();
    let csi = |handle: &str| json!({"spec": {"csi": {"driver": "x.io/y", "volumeHandle": handle}}});
    for name in ["a", "b"] {
        bound(&mut view, name, json!({}), csi(name));
    }
    for (node, count) in [("n1", 1), ("n2", 0)] {
        let drivers = json!([{"name": "x.io/y", "nodeID": node, "allocatable": {"count": count}}]);
        let node_ = json!({"metadata": {"name": node}, "spec": {"drivers": drivers}});
        assert!(view.volumes.set_node(node, Some(object(node_, json!({})))), "it is new");
    }
    let attachment = json!({"metadata": {"name": "x"}, "spec": {"attacher": "x.io/y", "nodeName": "n1",
        "source": {"persistentVolumeName": "a"}}});
    let attachment = || Some(object(attachment.clone(), json!({})));
    assert!(!view.volumes.set_attachment("x", attachment()), "that helps nobody");
    assert!(!view.volumes.set_attachment("x", attachment()));
    assert!(placed(&uses(&["b"]), &mut view).contains("2 node(s) exceed max volume count"));
    assert_eq!(placed(&uses(&["a"]), &mut view), "n1", "it is attached already");
    assert!(view.volumes.set_attachment("x", None));
    assert_eq!(placed(&uses(&["b"]), &mut view), "n1");
}

#[test]
fn only_what_may_help_wakes_anybody() {
    let mut volumes = Volumes::default();
    let capacity = |size: &str| {
        let capacity = json!({"metadata": {"name": "s", "namespace": "n"}, "storageClassName": "c",
            "capacity": size});
        Some(object(capacity, json!({})))
    };
    let mut helps = |size: &str| volumes.set_capacity(Key::new("n", "s"), capacity(size));
    assert_eq!(["1Gi", "1Gi", "500Mi", "2Gi"].map(&mut helps), [true, false, false, true]);
    assert!(!volumes.set_capacity(Key::new("n", "s"), None));
    let class = |more: Value| Some(object(json!({"metadata": {"name": "c"}, "provisioner": "x.io/y"}), more));
    assert!(volumes.set_class("c", class(json!({}))));
    assert!(!volumes.set_class("c", class(json!({"metadata": {"labels": {"a": "b"}}}))));
    let zones = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["z"]}]}]);
    assert!(volumes.set_class("c", class(json!({"allowedTopologies": zones}))));
    assert!(!volumes.set_class("c", None));
}

#[test]
fn a_plan_is_done_when_its_claims_are_bound() {
    let mut view = view();
    volume(&mut view, "v", json!({}));
    claim(&mut view, "c", json!({}));
    claim(&mut view, "made", json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}}));
    let mut plan = view.plan(&uses(&["c", "made"]), "n1");
    assert_eq!((plan.bind.len(), plan.provision.len()), (1, 1));
    let how_far = |plan: &Plan, view: &ClusterView| {
        let row = view.row("n1").unwrap();
        progress(plan, "n1", &view.labels[row], &view.volumes)
    };
    // As the server has written it.
    let mut written = PersistentVolume::clone(&plan.bind[0].volume);
    written.metadata.resource_version = Some("6".into());
    plan.bind[0].volume = Arc::new(written.clone());
    let mut asking = PersistentVolumeClaim::clone(&plan.provision[0].claim);
    asking.metadata.resource_version = Some("7".into());
    plan.provision[0].claim = Arc::new(asking.clone());
    assert_eq!(how_far(&plan, &view), Progress::NotYet, "the cache is behind");
    view.volumes.set_volume(Key::new("", "v"), Some(Arc::new(written)));
    view.volumes.set_claim(Key::new("n", "made"), Some(Arc::new(asking)));
    assert_eq!(how_far(&plan, &view), Progress::NotYet);
    let done = |volume: &str| {
        json!({"metadata": {"resourceVersion": "9", "annotations": {storage::BIND_COMPLETED: "yes",
            storage::SELECTED_NODE: "n1"}}, "spec": {"volumeName": volume}})
    };
    claim(&mut view, "c", done("v"));
    assert_eq!(how_far(&plan, &view), Progress::NotYet);
    claim(&mut view, "made", done("w"));
    assert_eq!(how_far(&plan, &view), Progress::NotYet, "its volume is not in sight yet");
    volume(&mut view, "w", json!({}));
    assert_eq!(how_far(&plan, &view), Progress::Done);
    volume(&mut view, "w", json!({"spec": {"nodeAffinity": on("kubernetes.io/hostname", "n2")}}));
    let why = "pv \"w\" node affinity doesn't match node \"n1\"";
    assert_eq!(how_far(&plan, &view), Progress::Failed(why.into()));
    claim(&mut view, "made", json!({"metadata": {"resourceVersion": "9"}}));
    let why = "provisioning failed for PVC \"made\"";
    assert_eq!(how_far(&plan, &view), Progress::Failed(why.into()));
    volume(&mut view, "v", json!({"metadata": {"resourceVersion": "10"}}));
    assert_eq!(how_far(&plan, &view), Progress::Failed("ClaimRef got reset for pv \"v\"".into()));
}
