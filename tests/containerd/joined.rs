//! An agent that joins a cluster and has its pods run by containerd.

use serde_json::Value;

use crate::machine::{Guest, Machine};
use crate::{Place, SLEEP, main_status, pod};

const NODE: &str = "joined";

/// The agent of a node of its own beside the server, which has none.
fn start(m: &Machine) -> Guest {
    let ca = m.path("data/pki/ca.crt");
    let config = m.path("joined.yaml");
    let text =
        "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, serverTLSBootstrap: true}";
    std::fs::write(&config, text).expect("writable folder");
    let own = |name: &str| m.path(&format!("{NODE}/{name}")).display().to_string();
    let flags = [
        format!("--data-dir={}", own("data")),
        format!("--run-dir={}", own("run")),
        format!("--log-dir={}", own("logs")),
        format!("--node-name={NODE}"),
        "--server=https://127.0.0.1:6443".to_owned(),
        "--token=abcdef.0123456789abcdef".to_owned(),
        format!("--ca-file={}", ca.display()),
        format!("--node-config={}", config.display()),
        m.endpoint(),
    ];
    m.agent_beside(&flags)
}

fn ready(m: &Machine) -> bool {
    let said = m.kubectl(&["get", "node", NODE, "-o", "json"]);
    let node: Value = serde_json::from_str(&said.out).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

pub fn an_agent_joins_with_it(place: &mut Place) {
    let m = &place.machine;
    if place.containerd.is_none() {
        place.containerd = Some(m.containerd());
    }
    m.add_network();
    m.does(&["up", "--disable-agent"]);
    m.apply(e2e::JOINING);
    let agent = start(m);
    m.wait_for("the node to be ready", || ready(m));
    let node = m.get(&["node", NODE]);
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    assert!(version.starts_with("containerd://"), "{version}");

    let script = "echo hello from $HOSTNAME; exec /bin/busybox sleep 1000";
    m.apply(&pod("guest", script, "", ""));
    m.ready("guest");
    let found = m.get(&["pod", "guest"]);
    assert_eq!(found["spec"]["nodeName"], NODE);
    let before = main_status(m, "guest")["containerID"].clone();
    assert!(before.as_str().is_some_and(|id| id.starts_with("containerd://")), "{before}");
    // What goes by way of the API and the agent's own server, once somebody has let that have its certificate.
    m.wait_for("its log", || {
        let all = m.get(&["csr"])["items"].as_array().cloned().unwrap_or_default();
        for csr in all.iter().filter(|csr| csr["spec"]["signerName"] == "kubernetes.io/kubelet-serving") {
            m.kubectl(&["certificate", "approve", csr["metadata"]["name"].as_str().expect("a name")]);
        }
        m.kubectl(&["logs", "guest"]).out.contains("hello from guest")
    });
    let said = m.must(&["exec", "guest", "--", "/bin/busybox", "hostname"]);
    assert_eq!(said.trim(), "guest");
    let stats = m.must(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/stats/summary")]);
    assert!(stats.contains("\"name\":\"guest\"") || stats.contains("\"name\": \"guest\""), "{stats}");

    // Another agent finds what the first one has left, with the certificate that it was given.
    drop(agent);
    let agent = start(m);
    m.wait_for("the node to be ready again", || ready(m));
    m.ready("guest");
    let now = main_status(m, "guest");
    assert_eq!((&now["containerID"], &now["restartCount"]), (&before, &0.into()));
    m.apply(&pod("second", SLEEP, "", ""));
    m.ready("second");
    // Of the node that there was before something may be left, which nobody ends.
    m.must(&["delete", "pod", "guest", "second", "--timeout=60s"]);
    m.wait_for("the containers to go", || m.ctr(&["containers", "ls", "-q"]).out.is_empty());
    drop(agent);
    m.does(&["down"]);
}
