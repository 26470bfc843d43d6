//! Stand-ins for the scheduler and for the agents of all nodes. They remember what runs: two pods of one name must never
//! be alive at once, and no pod may vanish that its agent has not seen to its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::SeededIds;
use client::{Controller, Key, Next, controller_of};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::Cluster;
use tokio::time::{Instant, sleep};

use super::below;
use super::users::NODES;

const LONG_AGO: &str = "2026-01-01T00:00:00Z";
/// How often a node says that it is there.
const BEAT: Duration = Duration::from_secs(5);
/// Pods with this image never become ready.
pub(super) const BAD: &str = "app:bad";

/// Clones share everything.
#[derive(Clone)]
pub(super) struct Agents(Arc<Inner>);

struct Inner {
    client: Client,
    random: SeededIds,
    addresses: AtomicU32,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What runs: UIDs by the pods' names.
    alive: HashMap<Key, String>,
    /// When something is to be done about a pod next, by UID and what it is.
    due: HashMap<(String, &'static str), Instant>,
    /// The pods that have succeeded, by the UID of whoever controls them.
    succeeded: BTreeMap<String, HashSet<String>>,
    faults: Vec<String>,
}

impl Agents {
    pub(super) fn start(cluster: &Cluster, seed: u64) -> Self {
        let agents = Self(Arc::new(Inner {
            client: cluster.client.clone(),
            random: SeededIds::new(seed ^ 0xa9e2),
            addresses: AtomicU32::new(1),
            seen: Mutex::default(),
        }));
        let beats = agents.clone();
        cluster.drain.spawn_until_started(async move {
            loop {
                beats.beat().await;
                sleep(BEAT).await;
            }
        });
        let pods = cluster.informers.of::<Pod>();
        let controller = Controller::new("agents").watches(&pods, |pod: &Pod| [Key::of(pod)]);
        let this = agents.clone();
        cluster.drain.spawn(controller.run(cluster.drain.clone(), move |key| {
            let (this, pods) = (this.clone(), pods.clone());
            async move {
                match pods.get(&key) {
                    Some(pod) => this.look(&key, &pod).await,
                    None => Ok(this.gone(&key)),
                }
            }
        }));
        agents
    }

    /// Says of each node that it is there.
    async fn beat(&self) {
        let leases: Api<Lease> = Api::namespaced(self.0.client.clone(), "kube-node-lease");
        for node in NODES {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": 40,
                    "renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()},
            });
            let params = PatchParams::apply("agents").force();
            let beat = leases.patch(node, &params, &Patch::Apply(lease)).await;
            beat.unwrap_or_else(|error| panic!("node {node} cannot renew its lease: {error}"));
            self.say_well(node).await;
        }
    }

    /// What must never have happened and has.
    pub(super) fn faults(&self) -> Vec<String> {
        self.0.seen.lock().faults.clone()
    }

    /// A node of which others say that it is silent, because it was for long, says that it is well.
    async fn say_well(&self, node: &str) {
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let Ok(known) = nodes.get(node).await else { return };
        let mut conditions = known.status.iter().flat_map(|s| s.conditions.iter().flatten());
        if conditions.any(|c| c.type_ == "Ready" && c.status != "True") {
            let well = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            // Whoever fails says so again with the next beat.
            let _ = nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(well)).await;
        }
    }

    /// How many pods of a controller have succeeded.
    pub(super) fn succeeded(&self, owner: &str) -> usize {
        self.0.seen.lock().succeeded.get(owner).map_or(0, HashSet::len)
    }

    fn gone(&self, key: &Key) -> Next {
        let mut seen = self.0.seen.lock();
        if let Some(uid) = seen.alive.remove(key) {
            seen.faults.push(format!("pod {key} ({uid}) vanished while it ran"));
        }
        Next::Done
    }

    /// Whether the time for something has come; it is set when it is first asked for.
    fn wait(&self, uid: &str, what: &'static str, most: u64) -> Option<Next> {
        let now = Instant::now();
        let after = || now + Duration::from_millis(below(&self.0.random, most));
        let due = *self.0.seen.lock().due.entry((uid.to_owned(), what)).or_insert_with(after);
        (due > now).then(|| Next::After(due - now))
    }

    async fn look(&self, key: &Key, pod: &Pod) -> Result<Next, kube::Error> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), key.namespace());
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let done = if pod.metadata.deletion_timestamp.is_some() {
            if let Some(later) = self.wait(uid, "end", 150) {
                return Ok(later);
            }
            self.end(key, uid);
            let only = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(only),
                ..DeleteParams::default()
            };
            api.delete(key.name(), &now).await.map(drop)
        } else if node.is_empty() {
            self.bind(&api, pod).await
        } else if matches!(phase, "Succeeded" | "Failed") {
            return Ok(Next::Done);
        } else {
            self.begin(key, uid);
            if let Some(later) = self.wait(uid, "start", 80) {
                return Ok(later);
            }
            let is_job = controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job");
            match phase {
                "Pending" => self.say(&api, pod, "Running").await,
                _ if is_job => {
                    if let Some(later) = self.wait(uid, "work", 250) {
                        return Ok(later);
                    }
                    // One in five fails.
                    let fails = uid.bytes().map(u32::from).sum::<u32>() % 5 == 0;
                    let phase = if fails { "Failed" } else { "Succeeded" };
                    let said = self.say(&api, pod, phase).await;
                    if said.is_ok() {
                        self.ended(key, pod, phase);
                    }
                    said
                }
                // Of a node that was silent for long others say that its pods are not ready. It is heard again.
                _ if is_unready(pod) => self.say(&api, pod, "Running").await,
                _ => return Ok(Next::Done),
            }
        };
        match done {
            Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => Err(error),
            _ => Ok(Next::Done),
        }
    }

    fn begin(&self, key: &Key, uid: &str) {
        let mut seen = self.0.seen.lock();
        match seen.alive.get(key) {
            Some(other) if other != uid => {
                let text = format!("pod {key}: {uid} began while {other} was alive");
                seen.faults.push(text);
            }
            Some(_) => return,
            None => {}
        }
        seen.alive.insert(key.clone(), uid.to_owned());
    }

    fn end(&self, key: &Key, uid: &str) {
        let mut seen = self.0.seen.lock();
        if seen.alive.get(key).is_some_and(|alive| alive == uid) {
            seen.alive.remove(key);
        }
    }

    fn ended(&self, key: &Key, pod: &Pod, phase: &str) {
        let mut seen = self.0.seen.lock();
        seen.alive.remove(key);
        if let (Some(owner), "Succeeded") = (controller_of(&pod.metadata), phase) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            seen.succeeded.entry(owner.uid.clone()).or_default().insert(uid);
        }
    }

    /// Chooses a node as a scheduler would that has room everywhere.
    async fn bind(&self, api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let mut names: Vec<String> = nodes
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .filter_map(|n| n.metadata.name)
            .collect();
        names.sort();
        let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let wanted = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str();
        let any = || names.get(below(&self.0.random, names.len() as u64) as usize).cloned();
        let Some(node) = wanted.map(str::to_owned).or_else(any) else { return Ok(()) };
        let binding =
            json!({"metadata": {"uid": pod.metadata.uid}, "target": {"kind": "Node", "name": node}});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = PostParams::default();
        api.create_subresource::<_, Value>("binding", name, &params, &binding).await.map(drop)
    }

    async fn say(&self, api: &Api<Pod>, pod: &Pod, phase: &str) -> Result<(), kube::Error> {
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref());
        let ready = if phase == "Running" && image != Some(BAD) { "True" } else { "False" };
        let known = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
        let ip = known.unwrap_or_else(|| {
            let n = self.0.addresses.fetch_add(1, Ordering::Relaxed);
            format!("10.{}.{}.{}", 1 + (n >> 16), (n >> 8) & 255, n & 255)
        });
        let status = json!({"metadata": {"uid": pod.metadata.uid}, "status": {
            "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": LONG_AGO}],
        }});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.map(drop)
    }
}

/// Whether a pod that is ready is said not to be.
fn is_unready(pod: &Pod) -> bool {
    let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref());
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    image != Some(BAD) && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "False")
}
