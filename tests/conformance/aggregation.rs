//! An extension API server behind a Service, as kubectl sees what it serves.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use base64::Engine as _;

use crate::cluster::{Cluster, root};
use crate::trial::Trial;
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![an_extension_server: "aggregator-supports-the-sample-apiserver";];

const NAMESPACE: &str = "toys";
/// An address that only this test has.
const ADDRESS: &str = "192.0.2.77";
const PORT: &str = "7443";

/// A program of this test's, ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server of toys, and gives the authority of its certificate as base64.
fn start(cluster: &Cluster) -> (Running, String) {
    let folder = cluster.folder("toys");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("writable folder");
        path
    };
    let own = rcgen::generate_simple_self_signed(vec!["toys.toys.svc".to_owned()]).expect("a certificate");
    // Whom it may believe, the cluster says.
    let trust = cluster.get("kube-system", &["configmap", "extension-apiserver-authentication"]);
    let text = |key: &str| trust["data"][key].as_str().expect("published").to_owned();
    let mut command = cluster.client("python3");
    command
        .arg(root().join("tests/clients/toys.py"))
        .args([ADDRESS, PORT])
        .arg(write("toys.crt", &own.cert.pem()))
        .arg(write("toys.key", &own.signing_key.serialize_pem()))
        .arg(write("proxies.crt", &text("requestheader-client-ca-file")))
        .arg(text("requestheader-allowed-names"));
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3 is there");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("ready"));
    (Running(server), base64::engine::general_purpose::STANDARD.encode(own.cert.pem()))
}

fn an_extension_server(t: &Trial) {
    kinds_of_another_server(t);
}

fn kinds_of_another_server(cluster: &Cluster) {
    cluster.namespace(NAMESPACE);
    cluster.add_address(ADDRESS);
    let (server, bundle) = start(cluster);
    let manifest = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: toys}}
spec: {{ports: [{{name: https, port: 443, targetPort: {PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: toys-1, labels: {{kubernetes.io/service-name: toys}}}}
addressType: IPv4
endpoints: [{{addresses: [{ADDRESS}]}}]
ports: [{{name: https, port: {PORT}}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.toys.e2e.example}}
spec:
  group: toys.e2e.example
  version: v1
  groupPriorityMinimum: 2000
  versionPriority: 10
  caBundle: {bundle}
  service: {{name: toys, namespace: {NAMESPACE}}}
"
    );
    let made = cluster.with_manifest(NAMESPACE, &["apply"], &manifest);
    assert!(made.ok, "{made:?}");
    let k = |args: &[&str]| cluster.kubectl(NAMESPACE, args);
    k(&["wait", "--for=condition=Available", "apiservice/v1.toys.e2e.example", "--timeout=60s"]);
    let table = k(&["get", "apiservices"]);
    assert!(
        table
            .lines()
            .next()
            .is_some_and(|head| { head.split_whitespace().eq(["NAME", "SERVICE", "AVAILABLE", "AGE"]) })
    );
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
        row.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("v1.toys."), ["v1.toys.e2e.example", "toys/toys", "True"]);
    assert_eq!(row("v1.apps"), ["v1.apps", "Local", "True"]);

    let kinds = k(&["api-resources", "--api-group=toys.e2e.example", "--cached=false"]);
    assert!(kinds.contains("toys") && kinds.contains("ty") && kinds.contains("Toy"), "{kinds}");
    cluster.wait_for("kubectl explain", || {
        cluster.try_kubectl(NAMESPACE, &["explain", "toys.color"]).out.contains("The paint on it.")
    });

    let mut watch = cluster
        .kubectl_command(NAMESPACE, &["get", "toys", "--watch", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .expect("kubectl is there");
    let mut seen = BufReader::new(watch.0.stdout.take().expect("piped")).lines();
    for name in ["car", "doll"] {
        let toy =
            format!("apiVersion: toys.e2e.example/v1\nkind: Toy\nmetadata: {{name: {name}}}\ncolor: red\n");
        let made = cluster.with_manifest(NAMESPACE, &["create"], &toy);
        assert_eq!(made.out.trim(), format!("toy.toys.e2e.example/{name} created"), "{made:?}");
        let line = seen.next().and_then(Result::ok);
        assert_eq!(line, Some(format!("toy.toys.e2e.example/{name}")));
    }
    assert_eq!(k(&["get", "ty", "-o", "name"]).lines().count(), 2);
    let car = cluster.get(NAMESPACE, &["toy", "car"]);
    assert_eq!(
        (&car["color"], &car["metadata"]["annotations"]["made-by"]),
        (&"red".into(), &"kubernetes-admin".into())
    );
    k(&["delete", "toy", "car", "--wait=false"]);
    assert!(!cluster.try_kubectl(NAMESPACE, &["get", "toy", "car"]).ok);

    // Without its server the group is there, but says so.
    drop(server);
    let refused = cluster.try_kubectl(NAMESPACE, &["get", "toys"]);
    assert!(refused.err.contains("the server is currently unable to handle the request"), "{refused:?}");
    k(&["delete", "apiservice", "v1.toys.e2e.example"]);
    let gone = cluster.try_kubectl(NAMESPACE, &["get", "--raw", "/apis/toys.e2e.example/v1"]);
    assert!(!gone.ok && gone.err.contains("NotFound"), "{gone:?}");
}
