use client::k8s_openapi::api::core::v1::{Node, Pod};
use client::k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use testkit::{Cluster, node, object};

use crate::run::tests::{cluster_with, pod, scheduled};

async fn cluster(nodes: u32) -> Cluster {
    let cluster = cluster_with("scheduling.k8s.io/v1alpha2=true", |config| config.gangs = true).await;
    for n in 0..nodes {
        cluster.create_node(&node(&format!("n{n}"), 2, 8, 10)).await;
    }
    cluster
}

async fn group(cluster: &Cluster, name: &str, policy: serde_json::Value) {
    let group: PodGroup = object(json!({"metadata": {"name": name}, "spec": {"schedulingPolicy": policy}}));
    cluster.create("default", &group).await;
}

fn gang(least: i32) -> serde_json::Value {
    json!({"gang": {"minCount": least}})
}

async fn member(cluster: &Cluster, name: &str, cpu: &str, of: &str) {
    cluster.create("default", &pod(name, cpu, json!({"schedulingGroup": {"podGroupName": of}}))).await;
}

/// The pods whose names begin so, and that have a node.
async fn bound(cluster: &Cluster, prefix: &str) -> usize {
    let all = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    let mine = all.iter().filter(|p| p.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix)));
    mine.filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some())).count()
}

async fn all_bound(cluster: &Cluster, prefix: &str, count: usize) {
    cluster
        .wait_for("the gang to have its nodes", || async {
            (bound(cluster, prefix).await == count).then_some(())
        })
        .await;
}

/// How it is with a group, once the scheduler has said something.
async fn told(cluster: &Cluster, name: &str, status: &'static str) -> String {
    let said = |g: &PodGroup| {
        let conditions = g.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "PodGroupScheduled" && c.status == status))
    };
    let group = cluster.wait_until::<PodGroup>("default", name, "to be told of", said).await;
    let conditions = group.status.and_then(|s| s.conditions).unwrap_or_default();
    conditions.into_iter().map(|c| format!("{}: {}", c.reason, c.message)).collect()
}

#[tokio::test]
async fn a_gang_waits_for_its_pods_and_then_for_its_room() {
    let cluster = cluster(2).await;
    member(&cluster, "a1", "2", "a").await;
    member(&cluster, "a2", "2", "a").await;
    group(&cluster, "a", gang(3)).await;
    // Whatever else is placed meanwhile is placed later than the two would have been.
    cluster.create("default", &pod("other", "100m", json!({}))).await;
    all_bound(&cluster, "other", 1).await;
    assert_eq!(bound(&cluster, "a").await, 0, "there are only two of three");

    member(&cluster, "a3", "2", "a").await;
    let why = told(&cluster, "a", "False").await;
    assert_eq!(why, "Unschedulable: 3 pods of the group must be placed at once, and only 1 can be");
    let full =
        |p: &Pod| scheduled(p).is_some_and(|(is, why)| is == "False" && why.contains("Insufficient cpu"));
    cluster.wait_until("default", "a3", "to be told why", full).await;
    let with_them = |p: &Pod| {
        scheduled(p).is_some_and(|(_, why)| {
            why == "pod group \"a\" is unschedulable: 3 of its pods must be placed at once, and only 1 can be"
        })
    };
    cluster.wait_until("default", "a1", "to be told that the others find no room", with_them).await;
    assert_eq!(bound(&cluster, "a").await, 0, "all or none");

    for n in 2..4 {
        cluster.create_node(&node(&format!("n{n}"), 2, 8, 10)).await;
    }
    all_bound(&cluster, "a", 3).await;
    assert_eq!(told(&cluster, "a", "True").await, "Scheduled: ");
}

/// There is room for one gang and a part of the other: were they placed pod by pod, both might have some and none enough.
#[tokio::test]
async fn two_gangs_do_not_wait_for_each_other() {
    let cluster = cluster(4).await;
    for name in ["a", "b"] {
        group(&cluster, name, gang(3)).await;
    }
    for n in 0..3 {
        for name in ["a", "b"] {
            member(&cluster, &format!("{name}{n}"), "1500m", name).await;
        }
    }
    let first = cluster
        .wait_for("one of the gangs to have its nodes", || async {
            let (a, b) = (bound(&cluster, "a").await, bound(&cluster, "b").await);
            match (a, b) {
                (3, _) => Some("a"),
                (_, 3) => Some("b"),
                _ => None,
            }
        })
        .await;
    let second = if first == "a" { "b" } else { "a" };
    told(&cluster, second, "False").await;
    assert_eq!(bound(&cluster, second).await, 0, "the other has none at all");
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    for n in 0..3 {
        cluster.api::<Pod>("default").delete(&format!("{first}{n}"), &now).await.unwrap();
    }
    all_bound(&cluster, second, 3).await;
}

#[tokio::test]
async fn more_than_the_least_are_placed_as_far_as_there_is_room() {
    let cluster = cluster(2).await;
    group(&cluster, "a", gang(2)).await;
    group(&cluster, "loose", json!({"basic": {}})).await;
    for n in 0..3 {
        member(&cluster, &format!("a{n}"), "2", "a").await;
    }
    all_bound(&cluster, "a", 2).await;
    cluster.create_node(&node("n2", 2, 8, 10)).await;
    all_bound(&cluster, "a", 3).await;
    // Those of a group that is no gang are placed one by one.
    for n in 0..2 {
        member(&cluster, &format!("loose{n}"), "2", "loose").await;
    }
    cluster.create_node(&node("n3", 2, 8, 10)).await;
    all_bound(&cluster, "loose", 1).await;
}

#[tokio::test]
async fn without_the_gate_groups_mean_nothing() {
    let cluster = cluster_with("", |_| {}).await;
    cluster.create_node(&node("n0", 2, 8, 10)).await;
    cluster.create("default", &pod("a1", "1", json!({"schedulingGroup": {"podGroupName": "a"}}))).await;
    all_bound(&cluster, "a", 1).await;
}

#[tokio::test]
async fn a_cordon_that_goes_lets_the_whole_gang_in() {
    let cluster = cluster(2).await;
    let cordon = |on: bool| Patch::Merge(json!({"spec": {"unschedulable": on}}));
    cluster.all::<Node>().patch("n1", &PatchParams::default(), &cordon(true)).await.unwrap();
    group(&cluster, "a", gang(2)).await;
    for n in 0..2 {
        member(&cluster, &format!("a{n}"), "2", "a").await;
    }
    // The cordon may be seen later than the pods: then they are bound at once, and there is nothing to be told.
    cluster
        .wait_for("a word on the gang", || async {
            let group = cluster.api::<PodGroup>("default").get("a").await.unwrap();
            group.status.and_then(|s| s.conditions).filter(|all| !all.is_empty()).map(drop)
        })
        .await;
    cluster.all::<Node>().patch("n1", &PatchParams::default(), &cordon(false)).await.unwrap();
    all_bound(&cluster, "a", 2).await;
}

/// Nodes with two cores each, in these racks.
async fn racks(racks: &[&str]) -> Cluster {
    let cluster = cluster(0).await;
    for (n, rack) in racks.iter().enumerate() {
        let mut node = node(&format!("n{n}"), 2, 8, 10);
        node.metadata.labels.get_or_insert_default().insert("rack".into(), (*rack).to_owned());
        cluster.create_node(&node).await;
    }
    cluster
}

async fn in_one_rack(cluster: &Cluster, name: &str, policy: serde_json::Value) {
    let group: PodGroup = object(json!({"metadata": {"name": name}, "spec": {"schedulingPolicy": policy,
        "schedulingConstraints": {"topology": [{"key": "rack"}]}}}));
    cluster.create("default", &group).await;
}

/// The racks of the pods whose names begin so.
async fn racks_of(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    let mine = pods.into_iter().filter(|p| p.metadata.name.as_deref().is_some_and(|n| n.starts_with(prefix)));
    let nodes = cluster.all::<Node>().list(&ListParams::default()).await.unwrap().items;
    mine.filter_map(|pod| {
        let node = pod.spec?.node_name?;
        nodes
            .iter()
            .find(|n| n.metadata.name.as_ref() == Some(&node))?
            .metadata
            .labels
            .as_ref()?
            .get("rack")
            .cloned()
    })
    .collect()
}

#[tokio::test]
async fn a_gang_is_in_one_domain_where_it_fits() {
    // Alone, two pods would go to the emptiest nodes, whatever their rack.
    let cluster = racks(&["a", "b", "b", "c"]).await;
    in_one_rack(&cluster, "g", gang(2)).await;
    member(&cluster, "g1", "2", "g").await;
    member(&cluster, "g2", "2", "g").await;
    all_bound(&cluster, "g", 2).await;
    assert_eq!(racks_of(&cluster, "g").await, ["b", "b"]);

    // No rack has room for two more, though the cluster has.
    in_one_rack(&cluster, "h", gang(2)).await;
    member(&cluster, "h1", "2", "h").await;
    member(&cluster, "h2", "2", "h").await;
    let why = told(&cluster, "h", "False").await;
    assert_eq!(why, "Unschedulable: 2 pods of the group must be placed at once, and only 1 can be");
    assert_eq!(bound(&cluster, "h").await, 0);
    let mut more = node("n4", 2, 8, 10);
    more.metadata.labels.get_or_insert_default().insert("rack".into(), "c".into());
    cluster.create_node(&more).await;
    all_bound(&cluster, "h", 2).await;
    assert_eq!(racks_of(&cluster, "h").await, ["c", "c"]);
}

#[tokio::test]
async fn who_comes_later_goes_where_the_others_are() {
    let cluster = racks(&["a", "b", "b"]).await;
    in_one_rack(&cluster, "g", json!({"basic": {}})).await;
    cluster.create("default", &pod("filler", "2", json!({"nodeSelector": {"rack": "a"}}))).await;
    all_bound(&cluster, "filler", 1).await;
    member(&cluster, "g1", "1500m", "g").await;
    all_bound(&cluster, "g", 1).await;
    cluster.api::<Pod>("default").delete("filler", &DeleteParams::default().grace_period(0)).await.unwrap();
    member(&cluster, "g2", "1500m", "g").await;
    all_bound(&cluster, "g", 2).await;
    assert_eq!(racks_of(&cluster, "g").await, ["b", "b"]);
    // There is room in the other rack, but not in theirs.
    member(&cluster, "g3", "1500m", "g").await;
    let stuck = |p: &Pod| scheduled(p).is_some_and(|(status, _)| status == "False");
    cluster.wait_until::<Pod>("default", "g3", "to be refused", stuck).await;
    assert_eq!(bound(&cluster, "g").await, 2);
}
