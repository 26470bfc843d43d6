//! Objects that are stored anew in another version of their kind.

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[("migrations::the_old_version_can_go", the_old_version_can_go)];

const SWITCH: &str = "--runtime-config=storagemigration.k8s.io/v1beta1=true";

fn definition(storage: &str) -> String {
    let version = |name: &str| {
        format!(
            "{{name: {name}, served: true, storage: {}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}",
            name == storage
        )
    };
    format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: movers.e2e.example}},
          spec: {{group: e2e.example, scope: Namespaced, names: {{plural: movers, kind: Mover}},
          versions: [{}, {}]}}}}",
        version("v1"),
        version("v2")
    )
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn wish(name: &str, group: &str, resource: &str) -> String {
    format!(
        "{{apiVersion: storagemigration.k8s.io/v1beta1, kind: StorageVersionMigration, metadata: {{name: {name}}},
          spec: {{resource: {{group: '{group}', resource: {resource}}}}}}}"
    )
}

fn migrate(cluster: &Cluster, name: &str, group: &str, resource: &str) {
    make(cluster, "default", &wish(name, group, resource));
    let until = ["wait", "storageversionmigration", name, "--for=condition=Succeeded", "--timeout=60s"];
    cluster.kubectl("default", &until);
}

/// There is no such resource.
fn migrate_in_vain(cluster: &Cluster) {
    make(cluster, "default", &wish("nothing", "e2e.example", "nothings"));
    let until = ["wait", "storageversionmigration", "nothing", "--for=condition=Failed", "--timeout=60s"];
    cluster.kubectl("default", &until);
}

fn the_old_version_can_go(cluster: &Cluster) {
    let ns = "moves";
    cluster.namespace(ns);
    let unknown = cluster.try_kubectl("default", &["get", "storageversionmigrations"]);
    assert!(!unknown.ok, "it is off unless somebody wants it: {unknown:?}");
    cluster.kill_and_restart_with(&[SWITCH]);

    make(cluster, ns, &definition("v1"));
    make(cluster, ns, "{apiVersion: e2e.example/v1, kind: Mover, metadata: {name: a}, spec: {size: 3}}");
    make(cluster, ns, &definition("v2"));
    let stored = || cluster.get(ns, &["crd", "movers.e2e.example"])["status"]["storedVersions"].clone();
    assert_eq!(stored(), serde_json::json!(["v1", "v2"]));
    let version = |what: &[&str]| cluster.get(ns, what)["metadata"]["resourceVersion"].clone();
    let before = version(&["movers.v1.e2e.example", "a"]);
    migrate(cluster, "movers", "e2e.example", "movers");
    assert_eq!(stored(), serde_json::json!(["v2"]));
    assert_ne!(version(&["movers.v1.e2e.example", "a"]), before);
    assert_eq!(cluster.get(ns, &["mover", "a"])["spec"]["size"], 3);

    // The old version can go now.
    let only = definition("v2").replace("{name: v1, served: true", "{name: v1, served: false");
    make(cluster, ns, &only);
    let drop_it = "[{\"op\": \"remove\", \"path\": \"/spec/versions/0\"}]";
    cluster.kubectl(ns, &["patch", "crd", "movers.e2e.example", "--type=json", "-p", drop_it]);
    assert_eq!(cluster.get(ns, &["mover", "a"])["apiVersion"], "e2e.example/v2");
    migrate_in_vain(cluster);
    cluster.kubectl("default", &["delete", "storageversionmigrations", "--all"]);
    cluster.kubectl(ns, &["delete", "crd", "movers.e2e.example"]);
    cluster.kill_and_restart();
}
