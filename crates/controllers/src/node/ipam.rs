//! Which addresses the pods of a node get (kubernetes/kubernetes, `pkg/controller/nodeipam/ipam/range_allocator.go`).

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, EventKind, Informer, Key, Next, Recorder};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};

/// When somebody for whom nothing was left is looked at again, even if nobody has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pods' addresses in the whole cluster, and how large a node's part of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    /// `--cluster-cidr`.
    pub cluster: Ipv4Net,
    /// `--node-cidr-mask-size`.
    pub mask: u8,
}

struct State {
    ctx: Context,
    range: PodRange,
    nodes: Informer<Node>,
    /// What was given to whom and may not be seen yet.
    given: Mutex<HashMap<String, Ipv4Net>>,
    /// The nodes that have theirs.
    known: Mutex<HashSet<String>>,
    recorder: Recorder,
}

impl State {
    /// Tells people of a node (`RecordNodeStatusChange`).
    fn say(&self, node: &Node, name: &str, what: &str) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            api_version: Some("v1".into()),
            name: Some(name.to_owned()),
            uid: node.metadata.uid.clone(),
            ..Default::default()
        };
        let message = format!("Node {name} status is now: {what}");
        self.recorder.say(about, EventKind::Normal, what, message);
    }

    /// How many parts are used.
    fn used(&self) -> usize {
        self.known.lock().len()
    }
}

impl PodRange {
    /// How many parts there are.
    fn most(self) -> u64 {
        1 << self.mask.saturating_sub(self.cluster.prefix_len()).min(32)
    }
}

pub(crate) fn start(ctx: &Context, range: PodRange) {
    let nodes = ctx.informers.of::<Node>();
    let all = nodes.clone();
    // One at a time: each has to see what the others got.
    let controller = Controller::new("node-ipam").workers(1).watches_changes(&nodes, move |change, queue| {
        if matches!(change, Change::Deleted(_)) {
            // Somebody may have waited for what it had.
            let without = all.store().list().into_iter().filter(|node| ranges(node).next().is_none());
            without.for_each(|node| queue.add(Key::of(&*node)));
        }
        queue.add(Key::of(&**change.object()));
    });
    let recorder = ctx.recorder("cidrAllocator");
    let state =
        State { ctx: ctx.clone(), range, nodes, given: Mutex::default(), known: Mutex::default(), recorder };
    ctx.spawn(controller, Arc::new(state), look);
}

/// What a node has.
fn ranges(node: &Node) -> impl Iterator<Item = &String> {
    let spec = node.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr))
}

/// The first part of the range that touches nothing that is taken.
fn free(range: PodRange, taken: &HashSet<Ipv4Net>) -> Option<Ipv4Net> {
    let PodRange { cluster, mask } = range;
    let size = 1_u64 << (32 - u64::from(mask.clamp(cluster.prefix_len(), 32)));
    let (first, last) = (u64::from(u32::from(cluster.network())), u64::from(u32::from(cluster.broadcast())));
    let mut at = first;
    // Most parts are as large as the wish, so that each is asked for once.
    while at + size - 1 <= last {
        let part =
            Ipv4Net::new(Ipv4Addr::from(u32::try_from(at).ok()?), mask.clamp(cluster.prefix_len(), 32))
                .ok()?;
        if taken.contains(&part) {
            at += size;
            continue;
        }
        let Some(other) = taken.iter().find(|t| t.contains(&part) || part.contains(*t)) else {
            return Some(part);
        };
        at = at.max(u64::from(u32::from(other.broadcast()))) / size * size + size;
    }
    None
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let name = key.name();
    let Some(node) = state.nodes.get(&key) else {
        state.given.lock().remove(name);
        if state.known.lock().remove(name) {
            crate::metrics::range_released(
                &state.range.cluster.to_string(),
                state.used(),
                state.range.most(),
            );
        }
        return Ok(Next::Done);
    };
    if ranges(&node).next().is_some() {
        state.given.lock().remove(name);
        state.known.lock().insert(name.to_owned());
        return Ok(Next::Done);
    }
    let part = {
        let mut given = state.given.lock();
        match given.get(name) {
            Some(part) => Some(*part),
            None => {
                let nodes = state.nodes.store().list();
                let mut taken: HashSet<Ipv4Net> = given.values().copied().collect();
                taken.extend(
                    nodes
                        .iter()
                        .flat_map(|node| ranges(node))
                        .filter_map(|text| text.parse::<Ipv4Net>().ok()),
                );
                let part = free(state.range, &taken);
                if let Some(part) = part {
                    given.insert(name.to_owned(), part);
                }
                part
            }
        }
    };
    let Some(part) = part else {
        state.say(&node, name, "CIDRNotAvailable");
        return Ok(Next::After(PATIENCE));
    };
    // Only to this very node, and only if nobody gave it anything: what a node has once cannot be changed.
    let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
        "spec": {"podCIDR": part.to_string(), "podCIDRs": [part.to_string()]}});
    let api: Api<Node> = Api::all(state.ctx.client());
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if client::is_not_found(&error) => Ok(Next::Done),
        // The change that came between wakes us.
        Err(error) if client::is_conflict(&error) => Ok(Next::Done),
        outcome => {
            if outcome.is_err() {
                state.say(&node, name, "CIDRAssignmentFailed");
            }
            outcome.attempt(|| format!("give node {name} its pods' addresses {part}"))?;
            state.known.lock().insert(name.to_owned());
            crate::metrics::range_given(&state.range.cluster.to_string(), state.used(), state.range.most());
            Ok(Next::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;
    use base::ManualClock;
    use client::k8s_openapi::api::core::v1::Event;
    use kube::api::DeleteParams;
    use proptest::prelude::*;
    use testkit::{Cluster, node};

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn parts_do_not_touch() {
        let range = |cluster, mask| PodRange { cluster: net(cluster), mask };
        let with = |taken: &[&str]| taken.iter().map(|text| net(text)).collect::<HashSet<_>>();
        assert_eq!(free(range("10.42.0.0/16", 24), &with(&[])), Some(net("10.42.0.0/24")));
        assert_eq!(free(range("10.42.0.0/16", 24), &with(&["10.42.0.0/24"])), Some(net("10.42.1.0/24")));
        assert_eq!(free(range("10.42.0.0/16", 24), &with(&["10.42.0.0/22"])), Some(net("10.42.4.0/24")));
        assert_eq!(free(range("10.42.0.0/16", 24), &with(&["10.42.0.128/25"])), Some(net("10.42.1.0/24")));
        assert_eq!(free(range("10.42.0.0/16", 17), &with(&["10.42.3.0/24"])), Some(net("10.42.128.0/17")));
        assert_eq!(free(range("10.42.0.0/25", 24), &with(&[])), Some(net("10.42.0.0/25")));
        assert_eq!(free(range("10.42.0.0/25", 24), &with(&["10.42.0.0/25"])), None);
        assert_eq!(
            free(range("255.255.255.0/24", 26), &with(&["255.255.255.0/25", "255.255.255.192/26"])),
            Some(net("255.255.255.128/26"))
        );
        assert_eq!(free(range("10.42.0.0/16", 24), &with(&["0.0.0.0/0"])), None);
    }

    proptest! {
        #[test]
        fn nobody_gets_what_another_has(masks in prop::collection::vec(20_u8..28, 1..40)) {
            let (cluster, mut taken) = (net("10.0.0.0/18"), HashSet::new());
            for mask in masks {
                if let Some(part) = free(PodRange { cluster, mask }, &taken) {
                    prop_assert!(cluster.contains(&part) && part.prefix_len() == mask);
                    prop_assert!(!taken.iter().any(|t: &Ipv4Net| t.contains(&part) || part.contains(t)));
                    taken.insert(part);
                }
            }
        }
    }

    #[tokio::test]
    async fn nodes_get_their_parts_and_wait_when_none_is_left() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let cluster = Cluster::start_at(Arc::new(clock)).await;
        let range = PodRange { cluster: net("10.42.0.0/23"), mask: 24 };
        let mut own = node("own", 4, 4, 10);
        own.spec.get_or_insert_default().pod_cidr = Some("10.42.0.0/24".into());
        own.spec.as_mut().unwrap().pod_cidrs = Some(vec!["10.42.0.0/24".into()]);
        cluster.create_global(&own).await;
        start(&Context::new(&config(&cluster)).acting_as("node-controller"), range);
        let of = async |name: &str| -> Option<String> {
            let api = cluster.all::<Node>();
            cluster
                .wait_for("the addresses", || async {
                    let node = api.get(name).await.unwrap();
                    ranges(&node).next().cloned()
                })
                .await
                .into()
        };
        cluster.create_global(&node("a", 4, 4, 10)).await;
        assert_eq!(of("a").await.as_deref(), Some("10.42.1.0/24"));
        cluster.create_global(&node("b", 4, 4, 10)).await;
        let events = cluster.api::<Event>("default");
        let said = cluster
            .wait_for("the event", || async {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter().find(|e| e.reason.as_deref() == Some("CIDRNotAvailable"))?.message
            })
            .await;
        assert_eq!(said, "Node b status is now: CIDRNotAvailable");
        cluster.all::<Node>().delete("a", &DeleteParams::default()).await.unwrap();
        assert_eq!(of("b").await.as_deref(), Some("10.42.1.0/24"));
    }

    #[tokio::test]
    async fn people_are_told_when_a_part_cannot_be_given() {
        let cluster = Cluster::start().await;
        let range = PodRange { cluster: net("10.42.0.0/16"), mask: 24 };
        // Somebody who may tell of events and not write nodes.
        start(&Context::new(&config(&cluster)).acting_as("disruption-controller"), range);
        cluster.create_global(&node("n", 4, 4, 10)).await;
        let events = cluster.api::<Event>("default");
        let said = cluster
            .wait_for("the event", || async {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter().find(|e| e.reason.as_deref() == Some("CIDRAssignmentFailed"))?.message
            })
            .await;
        assert_eq!(said, "Node n status is now: CIDRAssignmentFailed");
    }
}
