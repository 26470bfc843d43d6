//! What must hold once nobody interferes any more.

use std::collections::{BTreeMap, BTreeSet};

use client::controller_of;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use testkit::Cluster;

use super::agents::Agents;
use super::users::{DEPLOYMENTS, SETS, SPACE};

/// Everything that is there.
struct World {
    deployments: Vec<Deployment>,
    replica_sets: Vec<ReplicaSet>,
    sets: Vec<StatefulSet>,
    daemons: Vec<DaemonSet>,
    jobs: Vec<Job>,
    pods: Vec<Pod>,
}

async fn list<K>(cluster: &Cluster) -> Vec<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    cluster.api::<K>(SPACE).list(&ListParams::default()).await.expect("a list").items
}

/// All that is not yet as it should be.
pub(super) async fn wrong(cluster: &Cluster, agents: &Agents) -> Vec<String> {
    let world = World {
        deployments: list(cluster).await,
        replica_sets: list(cluster).await,
        sets: list(cluster).await,
        daemons: list(cluster).await,
        jobs: list(cluster).await,
        pods: list(cluster).await,
    };
    let mut wrong = Vec::new();
    deployments(&world, &mut wrong);
    sets(&world, &mut wrong);
    let nodes = cluster.all::<Node>().list(&ListParams::default()).await.expect("a list").items;
    daemons(&world, &nodes, &mut wrong);
    jobs(&world, agents, &mut wrong);
    owners(&world, &mut wrong);
    for name in DEPLOYMENTS.into_iter().chain(SETS) {
        endpoints(cluster, &world, name, &mut wrong).await;
    }
    counts(cluster, &world, &mut wrong).await;
    let spaces = Api::<Namespace>::all(cluster.client.clone());
    for space in spaces.list(&ListParams::default()).await.expect("a list").items {
        let name = name(&space.metadata);
        if name.starts_with('x') {
            wrong.push(format!("namespace {name} is still there: {:?}", space.status));
        }
    }
    wrong
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

fn image(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|s| s.containers.first());
    container.and_then(|c| c.image.as_deref()).unwrap_or_default()
}

impl World {
    fn pods_of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| controller_of(&pod.metadata).is_some_and(|o| o.uid == owner))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn deployments(world: &World, wrong: &mut Vec<String>) {
    for wanted in DEPLOYMENTS {
        if !world.deployments.iter().any(|d| name(&d.metadata) == wanted) {
            wrong.push(format!("deployment {wanted} is not there"));
        }
    }
    for deployment in &world.deployments {
        let what = format!("deployment {}", name(&deployment.metadata));
        let spec = deployment.spec.clone().unwrap_or_default();
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = spec.replicas.unwrap_or(1);
        let found =
            [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
                .map(|n| n.unwrap_or(0));
        if found != [wanted; 4] || status.observed_generation != deployment.metadata.generation {
            wrong.push(format!("{what} wants {wanted} and says {found:?}"));
        }
        let image_wanted = spec.template.spec.as_ref().and_then(|s| s.containers[0].image.clone());
        let own: Vec<_> = world
            .replica_sets
            .iter()
            .filter(|rs| controller_of(&rs.metadata).is_some_and(|o| o.uid == uid(&deployment.metadata)))
            .collect();
        let pods: Vec<&Pod> = own.iter().flat_map(|rs| world.pods_of(uid(&rs.metadata))).collect();
        let good =
            pods.iter().filter(|pod| Some(image(pod)) == image_wanted.as_deref() && is_ready(pod)).count();
        if pods.len() != wanted as usize || good != wanted as usize {
            wrong.push(format!("{what} wants {wanted} pods; {} are there, {good} as it wants", pods.len()));
        }
    }
}

fn sets(world: &World, wrong: &mut Vec<String>) {
    for wanted in SETS {
        if !world.sets.iter().any(|s| name(&s.metadata) == wanted) {
            wrong.push(format!("stateful set {wanted} is not there"));
        }
    }
    for set in &world.sets {
        let what = format!("stateful set {}", name(&set.metadata));
        let (spec, status) = (set.spec.clone().unwrap_or_default(), set.status.clone().unwrap_or_default());
        let wanted = spec.replicas.unwrap_or(1);
        let settled = status.current_revision == status.update_revision
            && status.observed_generation == set.metadata.generation;
        if [status.replicas, status.ready_replicas.unwrap_or(0)] != [wanted; 2] || !settled {
            wrong.push(format!("{what} wants {wanted} and says {status:?}"));
        }
        let image_wanted = spec.template.spec.as_ref().and_then(|s| s.containers[0].image.clone());
        let pods: Vec<&Pod> = world.pods_of(uid(&set.metadata)).collect();
        let names: BTreeSet<String> = pods.iter().map(|pod| name(&pod.metadata).to_owned()).collect();
        let right: BTreeSet<String> = (0..wanted).map(|i| format!("{}-{i}", name(&set.metadata))).collect();
        if names != right {
            wrong.push(format!("{what} has {names:?}"));
        }
        if pods.iter().any(|pod| Some(image(pod)) != image_wanted.as_deref()) {
            wrong.push(format!("{what} has pods of another template"));
        }
    }
}

fn daemons(world: &World, nodes: &[Node], wrong: &mut Vec<String>) {
    let Some(set) = world.daemons.first() else {
        wrong.push("the daemon set is not there".into());
        return;
    };
    let label = |node: &&Node| {
        node.metadata.labels.as_ref().is_some_and(|l| l.get("daemons").is_some_and(|v| v == "yes"))
    };
    let right: Vec<&str> = nodes.iter().filter(label).map(|node| name(&node.metadata)).collect();
    let mut found: Vec<&str> = world
        .pods_of(uid(&set.metadata))
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect();
    found.sort_unstable();
    if found != right || world.pods_of(uid(&set.metadata)).count() != right.len() {
        wrong.push(format!("daemons run on {found:?} instead of {right:?}"));
    }
    let status = set.status.clone().unwrap_or_default();
    let (wanted, updated) = (status.desired_number_scheduled, status.updated_number_scheduled.unwrap_or(0));
    if [wanted, updated, status.number_available.unwrap_or(0)] != [right.len() as i32; 3] {
        wrong.push(format!("the daemon set says {status:?}"));
    }
}

fn jobs(world: &World, agents: &Agents, wrong: &mut Vec<String>) {
    for job in &world.jobs {
        let what = format!("job {}", name(&job.metadata));
        let (spec, status) = (job.spec.clone().unwrap_or_default(), job.status.clone().unwrap_or_default());
        let wanted = spec.completions.unwrap_or(1);
        let complete =
            status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
        if !complete || status.succeeded != Some(wanted) || status.active.unwrap_or(0) != 0 {
            wrong.push(format!("{what} wants {wanted} and says {status:?}"));
        }
        if spec.completion_mode.as_deref() == Some("Indexed") {
            let all = match wanted {
                1 => "0".to_owned(),
                2 => "0,1".to_owned(),
                n => format!("0-{}", n - 1),
            };
            if status.completed_indexes.as_deref() != Some(all.as_str()) {
                wrong.push(format!("{what} has done {:?} instead of {all}", status.completed_indexes));
            }
        }
        // All was done; more may have been, for a creation whose answer is lost is tried again.
        let done = agents.succeeded(uid(&job.metadata));
        if complete && done < wanted as usize {
            wrong.push(format!("{what} wanted {wanted}, and only {done} of its pods succeeded"));
        }
        if world
            .pods_of(uid(&job.metadata))
            .any(|pod| pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()))
        {
            wrong.push(format!("{what} is over and holds pods"));
        }
    }
}

/// Whose owner is gone must go too.
fn owners(world: &World, wrong: &mut Vec<String>) {
    let metas = |world: &World| -> Vec<ObjectMeta> {
        let deployments = world.deployments.iter().map(|o| &o.metadata);
        let replica_sets = world.replica_sets.iter().map(|o| &o.metadata);
        let sets = world.sets.iter().map(|o| &o.metadata);
        let rest = world.daemons.iter().map(|o| &o.metadata).chain(world.jobs.iter().map(|o| &o.metadata));
        deployments.chain(replica_sets).chain(sets).chain(rest).cloned().collect()
    };
    let all = metas(world);
    let known: BTreeSet<&str> = all.iter().map(uid).collect();
    for meta in all.iter().chain(world.pods.iter().map(|pod| &pod.metadata)) {
        for owner in meta.owner_references.iter().flatten().filter(|o| !known.contains(o.uid.as_str())) {
            wrong.push(format!("{} belongs to {} {}, which is gone", name(meta), owner.kind, owner.name));
        }
        if meta.deletion_timestamp.is_some() {
            wrong.push(format!("{} is being deleted: {:?}", name(meta), meta.finalizers));
        }
    }
}

async fn endpoints(cluster: &Cluster, world: &World, service: &str, wrong: &mut Vec<String>) {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = cluster.api::<EndpointSlice>(SPACE).list(&of).await.expect("a list").items;
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let mut found: Vec<&str> = endpoints.flat_map(|e| e.addresses.iter().map(String::as_str)).collect();
    found.sort_unstable();
    let is_of =
        |pod: &&Pod| pod.metadata.labels.as_ref().is_some_and(|l| l.get("app").is_some_and(|v| v == service));
    let mut right: Vec<&str> =
        world.pods.iter().filter(is_of).filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref()).collect();
    right.sort_unstable();
    if found != right {
        wrong.push(format!("service {service} leads to {found:?} instead of {right:?}"));
    }
}

async fn counts(cluster: &Cluster, world: &World, wrong: &mut Vec<String>) {
    let unfinished = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods = world.pods.iter().filter(unfinished).count();
    let maps = list::<ConfigMap>(cluster).await.len();
    let right: BTreeMap<String, String> =
        [("pods".into(), pods.to_string()), ("count/configmaps".into(), maps.to_string())].into();
    let quota = cluster.api::<ResourceQuota>(SPACE).get("quota").await.expect("the quota");
    let used: BTreeMap<String, String> =
        quota.status.and_then(|s| s.used).unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    if used != right {
        wrong.push(format!("the quota counts {used:?} instead of {right:?}"));
    }
    let budget = cluster.api::<PodDisruptionBudget>(SPACE).get("d0").await.expect("the budget");
    let status = budget.status.unwrap_or_default();
    let healthy =
        world.pods.iter().filter(|pod| is_ready(pod)).filter(|pod| {
            pod.metadata.labels.as_ref().is_some_and(|l| l.get("app").is_some_and(|v| v == "d0"))
        });
    let healthy = healthy.count() as i32;
    if (status.current_healthy, status.disruptions_allowed) != (Some(healthy), Some((healthy - 1).max(0))) {
        wrong.push(format!("the budget says {status:?}, and {healthy} pods are well"));
    }
}
