use std::path::Path;

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use grpc::{Reader, Reply, WireError, Writer};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::*;

const DRIVER: &str = "gpu.example.com";

/// What a stand-in of a driver was asked, in order.
type Calls = Arc<Mutex<Vec<String>>>;

/// A driver that gives every claim the CDI device of its name; dropped, it is gone.
struct Driver {
    calls: Calls,
    /// What it tells of its device: the health's number and for how many seconds; nobody is told before it is set.
    health: watch::Sender<Option<(u64, u64)>>,
    sockets: [PathBuf; 2],
    _tasks: JoinSet<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

impl Driver {
    fn start(root: &Path, versions: &'static [&'static str]) -> Self {
        let registry = root.join("plugins_registry");
        std::fs::create_dir_all(&registry).unwrap();
        let sockets = [root.join("dra.sock"), registry.join("gpu-reg.sock")];
        let calls = Calls::default();
        let mut tasks = JoinSet::new();
        let health = watch::Sender::new(None);
        for path in &sockets {
            let listener = UnixListener::bind(path).unwrap();
            let (calls, endpoint) = (calls.clone(), sockets[0].display().to_string());
            let health = health.subscribe();
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    let (calls, endpoint, health) = (calls.clone(), endpoint.clone(), health.clone());
                    connections.spawn(grpc::answer_with_streams(socket, move |path, message| {
                        let answer = match path.as_str() {
                            "/v1alpha1.DRAResourceHealth/NodeWatchResources" => {
                                Ok(Reply::Many(tell(health.clone())))
                            }
                            _ => answer(&path, &message, &calls, &endpoint, versions).map(Reply::One),
                        };
                        async move { answer }
                    }));
                }
            });
        }
        Self { calls, health, sockets, _tasks: tasks }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }
}

/// Tells how the driver's device is, whenever that changes.
fn tell(mut health: watch::Receiver<Option<(u64, u64)>>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let told = *health.borrow_and_update();
            if let Some((is, seconds)) = told {
                let mut message = Writer::new();
                message.message(1, |device| {
                    device
                        .message(1, |id| {
                            id.bytes(1, b"p").bytes(2, b"d");
                        })
                        .number(2, is)
                        .number(4, seconds)
                        .bytes(5, b"says the driver");
                });
                if sender.send(message.finish()).await.is_err() {
                    return;
                }
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn answer(path: &str, message: &[u8], calls: &Calls, endpoint: &str, versions: &[&str]) -> grpc::Answer {
    let mut out = Writer::new();
    match path {
        "/pluginregistration.Registration/GetInfo" => {
            out.bytes(1, b"DRAPlugin").bytes(2, DRIVER.as_bytes()).bytes(3, endpoint.as_bytes());
            for version in versions {
                out.bytes(4, version.as_bytes());
            }
        }
        "/pluginregistration.Registration/NotifyRegistrationStatus" => {
            let mut said = "registered".to_owned();
            let _ = Reader::new(message).fields::<WireError>(|field, value| {
                if field == 2 {
                    said = value.text();
                }
                Ok(())
            });
            calls.lock().push(said);
        }
        _ => {
            let method = path.rsplit('/').next().unwrap();
            for (uid, name) in claims(message) {
                calls.lock().push(format!("{method} {name}"));
                out.message(1, |entry| {
                    entry.bytes(1, uid.as_bytes()).message(2, |answer| {
                        if method == "NodePrepareResources" && name == "broken" {
                            answer.bytes(2, b"out of order");
                        } else if method == "NodePrepareResources" {
                            answer.message(1, |device| {
                                let cdi = format!("example.com/gpu={name}");
                                device.bytes(1, b"r").bytes(2, b"p").bytes(3, b"d").bytes(4, cdi.as_bytes());
                            });
                        }
                    });
                });
            }
        }
    }
    Ok(out.finish())
}

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

struct Scene {
    cluster: Cluster,
    root: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let account: client::k8s_openapi::api::core::v1::ServiceAccount =
            object(json!({"metadata": {"name": "default"}}));
        cluster.create("default", &account).await;
        cluster.create_node(&node("n1", 4, 8, 10)).await;
        let class: DeviceClass = object(json!({"metadata": {"name": "gpu"}, "spec": {}}));
        cluster.create_global(&class).await;
        Self { cluster, root: tempfile::tempdir().unwrap() }
    }

    /// An agent's part, with no more rights than a node has.
    fn dra(&self) -> Dra {
        let client = self.cluster.client_of("system:node:n1", ["system:nodes".to_owned()]);
        Dra::new(client, "n1", self.root.path(), Cdi::new(Vec::new()), self.cluster.drain.clone()).unwrap()
    }

    /// A claim that is allocated, and the pods that have it, on the node.
    async fn pods(&self, claim: &str, pods: &[&str]) -> Vec<Pod> {
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
        let object_: ResourceClaim =
            object(json!({"metadata": {"name": claim}, "spec": {"devices": {"requests": requests}}}));
        self.cluster.create("default", &object_).await;
        let mut all = Vec::new();
        let mut consumers: Vec<Value> = Vec::new();
        for name in pods {
            let pod: Pod = object(json!({"metadata": {"name": name}, "spec": {"nodeName": "n1",
                "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}},
                    {"name": "without", "image": "i"}],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}}));
            let pod = self.cluster.create("default", &pod).await;
            consumers.push(json!({"resource": "pods", "name": name, "uid": pod.metadata.uid}));
            all.push(pod);
        }
        let result = json!({"request": "r", "driver": DRIVER, "pool": "p", "device": "d"});
        let status =
            json!({"status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumers}});
        let claims = self.cluster.api::<ResourceClaim>("default");
        claims.patch_status(claim, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        all
    }

    async fn registered(&self, driver: &Driver) {
        let told = || async { (!driver.calls().is_empty()).then_some(()) };
        self.cluster.wait_for("the plugin to be registered", told).await;
    }
}

fn names(dra: &Dra, pod: &Pod, container: usize) -> Vec<String> {
    dra.0.claims.lock().devices(pod, &pod.spec.as_ref().unwrap().containers[container]).unwrap()
}

#[tokio::test]
async fn a_claim_is_prepared_once_and_given_back_by_the_last_pod() {
    let scene = Scene::new().await;
    let pods = scene.pods("c", &["p", "q"]).await;
    let dra = scene.dra();
    dra.start();
    let missing = dra.prepare(&pods[0]).await.unwrap_err().to_string();
    assert_eq!(missing, "DRA driver gpu.example.com is not registered");
    assert!(dra.users().is_empty(), "a pod that cannot begin can go");

    let driver = Driver::start(scene.root.path(), &["v1beta1.DRAPlugin", "v1.DRAPlugin"]);
    scene.registered(&driver).await;
    for pod in &pods {
        dra.prepare(pod).await.unwrap();
    }
    assert_eq!(driver.calls(), ["registered", "NodePrepareResources c"]);
    assert_eq!(names(&dra, &pods[0], 0), ["example.com/gpu=c"]);
    assert!(names(&dra, &pods[0], 1).is_empty());
    let undescribed = dra.edits(&pods[0], &pods[0].spec.as_ref().unwrap().containers[0]).unwrap_err();
    assert_eq!(undescribed.to_string(), "unresolvable CDI devices example.com/gpu=c");

    // Another agent goes on where this one stopped.
    drop(dra);
    let dra = scene.dra();
    dra.start();
    assert_eq!(names(&dra, &pods[1], 0), ["example.com/gpu=c"]);
    assert_eq!(dra.users().len(), 2);
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap();
    dra.unprepare(&uid(&pods[0])).await.unwrap();
    assert_eq!(driver.calls().last().unwrap(), "NodePrepareResources c", "the other pod still has it");
    let freed = || async { dra.unprepare(&uid(&pods[1])).await.ok() };
    scene.cluster.wait_for("the driver to be known again", freed).await;
    assert_eq!(driver.calls().last().unwrap(), "NodeUnprepareResources c");
    assert!(dra.users().is_empty());
    assert!(scene.dra().users().is_empty(), "that is remembered too");
}

#[tokio::test]
async fn how_a_claims_devices_are_is_known_until_the_driver_goes() {
    let scene = Scene::new().await;
    let pod = scene.pods("c", &["p"]).await.remove(0);
    let dra = scene.dra();
    dra.start();
    let driver = Driver::start(scene.root.path(), &["v1.DRAPlugin"]);
    scene.registered(&driver).await;
    dra.prepare(&pod).await.unwrap();
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    let told = || {
        let all = dra.health(&pod, &container);
        assert_eq!(all.len(), 1, "{all:?}");
        let ResourceHealth { resource_id, health, message } = all[0].resources.clone().unwrap().remove(0);
        assert_eq!(resource_id, "example.com/gpu=c");
        assert!(all[0].name.starts_with("claim:"), "{}", all[0].name);
        (health.unwrap(), message)
    };
    assert_eq!(told(), ("Unknown".into(), None));
    for (number, name) in [(1, "Healthy"), (2, "Unhealthy"), (0, "Unknown")] {
        driver.health.send_replace(Some((number, 600)));
        let heard = || async { (told() == (name.into(), Some("says the driver".into()))).then_some(()) };
        scene.cluster.wait_for("the driver to be heard", heard).await;
    }
    driver.health.send_replace(Some((1, 600)));
    let well = || async { (told().0 == "Healthy").then_some(()) };
    scene.cluster.wait_for("the device to be well again", well).await;
    drop(driver);
    let unknown = || async { (told() == ("Unknown".into(), None)).then_some(()) };
    scene.cluster.wait_for("the driver to be missed", unknown).await;
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    let scene = Scene::new().await;
    let broken = scene.pods("broken", &["p"]).await.remove(0);
    let dra = scene.dra();
    dra.start();
    let driver = Driver::start(scene.root.path(), &["v1.DRAPlugin"]);
    scene.registered(&driver).await;
    let refused = dra.prepare(&broken).await.unwrap_err().to_string();
    assert_eq!(refused, "NodePrepareResources failed for ResourceClaim broken: out of order");
    assert_eq!(dra.users().len(), 1, "the driver may have begun");
    // A pod that nobody gave the claim to.
    let other = scene.pods("taken", &["q"]).await.remove(0);
    let status = json!({"status": {"allocation": null, "reservedFor": null}});
    let claims = scene.cluster.api::<ResourceClaim>("default");
    claims.patch_status("taken", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let foreign = dra.prepare(&other).await.unwrap_err().to_string();
    assert!(foreign.contains("is not allowed to use ResourceClaim taken"), "{foreign}");
}

#[tokio::test]
async fn plugins_that_are_not_understood_are_told_so() {
    let scene = Scene::new().await;
    scene.dra().start();
    let driver = Driver::start(scene.root.path(), &["v7.DRAPlugin"]);
    scene.registered(&driver).await;
    let said = driver.calls().remove(0);
    assert!(
        said.starts_with("invalid supported gRPC versions of DRA driver plugin gpu.example.com"),
        "{said}"
    );
}

/// Slices that are there.
async fn slices(scene: &Scene) -> Vec<String> {
    let all = Api::<ResourceSlice>::all(scene.cluster.client.clone()).list(&ListParams::default()).await;
    all.unwrap().items.into_iter().filter_map(|slice| slice.metadata.name).collect()
}

async fn publish(scene: &Scene, name: &str, driver: &str, node: &str) {
    let slice: ResourceSlice = object(json!({"metadata": {"name": name}, "spec": {
        "driver": driver, "nodeName": node, "devices": [{"name": "d"}],
        "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}}}));
    scene.cluster.create_global(&slice).await;
}

#[tokio::test]
async fn what_a_driver_offers_goes_some_time_after_it() {
    let scene = Scene::new().await;
    publish(&scene, "old", DRIVER, "n1").await;
    publish(&scene, "elsewhere", DRIVER, "n2").await;
    scene.dra().start();
    let wiped = || async { (slices(&scene).await == ["elsewhere"]).then_some(()) };
    scene.cluster.wait_for("what was left by an earlier run to go", wiped).await;
    let driver = Driver::start(scene.root.path(), &["v1.DRAPlugin"]);
    scene.registered(&driver).await;
    publish(&scene, "own", DRIVER, "n1").await;
    publish(&scene, "other", "other.example.com", "n1").await;
    drop(driver);
    // It may come back within half a minute.
    let mut passed = 0;
    while slices(&scene).await.contains(&"own".to_owned()) {
        assert!(passed < 600, "the slice stays");
        passed += 1;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        // The socket's end is real.
        let seen = scene.cluster.api.store().revision();
        let _ = tokio::time::timeout(Duration::from_millis(20), scene.cluster.api.store().wait_for(seen + 1))
            .await;
    }
    assert!(passed >= 29, "it went after {passed} s");
    assert_eq!(slices(&scene).await, ["elsewhere", "other"]);
}
