use serde_json::{Value, json};

use crate::tests::{Attempt, World, update};

const FEATURES: [&str; 2] = ["GuaranteedQoSPodCPUResize", "InPlacePodLevelResourcesVerticalScaling"];

fn node(name: &str, declared: &[&str]) -> (&'static str, Value) {
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
        "status": {"declaredFeatures": declared, "allocatable": {"cpu": "4", "memory": "8Gi"}}});
    ("nodes", node)
}

/// A pod on a node whose container has so many cores, and which has so many as a whole.
fn pod(node: &str, qos: &str, cpu: &str, whole: Option<&str>) -> Value {
    let mut spec = json!({"nodeName": node, "containers": [{"name": "c",
        "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]});
    if let Some(whole) = whole {
        spec["resources"] = json!({"requests": {"cpu": whole}});
    }
    json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec, "status": {"qosClass": qos}})
}

/// What is said to a change of a pod's resources.
fn said(world: &World, resource: &str, old: Value, new: Value) -> String {
    let attempt: Attempt<'_> = update(resource, new, old);
    world.run(attempt).0.err().map(|status| status.message).unwrap_or_default()
}

#[test]
fn a_change_that_needs_a_feature_needs_a_node_that_has_it() {
    let all = vec![node("new", &FEATURES), node("old", &["SomethingElse"])];
    let world = World::with(&[], all);
    let resize = "/pods/resize";
    let change = |node: &str, qos: &str, cpu: (&str, &str), whole: (Option<&str>, Option<&str>)| {
        said(&world, resize, pod(node, qos, cpu.0, whole.0), pod(node, qos, cpu.1, whole.1))
    };
    let needs = |what: &str| {
        format!(
            "pods \"p\" is forbidden: pod update requires features {what} which are not available on node \"old\""
        )
    };
    let none = (None, None);
    assert_eq!(change("new", "Guaranteed", ("1", "2"), (None, Some("2"))), "");
    assert_eq!(change("old", "Burstable", ("1", "2"), none), "");
    assert_eq!(change("old", "Guaranteed", ("1", "1000m"), none), "", "it is the same");
    assert_eq!(change("old", "Guaranteed", ("1", "2"), none), needs(FEATURES[0]));
    assert_eq!(change("old", "Burstable", ("1", "1"), (Some("1"), Some("2"))), needs(FEATURES[1]));
    assert_eq!(change("old", "Burstable", ("1", "2"), (Some("1"), Some("1000m"))), "");
    let both = FEATURES.join(", ");
    assert_eq!(change("old", "Guaranteed", ("1", "2"), (None, Some("2"))), needs(&both));
    assert_eq!(
        change("gone", "Guaranteed", ("1", "2"), none),
        "pods \"p\" is forbidden: node \"gone\" not found"
    );
    assert_eq!(change("", "Guaranteed", ("1", "2"), none), "", "it has no node yet");
    // The pod itself is looked at likewise, other parts of it are not.
    let (before, after) = (pod("old", "Guaranteed", "1", None), pod("old", "Guaranteed", "2", None));
    assert_eq!(said(&world, "/pods", before.clone(), after.clone()), needs(FEATURES[0]));
    assert_eq!(said(&world, "/pods/status", before.clone(), after), "");
    let mut labelled = before.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(said(&world, "/pods", before, labelled), "");
}

#[test]
fn nobody_is_resized_beyond_the_node() {
    let windows = json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}});
    let world = World::with(&[], vec![node("n", &FEATURES), ("nodes", windows)]);
    let resize = |node: &str, cpu: &str| {
        let attempt: Attempt<'_> =
            update("/pods/resize", pod(node, "Burstable", cpu, None), pod(node, "Burstable", "1", None));
        let status = world.run(attempt).0.err()?;
        let cause = status.details.unwrap().causes[0].reason.clone();
        Some((status.message, cause))
    };
    assert_eq!(resize("n", "4"), None);
    let (why, cause) = resize("n", "4001m").unwrap();
    assert_eq!(
        why,
        "pods \"p\" is forbidden: Node didn't have enough allocatable resources: cpu, requested: 4001, allocatable: 4000"
    );
    assert_eq!(cause, "NodeCapacity");
    let (why, cause) = resize("w", "2").unwrap();
    assert_eq!(
        why,
        "pods \"p\" is forbidden: pod resize is only supported on linux nodes, node \"w\" is \"windows\""
    );
    assert_eq!(cause, "UnsupportedPlatform");
}
