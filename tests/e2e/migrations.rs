//! Objects that are stored anew: in another version of their kind, and with another key.

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[("migrations::versions_and_keys", versions_and_keys)];

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

const KEY: &str = "{aesgcm: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}}";
const NONE: &str = "{identity: {}}";

/// How secrets are stored: the first one writes, both read.
fn encryption(first: &str, second: &str) -> String {
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration,
          resources: [{{resources: [secrets], providers: [{first}, {second}]}}]}}"
    )
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn migrate(cluster: &Cluster, name: &str, group: &str, resource: &str) {
    let wish = format!(
        "{{apiVersion: storagemigration.k8s.io/v1beta1, kind: StorageVersionMigration, metadata: {{name: {name}}},
          spec: {{resource: {{group: '{group}', resource: {resource}}}}}}}"
    );
    make(cluster, "default", &wish);
    cluster.kubectl("default", &["wait", "storageversionmigration", name, "--for=condition=Succeeded", "--timeout=60s"]);
}

fn versions_and_keys(cluster: &Cluster) {
    let ns = "moves";
    cluster.namespace(ns);
    let unknown = cluster.try_kubectl("default", &["get", "storageversionmigrations"]);
    assert!(!unknown.ok, "it is off unless somebody wants it: {unknown:?}");
    cluster.kubectl(ns, &["create", "secret", "generic", "s", "--from-literal=key=value"]);
    // From now on secrets are encrypted; those that are there are not.
    let folder = cluster.folder("encryption");
    let file = folder.join("config.yaml");
    std::fs::write(&file, encryption(KEY, NONE)).expect("writable folder");
    let flag = format!("--encryption-provider-config={}", file.display());
    cluster.kill_and_restart_with(&[SWITCH, &flag]);

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

    let before = version(&["secret", "s"]);
    migrate(cluster, "secrets", "", "secrets");
    let after = version(&["secret", "s"]);
    assert_ne!(after, before, "it was not encrypted");
    migrate(cluster, "secrets-again", "", "secrets");
    assert_eq!(version(&["secret", "s"]), after, "it is encrypted already");
    assert_eq!(cluster.get(ns, &["secret", "s"])["data"]["key"], "dmFsdWU=");

    // Back to plain text, the same way.
    std::fs::write(&file, encryption(NONE, KEY)).expect("writable folder");
    cluster.kill_and_restart_with(&[SWITCH, &flag]);
    migrate(cluster, "secrets-plain", "", "secrets");
    cluster.kubectl("default", &["delete", "storageversionmigrations", "--all"]);
    cluster.kubectl(ns, &["delete", "crd", "movers.e2e.example"]);
    cluster.kill_and_restart();
    assert_eq!(cluster.get(ns, &["secret", "s"])["data"]["key"], "dmFsdWU=");
}
