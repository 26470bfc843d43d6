use std::sync::Arc;

use client::{Key, PodView};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};
use testkit::object;

use crate::place::place;
use crate::pod::PodInfo;
use crate::reason::{Reason, Unschedulable};
use crate::view::ClusterView;

const DRIVER: &str = "gpu.example.com";

/// A cluster with nodes of these names.
fn view(nodes: &[&str]) -> ClusterView {
    let mut view = ClusterView::new();
    nodes.iter().for_each(|name| view.set_node(&testkit::node(name, 4, 8, 10)));
    class(&mut view, "gpu", json!({}));
    view
}

fn class(view: &mut ClusterView, name: &str, spec: Value) {
    let class = object(json!({"metadata": {"name": name}, "spec": spec}));
    view.devices.set_class(name, Some(Arc::new(class)));
}

fn slice(view: &mut ClusterView, name: &str, generation: i64, count: i64, spec: Value) {
    let mut whole = json!({"driver": DRIVER,
        "pool": {"name": "p", "generation": generation, "resourceSliceCount": count}});
    types::patch::merge_patch(&mut whole, spec);
    let slice = object(json!({"metadata": {"name": name}, "spec": whole}));
    view.devices.set_slice(name, Some(&slice));
}

/// Devices of a node, in a pool of its own.
fn devices(view: &mut ClusterView, node: &str, names: &[&str]) {
    let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    slice(view, node, 1, 1, json!({"nodeName": node, "pool": {"name": node}, "devices": names}));
}

fn claim(view: &mut ClusterView, name: &str, spec: Value, status: Value) -> Arc<ResourceClaim> {
    let claim: ResourceClaim = object(json!({"metadata": {"name": name, "namespace": "n", "uid": name,
        "resourceVersion": "5"}, "spec": {"devices": spec}, "status": status}));
    let claim = Arc::new(claim);
    view.devices.set_claim(Key::new("n", name), Some(claim.clone()));
    claim
}

fn one(class: &str) -> Value {
    json!({"requests": [{"name": "r", "exactly": {"deviceClassName": class, "allocationMode": "ExactCount", "count": 1}}]})
}

fn pod(name: &str, claims: &[&str]) -> PodInfo {
    let claims: Vec<Value> = claims.iter().map(|c| json!({"name": c, "resourceClaimName": c})).collect();
    let pod: PodView = object(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": claims}}));
    PodInfo::new(&pod)
}

fn why(pod: &PodInfo, view: &mut ClusterView) -> Unschedulable {
    place(pod, view).expect_err("no node")
}

/// The devices that a pod is given on a node, by request.
fn given(view: &ClusterView, pod: &PodInfo, node: &str) -> Vec<(String, String)> {
    let grant = view.grant(pod, node).expect("something to be given");
    let results =
        grant.claims.iter().filter_map(|c| c.allocation.as_ref()?.devices.as_ref()?.results.as_ref());
    results.flatten().map(|r| (r.request.clone(), format!("{}/{}", r.pool, r.device))).collect()
}

#[test]
fn a_claim_leads_a_pod_to_a_node_that_has_the_device() {
    let mut view = view(&["a", "b"]);
    claim(&mut view, "c", one("gpu"), json!({}));
    let pod = pod("p", &["c"]);
    let none = why(&pod, &mut view);
    assert_eq!(none.reasons, [(Reason::Claims, 2)].into());
    assert!(none.helpable.is_empty(), "nobody is evicted for it");
    devices(&mut view, "b", &["x", "y"]);
    assert_eq!(&*place(&pod, &mut view).unwrap(), "b");
    assert_eq!(given(&view, &pod, "b"), [("r".to_owned(), "b/x".to_owned())]);

    // What was decided is nobody else's, until it is taken back.
    let grant = view.grant(&pod, "b").unwrap();
    let allocation = grant.claims[0].allocation.clone().unwrap();
    let selector = allocation.node_selector.as_ref().unwrap();
    assert_eq!(
        selector.node_selector_terms[0].match_fields.as_ref().unwrap()[0].values,
        Some(vec!["b".into()])
    );
    view.devices.assume(&Key::new("n", "c"), allocation);
    let waits = why(&pod, &mut view).everywhere.unwrap();
    assert_eq!(waits, "resource claim n/c is in the process of being allocated");
    claim(&mut view, "d", one("gpu"), json!({}));
    let second = super::tests::pod("q", &["d"]);
    assert_eq!(given(&view, &second, "b"), [("r".to_owned(), "b/y".to_owned())]);
    view.devices.forsake(&Key::new("n", "c"));
    assert_eq!(given(&view, &second, "b"), [("r".to_owned(), "b/x".to_owned())]);
}

#[test]
fn what_is_allocated_says_where_its_pods_run() {
    let mut view = view(&["a", "b"]);
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]});
    let result = json!({"request": "r", "driver": DRIVER, "pool": "b", "device": "x"});
    let allocation = json!({"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": [term]}});
    let reserved = json!([{"resource": "pods", "name": "other", "uid": "other"}]);
    claim(&mut view, "c", one("gpu"), json!({"allocation": allocation, "reservedFor": reserved}));
    devices(&mut view, "b", &["x"]);
    let pod = pod("p", &["c"]);
    assert_eq!(&*place(&pod, &mut view).unwrap(), "b");
    let grant = view.grant(&pod, "b").unwrap();
    assert!(grant.claims[0].allocation.is_none(), "it is only reserved");
    // The device is taken.
    claim(&mut view, "d", one("gpu"), json!({}));
    assert_eq!(why(&super::tests::pod("q", &["d"]), &mut view).reasons, [(Reason::Claims, 2)].into());
    view.remove_node("b");
    assert_eq!(why(&pod, &mut view).reasons, [(Reason::ClaimElsewhere, 1)].into());
}

#[test]
fn pools_are_used_when_they_are_whole_and_in_their_newest_generation() {
    let mut view = view(&["a"]);
    claim(&mut view, "c", one("gpu"), json!({}));
    let all =
        json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]});
    claim(&mut view, "all", all, json!({}));
    let (pod, greedy) = (pod("p", &["c"]), super::tests::pod("g", &["all"]));
    let device = |name: &str| json!({"nodeName": "a", "devices": [{"name": name}]});
    slice(&mut view, "s1", 1, 2, device("x"));
    assert_eq!(why(&pod, &mut view).reasons, [(Reason::Claims, 1)].into());
    let said = "claim n/all, request r: asks for all devices, but resource pool gpu.example.com/p is currently being updated";
    assert_eq!(why(&greedy, &mut view).reasons, [(Reason::Devices(said.into()), 1)].into());
    slice(&mut view, "s2", 1, 2, device("y"));
    assert_eq!(given(&view, &greedy, "a"), [("r".into(), "p/x".into()), ("r".into(), "p/y".into())]);
    // A new generation makes the old one void, even if none of it is for this node.
    slice(&mut view, "s3", 2, 1, json!({"nodeName": "elsewhere", "devices": [{"name": "z"}]}));
    assert_eq!(why(&pod, &mut view).reasons, [(Reason::Claims, 1)].into());
    slice(&mut view, "s3", 2, 1, device("z"));
    assert_eq!(given(&view, &pod, "a"), [("r".into(), "p/z".into())]);
    // Two devices of one name are nobody's.
    slice(&mut view, "s3", 2, 1, json!({"nodeName": "a", "devices": [{"name": "z"}, {"name": "z"}]}));
    let invalid = Reason::Devices("invalid resource pools were encountered".into());
    assert_eq!(why(&pod, &mut view).reasons, [(invalid, 1)].into());
    view.devices.set_slice("s3", None);
    assert_eq!(given(&view, &pod, "a"), [("r".into(), "p/x".into())]);
}

#[test]
fn what_claims_and_classes_say_goes_to_the_drivers() {
    let mut view = view(&["a"]);
    let opaque = |text: &str| json!({"opaque": {"driver": DRIVER, "parameters": {"say": text}}});
    class(&mut view, "gpu", json!({"config": [opaque("class")]}));
    devices(&mut view, "a", &["x", "y"]);
    let choice = |name: &str, class: &str| json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": 1});
    class(&mut view, "none", json!({"selectors": [{"cel": {"expression": "false"}}]}));
    let mut for_choice = opaque("second");
    for_choice["requests"] = json!(["r/second"]);
    let spec = json!({"requests": [{"name": "r", "firstAvailable": [choice("first", "none"), choice("second", "gpu")]}],
        "config": [opaque("all"), for_choice]});
    claim(&mut view, "c", spec, json!({}));
    let pod = pod("p", &["c"]);
    assert_eq!(given(&view, &pod, "a"), [("r/second".into(), "a/x".into())]);
    let grant = view.grant(&pod, "a").unwrap();
    let allocation = serde_json::to_value(grant.claims[0].allocation.as_deref().unwrap()).unwrap();
    let config = allocation["devices"]["config"].as_array().unwrap();
    let said: Vec<(&str, &str)> = config
        .iter()
        .map(|c| (c["source"].as_str().unwrap(), c["opaque"]["parameters"]["say"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("FromClass", "class"), ("FromClaim", "all"), ("FromClaim", "second")]);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let mut view = view(&["a"]);
    devices(&mut view, "a", &["x"]);
    let reason = |view: &mut ClusterView, name: &str, spec: Value| {
        claim(view, name, spec, json!({}));
        let why = why(&pod("p", &[name]), view);
        why.everywhere.or_else(|| why.reasons.into_keys().next().map(|reason| reason.to_string())).unwrap()
    };
    let missing = reason(&mut view, "c", one("unknown"));
    assert_eq!(missing, "request r: device class unknown does not exist");
    let mut failing = one("gpu");
    failing["requests"][0]["exactly"]["selectors"] =
        json!([{"cel": {"expression": "device.attributes['x.example.com'].y"}}]);
    let failing = reason(&mut view, "d", failing);
    assert_eq!(
        failing,
        "claim n/d: selector #0 on device gpu.example.com/a/x: CEL runtime error: no such key: y"
    );
    let absent = why(&pod("p", &["nowhere"]), &mut view).everywhere.unwrap();
    assert_eq!(absent, "resourceclaim.resource.k8s.io \"nowhere\" not found");
}

#[test]
fn an_extended_resource_may_come_as_devices() {
    let mut view = view(&["a", "b"]);
    class(&mut view, "gpu", json!({"extendedResourceName": "example.com/gpu"}));
    devices(&mut view, "b", &["x", "y", "z"]);
    let container = |name: &str, count: &str| json!({"name": name, "resources": {"requests": {"example.com/gpu": count, "cpu": "1"}}});
    let pod: PodView = object(json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "spec": {
        "initContainers": [container("first", "3")], "containers": [container("main", "1"), container("side", "1")]}}));
    let pod = PodInfo::new(&pod);
    assert_eq!(&*place(&pod, &mut view).unwrap(), "b");
    let grant = view.grant(&pod, "b").unwrap().extended.unwrap();
    let requests = grant.claim.spec.devices.unwrap().requests.unwrap();
    let counts: Vec<(String, i64)> =
        requests.iter().map(|r| (r.name.clone(), r.exactly.as_ref().unwrap().count.unwrap())).collect();
    let want = [("container-0-request-1", 1), ("container-1-request-1", 1), ("container-2-request-1", 1)];
    assert_eq!(counts, want.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(grant.mappings.as_array().unwrap().len(), 5, "the first one uses the others' too");
    // A node that has the resource itself is asked for that.
    let mut own = testkit::node("a", 4, 8, 10);
    let allocatable = own.status.as_mut().unwrap().allocatable.as_mut().unwrap();
    allocatable.insert(
        "example.com/gpu".into(),
        client::k8s_openapi::apimachinery::pkg::api::resource::Quantity("3".into()),
    );
    view.set_node(&own);
    assert!(view.grant(&pod, "a").is_none());
    view.remove_node("b");
    assert_eq!(&*place(&pod, &mut view).unwrap(), "a");
}

/// A claim that has a device which has to get ready, with these conditions; the pod `p` has it.
fn waiting_claim(view: &mut ClusterView, conditions: &[&str]) {
    let result = json!({"request": "r", "driver": DRIVER, "pool": "a", "device": "x",
        "bindingConditions": ["attached"], "bindingFailureConditions": ["broken"]});
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "reason": "Why", "message": "so \"it\" is", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
        .collect();
    let status = json!({"driver": DRIVER, "pool": "a", "device": "x", "conditions": conditions});
    let reserved = json!([{"resource": "pods", "name": "p", "uid": "p"}]);
    let allocation = json!({"devices": {"results": [result]}});
    claim(
        view,
        "c",
        one("gpu"),
        json!({"allocation": allocation, "reservedFor": reserved, "devices": [status]}),
    );
}

#[test]
fn devices_of_an_earlier_attempt_are_waited_for_or_given_back() {
    use crate::preempt::{Decision, Terms, decide};

    let mut view = view(&["a"]);
    devices(&mut view, "a", &["x"]);
    waiting_claim(&mut view, &[]);
    let pod = pod("p", &["c"]);
    assert_eq!(&*place(&pod, &mut view).unwrap(), "a");
    let grant = view.grant(&pod, "a").expect("somebody has to wait for it");
    assert!(grant.claims[0].allocation.is_none(), "it has been given already");
    waiting_claim(&mut view, &["broken"]);
    let terms = Terms { budgets: &[], may_preempt: true, bargains: false };
    let Decision::Nowhere { why, .. } = decide(&pod, &mut view, &terms, &mut |_| {}) else {
        panic!("its device is broken")
    };
    assert_eq!(
        why.to_string(),
        "0/1 nodes are available: 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let readiness = view.devices.readiness(&Key::new("n", "c"));
    let why = "claim c binding failed: reason=Why, message=\"so \\\"it\\\" is\"";
    assert_eq!(readiness, super::Readiness::Failed(why.into()));
    // What somebody else has is not taken away.
    let other = super::tests::pod("q", &["c"]);
    let Decision::Nowhere { why, .. } = decide(&other, &mut view, &terms, &mut |_| {}) else {
        panic!("its device is broken")
    };
    assert!(why.to_string().contains(". still not schedulable, preemption: "), "{why}");
}

#[test]
fn the_node_with_what_is_liked_best_is_the_best() {
    let mut view = view(&["a", "b", "c"]);
    let typed = |name: &str, kind: &str| json!({"name": name, "attributes": {"kind": {"string": kind}}});
    for (node, kind) in [("a", "small"), ("b", "large"), ("c", "middle")] {
        slice(
            &mut view,
            node,
            1,
            1,
            json!({"nodeName": node, "pool": {"name": node}, "devices": [typed("x", kind)]}),
        );
    }
    let choice = |kind: &str| {
        let expression = format!("device.attributes['{DRIVER}'].kind == '{kind}'");
        json!({"name": kind, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
            "selectors": [{"cel": {"expression": expression}}]})
    };
    let spec = json!({"requests": [{"name": "r", "firstAvailable": [choice("large"), choice("middle"), choice("small")]}]});
    claim(&mut view, "c", spec, json!({}));
    let pod = pod("p", &["c"]);
    view.prepare(&pod);
    let ask = crate::place::Ask::new(&pod, &view);
    let rows: Vec<usize> = ["a", "b", "c"].iter().map(|name| view.row(name).unwrap()).collect();
    let scores = crate::score::scores(&ask, &rows);
    // Eight, seven and six of eight, and the plugin counts twice.
    assert_eq!([scores[1] - scores[0], scores[1] - scores[2]], [2 * (100 - 75), 2 * (100 - 87)]);
    assert_eq!(&*place(&pod, &mut view).unwrap(), "b");
    view.remove_node("b");
    assert_eq!(&*place(&pod, &mut view).unwrap(), "c");
}
