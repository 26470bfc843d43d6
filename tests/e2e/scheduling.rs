//! How pods are placed, as a configuration file says, and what is counted meanwhile.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::cluster::{Cluster, Said};

pub const TESTS: &[crate::Test] = &[
    ("scheduling::a_file_says_how_pods_are_placed", a_file_says_how_pods_are_placed),
    ("scheduling::a_file_with_faults_is_refused", a_file_with_faults_is_refused),
    ("scheduling::the_api_tells_what_is_counted", the_api_tells_what_is_counted),
];

const CONFIG: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: '*'}]
      enabled: [{name: NodeResourcesFit}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated}
extenders:
- urlPrefix: http://127.0.0.1:18080/extender
  filterVerb: filter
  nodeCacheCapable: true
";

/// Lets no pod on the node n1.
const EXTENDER: &str = "
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Extender(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        kept = [name for name in asked['NodeNames'] if name != 'n1']
        said = json.dumps({'NodeNames': kept, 'FailedNodes': {'n1': 'it is not licensed'}}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *args):
        pass
HTTPServer(('127.0.0.1', 18080), Extender).serve_forever()
";

/// A program that ends with the test.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A second control plane beside the cluster, without a node.
pub struct Second<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    _server: Guest,
}

impl<'a> Second<'a> {
    pub fn start(cluster: &'a Cluster, name: &str, config: &str, more: &[&str]) -> Self {
        let folder = cluster.folder(name);
        let server = Guest(command(cluster, &folder, config, more).spawn().expect("gantry starts"));
        let second = Self { cluster, folder, _server: server };
        cluster.wait_for("the second API", || second.kubectl(&["get", "--raw", "/readyz"]).ok);
        cluster.wait_for("the account of pods", || second.kubectl(&["get", "serviceaccount", "default"]).ok);
        second
    }

    pub fn kubectl(&self, args: &[&str]) -> Said {
        let kubeconfig = self.folder.join("data/admin.kubeconfig");
        let mut command = self.cluster.kubectl_command("default", args);
        let output = command.arg("--kubeconfig").arg(kubeconfig).stdin(Stdio::null()).output();
        let output = output.expect("kubectl runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn apply(&self, manifest: &str) {
        let kubeconfig = self.folder.join("data/admin.kubeconfig");
        let mut command = self.cluster.kubectl_command("default", &["create", "-f", "-", "--validate=false"]);
        let said = self.cluster.told(command.arg("--kubeconfig").arg(kubeconfig), manifest);
        assert!(said.ok, "{said:?}");
    }

    fn node_of(&self, pod: &str) -> String {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]).out
    }
}

pub fn command(
    cluster: &Cluster,
    folder: &std::path::Path,
    config: &str,
    more: &[&str],
) -> std::process::Command {
    let file = folder.join("scheduler.yaml");
    std::fs::write(&file, config).expect("writable folder");
    let mut command = cluster.client(cluster.program("gantry"));
    command.args([
        "server",
        "--disable-agent",
        "--https-port=7443",
        "--node-ip=127.0.0.1",
        "--node-name=second",
    ]);
    for part in ["data", "run"] {
        command.arg(format!("--{part}-dir={}", folder.join(part).display()));
    }
    command.arg(format!("--scheduler-config={}", file.display())).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn a_file_says_how_pods_are_placed(cluster: &Cluster) {
    let _extender = Guest(cluster.python(EXTENDER, &[]));
    let ports = ["--scheduler-port=20259", "--controllers-port=20257"];
    let second = Second::start(cluster, "placing", CONFIG, &ports);
    for name in ["n1", "n2", "n3"] {
        second.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, status: {{allocatable: {{cpu: '8', memory: 8Gi, pods: '9'}}, \
             capacity: {{cpu: '8', memory: 8Gi, pods: '9'}}}}}}"
        ));
    }
    let pod = |name: &str, scheduler: &str| {
        second.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{schedulerName: {scheduler}, \
             tolerations: [{{operator: Exists}}], containers: [{{name: c, image: c, resources: {{requests: {{cpu: '1'}}}}}}]}}}}"
        ));
    };
    pod("nobodys", "default-scheduler");
    for name in ["first", "second", "third"] {
        pod(name, "packer");
        cluster.wait_for("the pod to have a node", || !second.node_of(name).is_empty());
    }
    let nodes = ["first", "second", "third"].map(|name| second.node_of(name));
    assert!(nodes[0] == nodes[1] && nodes[1] == nodes[2], "not packed: {nodes:?}");
    assert_ne!(nodes[0], "n1", "the extender will have nobody there");
    assert_eq!(second.node_of("nobodys"), "", "it is another scheduler's");

    let told = |port: u16, path: &str| {
        let server = format!("--server=https://127.0.0.1:{port}");
        second.kubectl(&["get", "--raw", path, &server])
    };
    let scheduler = told(20259, "/metrics");
    assert!(scheduler.ok, "{scheduler:?}");
    let scheduled = "scheduler_schedule_attempts_total{profile=\"packer\",result=\"scheduled\"} 3";
    assert!(scheduler.out.lines().any(|line| line == scheduled), "{}", scheduler.out);
    assert!(!scheduler.out.contains("workqueue_depth"), "that is the controllers'");
    let controllers = told(20257, "/metrics");
    let adds = "workqueue_adds_total{name=\"serviceaccount\"}";
    assert!(controllers.out.contains(adds), "{controllers:?}");
    assert!(!told(20259, "/api/v1/pods").ok, "nothing else is served there");
    let stranger = cluster.fetch_unsafely("https://127.0.0.1:20259/metrics");
    assert!(stranger.contains("HTTP Error 40"), "{stranger}");
}

fn a_file_with_faults_is_refused(cluster: &Cluster) {
    let folder = cluster.folder("faulty");
    for (from, to, why) in [
        ("MostAllocated", "Best", "scoringStrategy.type: Unsupported value: \"Best\""),
        ("nodeCacheCapable", "nodeCache", "strict decoding error: unknown field \"extenders[0].nodeCache\""),
        (
            "http://127",
            "ftp://127",
            "extenders[0]: urlPrefix: url \"ftp://127.0.0.1:18080/extender\" is no https URL",
        ),
        ("v1\nkind", "v1beta3\nkind", "no kind \"KubeSchedulerConfiguration\" is registered for version"),
    ] {
        let output =
            command(cluster, &folder, &CONFIG.replacen(from, to, 1), &[]).stderr(Stdio::piped()).output();
        let output = output.expect("gantry runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{why}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

fn the_api_tells_what_is_counted(cluster: &Cluster) {
    let page = cluster.kubectl("default", &["get", "--raw", "/metrics"]);
    for family in [
        "scheduler_pending_pods{queue=\"active\"}",
        "scheduler_scheduling_attempt_duration_seconds_bucket",
        "workqueue_depth{name=\"deployment\"}",
        "workqueue_queue_duration_seconds_bucket{name=\"endpoint_slice\"",
        "leader_election_master_status{name=\"kube-scheduler\"} 1",
        "node_collector_zone_size",
        "apiserver_request_total",
    ] {
        assert!(page.contains(family), "{family} is not told");
    }
    // A family comes once.
    let mut families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all);
}
