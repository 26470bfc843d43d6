//! Devices that a driver prepares for pods' claims: from the class to the container.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use grpc::{Reader, WireError, Writer};

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] =
    &[("dra::a_device_reaches_the_container_and_comes_back", a_device_reaches_the_container_and_comes_back)];

const DRIVER: &str = "gpu.example.com";

/// A driver beside the cluster; dropped, it is gone.
struct Driver {
    calls: Arc<Mutex<Vec<String>>>,
    sockets: [PathBuf; 2],
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|path| drop(std::fs::remove_file(path)));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Driver {
    fn start(cluster: &Cluster) -> Self {
        let root = cluster.folder("data/kubelet");
        let sockets = [root.join("gpu.sock"), root.join("plugins_registry/gpu-reg.sock")];
        let calls = Arc::new(Mutex::new(Vec::new()));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let endpoint = sockets[0].display().to_string();
        for path in &sockets {
            let (calls, endpoint) = (calls.clone(), endpoint.clone());
            let _inside = runtime.enter();
            let listener = tokio::net::UnixListener::bind(path).expect("a socket");
            runtime.spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (calls, endpoint) = (calls.clone(), endpoint.clone());
                    tokio::spawn(grpc::answer(socket, move |path, message| {
                        let answer = answer(&path, &message, &calls, &endpoint);
                        async move { answer }
                    }));
                }
            });
        }
        Self { calls, sockets, runtime: Some(runtime) }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("no panic").clone()
    }
}

fn answer(path: &str, message: &[u8], calls: &Mutex<Vec<String>>, endpoint: &str) -> grpc::Answer {
    let mut out = Writer::new();
    let note = |what: String| calls.lock().expect("no panic").push(what);
    match path {
        "/pluginregistration.Registration/GetInfo" => {
            out.bytes(1, b"DRAPlugin").bytes(2, DRIVER.as_bytes());
            out.bytes(3, endpoint.as_bytes()).bytes(4, b"v1.DRAPlugin");
        }
        "/pluginregistration.Registration/NotifyRegistrationStatus" => note("registered".to_owned()),
        _ => {
            let method = path.rsplit('/').next().unwrap_or_default();
            for (uid, name) in claims(message) {
                note(format!("{method} {name}"));
                out.message(1, |entry| {
                    entry.bytes(1, uid.as_bytes()).message(2, |answer| {
                        if method == "NodePrepareResources" {
                            answer.message(1, |device| {
                                device.bytes(1, b"gpu").bytes(2, b"node-1").bytes(3, b"gpu-0");
                                device.bytes(4, b"example.com/gpu=gpu-0");
                            });
                        }
                    });
                });
            }
        }
    }
    Ok(out.finish())
}

/// UID and name of each.
fn claims(message: &[u8]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let _ = Reader::new(message).fields::<WireError>(|_, value| {
        let mut claim = (String::new(), String::new());
        Reader::new(value.bytes()).fields::<WireError>(|field, value| {
            match field {
                2 => claim.0 = value.text(),
                3 => claim.1 = value.text(),
                _ => {}
            }
            Ok(())
        })?;
        all.push(claim);
        Ok(())
    });
    all
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn pod(cluster: &Cluster, ns: &str, name: &str) {
    make(
        cluster,
        ns,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0,
                resourceClaims: [{{name: gpu, resourceClaimTemplateName: one-gpu}}],
                containers: [{{name: main, image: 'busybox:1', resources: {{claims: [{{name: gpu}}]}},
                  command: [/bin/busybox, sh, -c, 'echo \"I have $GPU\"; exec /bin/busybox sleep 1000']}}]}}}}"
        ),
    );
}

fn phase(cluster: &Cluster, ns: &str, pod: &str) -> String {
    cluster.get(ns, &["pod", pod])["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn says(cluster: &Cluster, ns: &str, reason: &str, text: &str) -> bool {
    let events = cluster.get(ns, &["events"]);
    let all = events["items"].as_array().cloned().unwrap_or_default();
    all.iter().any(|e| e["reason"] == reason && e["message"].as_str().is_some_and(|m| m.contains(text)))
}

fn a_device_reaches_the_container_and_comes_back(cluster: &Cluster) {
    let ns = "dra";
    cluster.namespace(ns);
    let cdi = cluster.folder("cdi");
    std::fs::create_dir_all(&cdi).expect("writable folder");
    let spec = r#"{"cdiVersion": "0.6.0", "kind": "example.com/gpu",
        "devices": [{"name": "gpu-0", "containerEdits": {"env": ["GPU=number-0"]}}]}"#;
    std::fs::write(cdi.join("gpu.json"), spec).expect("writable folder");
    let driver = Driver::start(cluster);
    cluster.wait_for("the driver to be registered", || driver.calls().contains(&"registered".to_owned()));
    make(
        cluster,
        ns,
        "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: gpu.example.com}, spec: {
        selectors: [{cel: {expression: 'device.driver == \"gpu.example.com\"'}}]}}",
    );
    make(cluster, ns, "{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: one-gpu}, spec: {
        spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.example.com, selectors: [{cel: {
          expression: 'device.attributes[\"gpu.example.com\"].model == \"A1\" && device.capacity[\"gpu.example.com\"].memory.isGreaterThan(quantity(\"1Gi\"))'}}]}}]}}}}");
    make(
        cluster,
        ns,
        "{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {name: node-1-gpu}, spec: {
        driver: gpu.example.com, nodeName: node-1, pool: {name: node-1, generation: 1, resourceSliceCount: 1},
        devices: [{name: gpu-0, attributes: {model: {string: A1}}, capacity: {memory: {value: 8Gi}}}]}}",
    );
    pod(cluster, ns, "first");
    cluster.wait_for("the pod to run", || phase(cluster, ns, "first") == "Running");
    cluster.wait_for("what it was given to be seen", || {
        cluster.kubectl(ns, &["logs", "first"]).contains("I have number-0")
    });
    let status = cluster.get(ns, &["pod", "first"]);
    let claim = status["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
        .as_str()
        .expect("a claim")
        .to_owned();
    assert!(claim.starts_with("first-gpu-"), "{claim}");
    let table = cluster.kubectl(ns, &["get", "resourceclaim", &claim]);
    assert!(table.contains("allocated,reserved"), "{table}");

    // There is but one.
    pod(cluster, ns, "second");
    cluster.wait_for("the second pod to wait", || {
        says(cluster, ns, "FailedScheduling", "1 cannot allocate all claims")
    });
    cluster.kubectl(ns, &["delete", "pod", "first"]);
    cluster.wait_for("the second pod to run", || phase(cluster, ns, "second") == "Running");
    cluster
        .wait_for("the first claim to go", || !cluster.try_kubectl(ns, &["get", "resourceclaim", &claim]).ok);
    let calls = driver.calls();
    let unprepared = calls.iter().position(|call| *call == format!("NodeUnprepareResources {claim}"));
    let prepared = calls.iter().rposition(|call| call.starts_with("NodePrepareResources second-gpu-"));
    assert!(unprepared.is_some() && unprepared < prepared, "{calls:?}");
    cluster.kubectl(ns, &["delete", "pod", "second"]);

    // Without the driver nothing begins, and it is told why.
    drop(driver);
    pod(cluster, ns, "third");
    let why = "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver gpu.example.com is not registered";
    cluster.wait_for("why the third pod waits", || says(cluster, ns, "FailedPrepareDynamicResources", why));
    let _driver = Driver::start(cluster);
    cluster.wait_for("the third pod to run", || phase(cluster, ns, "third") == "Running");
    cluster.kubectl(ns, &["delete", "pod", "third"]);
    cluster.kubectl(ns, &["delete", "resourceslice", "node-1-gpu"]);
}
