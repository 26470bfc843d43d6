//! Kinds that users define, as kubectl and the controllers see them.

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("crds::a_kind_is_there_at_once", a_kind_is_there_at_once),
    ("crds::columns_and_explanations", columns_and_explanations),
    ("crds::patches_scales_and_selects", patches_scales_and_selects),
    ("crds::what_does_not_fit_is_refused", what_does_not_fit_is_refused),
    (
        "crds::owners_and_namespaces_take_custom_objects_along",
        owners_and_namespaces_take_custom_objects_along,
    ),
    ("crds::survives_a_restart", survives_a_restart),
];

/// A definition of `plural.e2e.example`.
fn definition(plural: &str, kind: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.e2e.example}}
spec:
  group: e2e.example
  scope: Namespaced
  names: {{plural: {plural}, kind: {kind}, shortNames: [{plural}x], categories: [e2e]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    selectableFields: [{{jsonPath: .spec.color}}]
    additionalPrinterColumns:
    - {{name: Color, type: string, jsonPath: .spec.color}}
    - {{name: Replicas, type: integer, jsonPath: .spec.replicas}}
    - {{name: Age, type: date, jsonPath: .metadata.creationTimestamp}}
    schema:
      openAPIV3Schema:
        type: object
        description: A thing that is tested.
        properties:
          spec:
            type: object
            required: [color]
            properties:
              color: {{type: string, enum: [red, blue], description: The paint on it.}}
              replicas: {{type: integer, minimum: 0, maximum: 10, default: 1}}
          status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: e2e.example/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) -> String {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
    made.out
}

fn a_kind_is_there_at_once(cluster: &Cluster) {
    let ns = "crd-life";
    cluster.namespace(ns);
    // No waiting in between: what is applied is served.
    make(cluster, ns, &definition("quicks", "Quick"));
    let made = make(cluster, ns, &object("Quick", "a", "{color: red}"));
    assert_eq!(made.trim(), "quick.e2e.example/a created");
    cluster.kubectl(ns, &["wait", "--for=condition=established", "crd/quicks.e2e.example", "--timeout=10s"]);
    let known = cluster.kubectl(ns, &["api-resources", "--api-group=e2e.example"]);
    assert!(known.contains("quicksx") && known.contains("Quick"), "{known}");
    assert!(cluster.kubectl(ns, &["get", "quicksx", "-o", "name"]).contains("quick.e2e.example/a"));
    assert!(cluster.kubectl(ns, &["get", "e2e", "-o", "name"]).contains("quick.e2e.example/a"));
    let crds = cluster.kubectl(ns, &["get", "crds"]);
    assert!(crds.contains("CREATED AT") && crds.contains("quicks.e2e.example"), "{crds}");
    cluster.kubectl(ns, &["delete", "crd", "quicks.e2e.example", "--timeout=30s"]);
    let gone = cluster.try_kubectl(ns, &["get", "quicks"]);
    // It depends on what kubectl remembers.
    let said = ["the server doesn't have a resource type", "could not find the requested resource"];
    assert!(!gone.ok && said.iter().any(|s| gone.err.contains(s)), "{gone:?}");
}

fn columns_and_explanations(cluster: &Cluster) {
    let ns = "crd-shown";
    cluster.namespace(ns);
    make(cluster, ns, &definition("showns", "Shown"));
    make(cluster, ns, &object("Shown", "a", "{color: red, replicas: 3}"));
    let shown = cluster.kubectl(ns, &["get", "showns"]);
    let lines: Vec<Vec<&str>> = shown.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "COLOR", "REPLICAS", "AGE"], "{shown}");
    assert_eq!(&lines[1][..3], ["a", "red", "3"], "{shown}");
    let explained = cluster.kubectl(ns, &["explain", "showns.spec"]);
    for part in ["KIND:", "Shown", "color\t<string> -required-", "The paint on it.", "replicas\t<integer>"] {
        assert!(explained.contains(part), "{part:?} is missing in:\n{explained}");
    }
    let described = cluster.kubectl(ns, &["describe", "showns", "a"]);
    assert!(described.contains("Color:     red"), "{described}");
    cluster.kubectl(ns, &["delete", "crd", "showns.e2e.example"]);
}

fn patches_scales_and_selects(cluster: &Cluster) {
    let ns = "crd-changed";
    cluster.namespace(ns);
    make(cluster, ns, &definition("changes", "Change"));
    make(cluster, ns, &object("Change", "a", "{color: red}"));
    make(cluster, ns, &object("Change", "b", "{color: blue}"));
    cluster.kubectl(ns, &["patch", "change", "a", "--type=merge", "-p", "{\"spec\":{\"color\":\"blue\"}}"]);
    cluster.kubectl(
        ns,
        &[
            "patch",
            "change",
            "a",
            "--subresource=status",
            "--type=merge",
            "-p",
            "{\"status\":{\"replicas\":2}}",
        ],
    );
    cluster.kubectl(ns, &["scale", "change", "a", "--replicas=4"]);
    let a = cluster.get(ns, &["change", "a"]);
    assert_eq!((&a["spec"]["replicas"], &a["status"]["replicas"]), (&4.into(), &2.into()), "{a}");
    let blue = cluster.kubectl(ns, &["get", "changes", "--field-selector=spec.color=blue", "-o", "name"]);
    assert_eq!(blue.lines().count(), 2, "{blue}");
    let again = make(cluster, ns, &object("Change", "b", "{color: red}"));
    assert!(again.contains("change.e2e.example/b configured"), "{again}");
    cluster.kubectl(ns, &["delete", "changes", "--all"]);
    cluster.kubectl(ns, &["delete", "crd", "changes.e2e.example"]);
}

fn what_does_not_fit_is_refused(cluster: &Cluster) {
    let ns = "crd-refused";
    cluster.namespace(ns);
    make(cluster, ns, &definition("refuseds", "Refused"));
    for (spec, want) in [
        ("{color: green}", "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        ("{color: red, replicas: 11}", "spec.replicas in body should be less than or equal to 10"),
        ("{color: red, size: 1}", "unknown field \"spec.size\""),
        ("{}", "spec.color: Required value"),
    ] {
        let said = cluster.with_manifest(ns, &["apply"], &object("Refused", "a", spec));
        assert!(!said.ok && said.err.contains(want), "{said:?}");
    }
    let bad = definition("bads", "Bad").replace("type: object\n        description", "description");
    let said = cluster.with_manifest(ns, &["apply"], &bad);
    assert!(!said.ok && said.err.contains("must not be empty at the root"), "{said:?}");
    cluster.kubectl(ns, &["delete", "crd", "refuseds.e2e.example"]);
}

fn owners_and_namespaces_take_custom_objects_along(cluster: &Cluster) {
    let ns = "crd-owned";
    cluster.namespace(ns);
    make(cluster, ns, &definition("owners", "Owner"));
    make(cluster, ns, &object("Owner", "a", "{color: red}"));
    let uid = cluster.get(ns, &["owner", "a"])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let reference = format!("[{{apiVersion: e2e.example/v1, kind: Owner, name: a, uid: {uid}}}]");
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: {reference}}}}}"
        ),
    );
    make(
        cluster,
        ns,
        &format!(
            "apiVersion: e2e.example/v1\nkind: Owner\nmetadata: {{name: child, ownerReferences: {reference}}}\nspec: {{color: blue}}\n"
        ),
    );
    cluster.kubectl(ns, &["delete", "owner", "a"]);
    cluster.wait_for("the dependents to go", || {
        !cluster.try_kubectl(ns, &["get", "configmap", "owned"]).ok
            && !cluster.try_kubectl(ns, &["get", "owner", "child"]).ok
    });
    make(cluster, ns, &object("Owner", "last", "{color: red}"));
    cluster.kubectl(ns, &["delete", "namespace", ns, "--timeout=60s"]);
    let left = cluster.kubectl("default", &["get", "owners", "-A", "-o", "name"]);
    assert_eq!(left.trim(), "", "{left}");
    cluster.kubectl("default", &["delete", "crd", "owners.e2e.example"]);
}

fn survives_a_restart(cluster: &Cluster) {
    let ns = "crd-kept";
    cluster.namespace(ns);
    make(cluster, ns, &definition("kepts", "Kept"));
    make(cluster, ns, &object("Kept", "a", "{color: red}"));
    cluster.kill_and_restart();
    assert!(cluster.kubectl(ns, &["get", "kepts"]).contains("red"));
    cluster.kubectl(ns, &["delete", "crd", "kepts.e2e.example", "--timeout=30s"]);
}
