use std::sync::Arc;

use serde_json::{Value, json};

use super::{NodeAuthorizer, NodeGraph};
use crate::attributes::{FieldRequirement, Selectors};
use crate::{Attributes, User};

fn node(name: &str) -> User {
    User::authenticated(format!("system:node:{name}"), ["system:nodes".to_owned()])
}

fn authorizer(objects: &[(&str, Value)]) -> NodeAuthorizer {
    let graph = NodeGraph::default();
    for (table, object) in objects {
        graph.set(table, object);
    }
    NodeAuthorizer::new(Arc::new(graph))
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"namespace": "ns0", "name": name}, "spec": {
        "nodeName": node, "serviceAccountName": format!("svc-{name}"),
        "imagePullSecrets": [{"name": format!("pull-{name}")}],
        "containers": [{"envFrom": [{"secretRef": {"name": format!("env-{name}")}}],
            "env": [{"valueFrom": {"configMapKeyRef": {"name": format!("key-{name}")}}}]}],
        "volumes": [
            {"name": "s", "secret": {"secretName": format!("secret-{name}")}},
            {"name": "c", "configMap": {"name": "shared"}},
            {"name": "e", "ephemeral": {}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": format!("projected-{name}")}}]}},
            {"name": "v", "persistentVolumeClaim": {"claimName": format!("claim-{name}")}}],
        "resourceClaims": [{"name": "x", "resourceClaimName": format!("device-{name}")}]}})
}

fn volume(name: &str, claim: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "claimRef": {"namespace": "ns0", "name": claim},
        "csi": {"nodePublishSecretRef": {"namespace": "drivers", "name": format!("secret-of-{name}")}}}})
}

/// Facts of upstream's `node_authorizer_test.go`.
#[test]
fn a_node_sees_what_its_pods_need_and_no_more() {
    let authorizer = authorizer(&[
        ("pods", pod("a", "node0")),
        ("pods", pod("b", "node1")),
        ("persistentvolumes", volume("pv-a", "claim-a")),
        ("persistentvolumes", volume("pv-b", "claim-b")),
        (
            "volumeattachments.storage.k8s.io",
            json!({"metadata": {"name": "va"}, "spec": {"nodeName": "node0"}}),
        ),
    ]);
    let table: &[(&str, &str, &str, &str, &str, &str, bool)] = &[
        // verb, group, resource, subresource, namespace, name
        ("get", "", "secrets", "", "ns0", "secret-a", true),
        ("list", "", "secrets", "", "ns0", "secret-a", true),
        ("watch", "", "secrets", "", "ns0", "secret-a", true),
        ("get", "", "secrets", "", "ns0", "pull-a", true),
        ("get", "", "secrets", "", "ns0", "env-a", true),
        ("get", "", "secrets", "", "ns0", "projected-a", true),
        ("get", "", "secrets", "", "drivers", "secret-of-pv-a", true),
        ("get", "", "secrets", "", "drivers", "secret-of-pv-b", false),
        ("get", "", "secrets", "", "ns0", "secret-b", false),
        ("get", "", "secrets", "", "ns1", "secret-a", false),
        ("get", "", "secrets", "", "ns0", "absent", false),
        ("list", "", "secrets", "", "ns0", "", false),
        ("list", "", "secrets", "", "", "secret-a", false),
        ("update", "", "secrets", "", "ns0", "secret-a", false),
        ("get", "", "secrets", "x", "ns0", "secret-a", false),
        ("get", "", "configmaps", "", "ns0", "key-a", true),
        ("get", "", "configmaps", "", "ns0", "shared", true),
        ("get", "", "configmaps", "", "ns0", "key-b", false),
        ("get", "", "persistentvolumeclaims", "", "ns0", "claim-a", true),
        ("get", "", "persistentvolumeclaims", "", "ns0", "a-e", true),
        ("list", "", "persistentvolumeclaims", "", "ns0", "claim-a", false),
        ("patch", "", "persistentvolumeclaims", "status", "ns0", "claim-a", true),
        ("patch", "", "persistentvolumeclaims", "status", "ns0", "claim-b", false),
        ("get", "", "persistentvolumes", "", "", "pv-a", true),
        ("get", "", "persistentvolumes", "", "", "pv-b", false),
        ("get", "resource.k8s.io", "resourceclaims", "", "ns0", "device-a", true),
        ("get", "resource.k8s.io", "resourceclaims", "", "ns0", "device-b", false),
        ("get", "storage.k8s.io", "volumeattachments", "", "", "va", true),
        ("create", "", "serviceaccounts", "token", "ns0", "svc-a", true),
        ("create", "", "serviceaccounts", "token", "ns0", "svc-b", false),
        ("create", "", "serviceaccounts", "", "ns0", "svc-a", false),
        ("get", "", "serviceaccounts", "", "ns0", "svc-b", false),
        ("get", "coordination.k8s.io", "leases", "", "kube-node-lease", "node0", true),
        ("create", "coordination.k8s.io", "leases", "", "kube-node-lease", "", true),
        ("get", "coordination.k8s.io", "leases", "", "kube-node-lease", "node1", false),
        ("get", "coordination.k8s.io", "leases", "", "default", "node0", false),
        ("list", "coordination.k8s.io", "leases", "", "kube-node-lease", "", false),
        ("patch", "storage.k8s.io", "csinodes", "", "", "node0", true),
        ("patch", "storage.k8s.io", "csinodes", "", "", "node1", false),
        ("get", "", "nodes", "", "", "node0", true),
        ("get", "", "nodes", "", "", "node1", false),
        ("list", "", "nodes", "", "", "", false),
        ("patch", "", "nodes", "status", "", "node0", true),
        ("delete", "", "nodes", "", "", "node0", false),
        ("get", "", "pods", "", "ns0", "a", true),
        ("get", "", "pods", "", "ns0", "b", false),
        ("list", "", "pods", "", "", "", false),
        ("patch", "", "pods", "status", "ns0", "a", true),
        ("create", "", "pods", "eviction", "ns0", "a", true),
        ("get", "", "pods", "log", "ns0", "a", false),
        ("list", "", "services", "", "", "", true),
        ("create", "", "services", "", "ns0", "", false),
        ("create", "", "events", "", "ns0", "", true),
        ("create", "resource.k8s.io", "resourceslices", "", "", "", true),
        ("list", "resource.k8s.io", "resourceslices", "", "", "", false),
    ];
    for &(verb, group, resource, subresource, namespace, name, allowed) in table {
        let a = Attributes { verb, group, resource, subresource, namespace, name, ..Attributes::default() };
        assert_eq!(authorizer.authorize(&node("node0"), &a).is_allowed(), allowed, "{a:?}");
    }
    let get = Attributes {
        verb: "get",
        resource: "secrets",
        namespace: "ns0",
        name: "secret-b",
        ..Attributes::default()
    };
    assert_eq!(
        authorizer.authorize(&node("node0"), &get).reason,
        "no relationship found between node 'node0' and this object"
    );
    // A name alone does not make a node, nor does the group.
    for stranger in
        [User::authenticated("system:node:node0", []), User::authenticated("eve", ["system:nodes".into()])]
    {
        let a = Attributes { name: "secret-a", ..get };
        assert!(!authorizer.authorize(&stranger, &a).is_allowed());
    }
}

#[test]
fn a_node_looks_after_the_data_that_it_keeps() {
    let own = |name: &str, driver: &str, node: &str| {
        let csi = json!({"driver": driver, "volumeHandle": name, "volumeAttributes": {"node": node}});
        ("persistentvolumes", json!({"metadata": {"name": name}, "spec": {"csi": csi}}))
    };
    let authorizer = authorizer(&[
        own("mine", "local.gantry.io", "node0"),
        own("other", "local.gantry.io", "node1"),
        own("foreign", "csi.example.com", "node0"),
    ]);
    let may = |verb, name, selectors: Option<&Selectors>| {
        let a = Attributes { verb, resource: "persistentvolumes", name, selectors, ..Attributes::default() };
        authorizer.authorize(&node("node0"), &a).is_allowed()
    };
    assert!(may("get", "mine", None) && may("patch", "mine", None));
    for verb in ["get", "patch", "list", "watch"] {
        assert!(!may(verb, "other", None) && !may(verb, "foreign", None), "{verb}");
    }
    for verb in ["update", "delete", "create", "deletecollection"] {
        assert!(!may(verb, "mine", None), "{verb}");
    }
    let narrowed = |values: &[&str]| {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        let labels = vec![types::Requirement::In("local.gantry.io/node".into(), values)];
        Selectors { labels, ..Selectors::default() }
    };
    assert!(may("list", "", Some(&narrowed(&["node0"]))) && may("watch", "", Some(&narrowed(&["node0"]))));
    assert!(
        !may("list", "", Some(&narrowed(&["node1"])))
            && !may("list", "", Some(&narrowed(&["node0", "node1"])))
    );
    authorizer.graph().remove("persistentvolumes", "", "mine");
    assert!(!may("get", "mine", None));
}

#[test]
fn a_node_looks_after_the_snapshots_that_it_keeps() {
    const TABLE: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
    let content = |name: &str, driver: &str, node: &str| {
        let metadata = json!({"name": name, "labels": {"local.gantry.io/node": node}});
        (TABLE, json!({"metadata": metadata, "spec": {"driver": driver}}))
    };
    let authorizer = authorizer(&[
        content("mine", "local.gantry.io", "node0"),
        content("other", "local.gantry.io", "node1"),
        content("foreign", "csi.example.com", "node0"),
    ]);
    let may = |verb, subresource, name, selectors: Option<&Selectors>| {
        let (group, resource) = ("snapshot.storage.k8s.io", "volumesnapshotcontents");
        let a = Attributes { verb, group, resource, subresource, name, selectors, ..Attributes::default() };
        authorizer.authorize(&node("node0"), &a).is_allowed()
    };
    assert!(may("get", "", "mine", None) && may("patch", "", "mine", None));
    assert!(may("patch", "status", "mine", None));
    for verb in ["get", "patch", "update", "delete", "list", "watch"] {
        for (subresource, name) in
            [("", "other"), ("", "foreign"), ("status", "other"), ("status", "foreign")]
        {
            assert!(!may(verb, subresource, name, None), "{verb} {subresource} {name}");
        }
    }
    for (verb, subresource) in [
        ("update", ""),
        ("delete", ""),
        ("create", ""),
        ("deletecollection", ""),
        ("update", "status"),
        ("get", "status"),
    ] {
        assert!(!may(verb, subresource, "mine", None), "{verb} {subresource}");
    }
    let narrowed = |values: &[&str]| {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        let labels = vec![types::Requirement::In("local.gantry.io/node".into(), values)];
        Selectors { labels, ..Selectors::default() }
    };
    assert!(
        may("list", "", "", Some(&narrowed(&["node0"]))) && may("watch", "", "", Some(&narrowed(&["node0"])))
    );
    assert!(!may("list", "", "", None) && !may("list", "", "", Some(&narrowed(&["node1"]))));
    // Snapshots themselves, and their classes, are no business of a node's.
    for resource in ["volumesnapshots", "volumesnapshotclasses"] {
        let a = Attributes {
            verb: "get",
            group: "snapshot.storage.k8s.io",
            resource,
            name: "x",
            ..Attributes::default()
        };
        assert!(!authorizer.authorize(&node("node0"), &a).is_allowed());
    }
    // The label is what counts, and it may be taken away.
    let (_, moved) = content("mine", "local.gantry.io", "node1");
    authorizer.graph().set(TABLE, &moved);
    assert!(!may("get", "", "mine", None));
    authorizer.graph().remove(TABLE, "", "mine");
    assert!(authorizer.graph().0.read().bound.len() == 1);
}

#[test]
fn lists_of_pods_must_be_narrowed_to_the_node() {
    let authorizer = authorizer(&[]);
    let narrowed = |value: &str, equals| Selectors {
        fields: vec![FieldRequirement { field: "spec.nodeName".into(), equals, value: value.into() }],
        labels: vec![],
    };
    for (selectors, allowed) in
        [(narrowed("node0", true), true), (narrowed("node1", true), false), (narrowed("node0", false), false)]
    {
        let a = Attributes {
            verb: "watch",
            resource: "pods",
            selectors: Some(&selectors),
            ..Attributes::default()
        };
        assert_eq!(authorizer.authorize(&node("node0"), &a).is_allowed(), allowed, "{selectors:?}");
    }
}

#[test]
fn the_graph_forgets_what_is_gone() {
    let authorizer = authorizer(&[("pods", pod("a", "node0")), ("pods", pod("c", "node0"))]);
    let graph = authorizer.graph();
    let sees = |resource: &str, namespace: &str, name: &str| {
        let a = Attributes { verb: "get", resource, namespace, name, ..Attributes::default() };
        authorizer.authorize(&node("node0"), &a).is_allowed()
    };
    // A volume that is bound after its claim is used, and let go.
    graph.set("persistentvolumes", &volume("pv", "claim-a"));
    assert!(sees("persistentvolumes", "", "pv") && sees("secrets", "drivers", "secret-of-pv"));
    graph.set("persistentvolumes", &json!({"metadata": {"name": "pv"}, "spec": {}}));
    assert!(!sees("persistentvolumes", "", "pv") && !sees("secrets", "drivers", "secret-of-pv"));
    graph.set("persistentvolumes", &volume("pv", "claim-a"));
    graph.remove("pods", "ns0", "a");
    assert!(!sees("persistentvolumes", "", "pv") && !sees("secrets", "drivers", "secret-of-pv"));
    assert!(!sees("secrets", "ns0", "secret-a"));
    // The other pod still has what both share.
    assert!(sees("configmaps", "ns0", "shared"));
    graph.remove("pods", "ns0", "c");
    assert!(!sees("configmaps", "ns0", "shared"));
    graph.remove("persistentvolumes", "", "pv");
    let state = graph.0.read();
    assert!(state.reach.is_empty() && state.before.is_empty() && state.bound.is_empty());
}
