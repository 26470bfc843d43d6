//! Programs written for upstream, unmodified: client libraries, operators, helm, Prometheus, and an older kubectl.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cluster::{Cluster, root};

pub const TESTS: &[crate::Test] = &[
    ("clients::python", python),
    ("clients::javascript", javascript),
    ("clients::rust_controller", rust_controller),
    ("clients::kopf_operator", kopf_operator),
    ("clients::helm_release", helm_release),
    ("clients::prometheus_reads_the_metrics", prometheus_reads_the_metrics),
    ("clients::older_kubectl", older_kubectl),
];

fn sources() -> PathBuf {
    root().join("tests/clients")
}

fn tools() -> PathBuf {
    root().join("target/tools")
}

/// A program of this test's, ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file of this test's, removed with it.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A Python program with the libraries that were installed for it.
fn with_python(cluster: &Cluster, script: &Path) -> Command {
    let mut command = cluster.client("python3");
    command.env("PYTHONPATH", tools().join("python")).env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    command
}

fn must(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn python(cluster: &Cluster) {
    cluster.namespace("python");
    let mut command = with_python(cluster, &sources().join("client.py"));
    command.arg("python");
    assert!(must(command).contains("content"));
}

fn javascript(cluster: &Cluster) {
    cluster.namespace("javascript");
    // Modules are looked for beside the script.
    let script = tools().join(format!("node/client-{}.mjs", std::process::id()));
    std::fs::copy(sources().join("client.mjs"), &script).expect("writable folder");
    let script = Copy(script);
    let mut command = cluster.client("node");
    command.arg(&script.0).arg("javascript");
    assert!(must(command).contains("content"));
}

fn rust_controller(cluster: &Cluster) {
    cluster.namespace("rust");
    let mut command = cluster.client(env!("CARGO_BIN_EXE_kube-rs-controller"));
    command.arg("rust");
    assert!(must(command).contains("content; 0 secrets"));
}

const GREETINGS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.clients.example}
spec:
  group: clients.example
  scope: Namespaced
  names: {plural: greetings, kind: Greeting}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {who: {type: string}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

fn kopf_operator(cluster: &Cluster) {
    cluster.namespace("kopf");
    let made = cluster.with_manifest("kopf", &["apply"], GREETINGS);
    assert!(made.ok, "{made:?}");
    let mut command = with_python(cluster, Path::new("-m"));
    command.args(["kopf", "run", "--standalone", "--namespace=kopf"]).arg(sources().join("operator.py"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let operator = Running(command.spawn().expect("python3 runs"));
    let greeting = |who: &str| {
        let manifest = format!(
            "apiVersion: clients.example/v1\nkind: Greeting\nmetadata: {{name: g}}\nspec: {{who: {who}}}\n"
        );
        let made = cluster.with_manifest("kopf", &["apply"], &manifest);
        assert!(made.ok, "{made:?}");
        let text = format!("Hello, {who}!");
        cluster.wait_for("the greeting", || {
            cluster.try_kubectl("kopf", &["get", "cm", "g", "-o", "jsonpath={.data.text}"]).out == text
        });
        cluster.wait_for("the status", || {
            let status = &["get", "greetings", "g", "-o", "jsonpath={.status.greeted}"];
            cluster.try_kubectl("kopf", status).out == who
        });
    };
    greeting("world");
    greeting("moon");
    let events = cluster.kubectl("kopf", &["get", "events", "-o", "jsonpath={.items[*].message}"]);
    assert!(events.contains("moon was greeted"), "{events}");
    cluster.kubectl("kopf", &["delete", "greetings", "g", "--timeout=60s"]);
    cluster.kubectl("kopf", &["get", "cm", "g-farewell"]);
    cluster.wait_for("what it owned to go", || !cluster.try_kubectl("kopf", &["get", "cm", "g"]).ok);
    drop(operator);
}

fn helm_release(cluster: &Cluster) {
    cluster.namespace("helm");
    let home = tempfile::tempdir().expect("temporary folder");
    let chart = sources().join("chart").display().to_string();
    let helm = |args: &[&str]| {
        let mut command = cluster.client(tools().join("bin/helm"));
        command.env("HOME", home.path()).args(["--namespace", "helm"]).args(args);
        must(command)
    };
    let greeting = || cluster.kubectl("helm", &["get", "orders", "shop", "-o", "jsonpath={.spec.item}"]);
    helm(&["install", "shop", &chart, "--wait", "--timeout=90s"]);
    assert_eq!(greeting(), "hello");
    helm(&["test", "shop", "--timeout=90s"]);
    helm(&["upgrade", "shop", &chart, "--set=greeting=goodbye,replicas=2", "--wait", "--timeout=90s"]);
    assert_eq!(greeting(), "goodbye");
    let ready = &["get", "deploy", "shop", "-o", "jsonpath={.status.readyReplicas}"];
    assert_eq!(cluster.kubectl("helm", ready), "2");
    let broken = {
        let mut command = cluster.client(tools().join("bin/helm"));
        command.env("HOME", home.path()).args(["--namespace", "helm", "upgrade", "shop", &chart]);
        command.arg("--set=replicas=many").stdin(Stdio::null()).output().expect("helm runs")
    };
    assert!(!broken.status.success());
    helm(&["rollback", "shop", "1", "--wait", "--timeout=90s"]);
    assert_eq!(greeting(), "hello");
    assert!(helm(&["history", "shop"]).contains("Rollback to 1"));
    assert!(helm(&["list"]).contains("deployed"));
    helm(&["uninstall", "shop", "--wait", "--timeout=90s"]);
    assert!(!cluster.try_kubectl("helm", &["get", "deploy", "shop"]).ok);
}

/// Debian builds Prometheus without discovery through the API, so it is told where the server is.
const PROMETHEUS: &str = "global: {scrape_interval: 1s}
scrape_configs:
- job_name: api
  scheme: https
  static_configs: [{targets: [\"127.0.0.1:6443\"]}]
  tls_config: {ca_file: FOLDER/ca.crt, cert_file: FOLDER/client.crt, key_file: FOLDER/client.key}
- job_name: node
  scheme: https
  metrics_path: /metrics/cadvisor
  static_configs: [{targets: [\"127.0.0.1:10250\"]}]
  tls_config: {ca_file: FOLDER/ca.crt, cert_file: FOLDER/client.crt, key_file: FOLDER/client.key}
- job_name: resource
  scheme: https
  metrics_path: /metrics/resource
  static_configs: [{targets: [\"127.0.0.1:10250\"]}]
  tls_config: {ca_file: FOLDER/ca.crt, cert_file: FOLDER/client.crt, key_file: FOLDER/client.key}
";

fn prometheus_reads_the_metrics(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writable folder");
    for (field, name) in [
        ("clusters[0].cluster.certificate-authority-data", "ca.crt"),
        ("users[0].user.client-certificate-data", "client.crt"),
        ("users[0].user.client-key-data", "client.key"),
    ] {
        let path = format!("jsonpath={{.{field}}}");
        let text = cluster.kubectl("default", &["config", "view", "--raw", "-o", &path]);
        let mut decode = Command::new("base64");
        decode.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = decode.spawn().expect("base64 runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes())
            .expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        write(name, &String::from_utf8_lossy(&output.stdout));
    }
    let config = PROMETHEUS.replace("FOLDER", &folder.path().display().to_string());
    write("prometheus.yml", &config);
    let mut command = cluster.client(tools().join("prometheus/usr/bin/prometheus"));
    command
        .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg("--web.listen-address=127.0.0.1:9099");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = Running(command.spawn().expect("prometheus runs"));
    let query = |expression: &str| {
        let url = format!("http://127.0.0.1:9099/api/v1/query?query={expression}");
        let answer: serde_json::Value = serde_json::from_str(&cluster.fetch(&url)).unwrap_or_default();
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    };
    cluster.wait_for("the API to be scraped", || query("up%7Bjob=%22api%22%7D==1") == 1);
    cluster.wait_for("requests to be counted", || query("apiserver_request_total%7Bverb=%22LIST%22%7D") > 0);
    for job in ["node", "resource"] {
        let up = format!("up%7Bjob=%22{job}%22%7D==1");
        cluster.wait_for("the node to be scraped", || query(&up) == 1);
    }
    for name in [
        "machine_memory_bytes",
        "container_cpu_usage_seconds_total%7Bid=%22/%22%7D",
        "node_memory_working_set_bytes",
        "apiserver_request_duration_seconds_bucket",
        "apiserver_storage_objects",
        "process_resident_memory_bytes",
    ] {
        assert!(query(name) > 0, "{name}");
    }
}

fn older_kubectl(cluster: &Cluster) {
    cluster.namespace("older");
    let kubectl = |args: &[&str]| {
        let mut command = cluster.client(tools().join("bin/kubectl-1.35"));
        command.args(["--namespace", "older"]).args(args);
        must(command)
    };
    assert!(kubectl(&["version"]).contains("Server Version: v1.36"));
    kubectl(&["create", "deployment", "web", "--image=busybox:1", "--", "/bin/busybox", "sleep", "3600"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(kubectl(&["exec", "deploy/web", "--", "/bin/busybox", "echo", "older"]).contains("older"));
    assert!(kubectl(&["explain", "deployment.spec.strategy"]).contains("DeploymentStrategy"));
    let manifest = kubectl(&["get", "deploy", "web", "-o", "yaml"]);
    assert!(manifest.contains("kind: Deployment"));
    kubectl(&["scale", "deployment/web", "--replicas=2"]);
    kubectl(&["get", "all", "-o", "wide"]);
    kubectl(&["delete", "deployment", "web", "--timeout=60s"]);
}
