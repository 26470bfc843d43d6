use client::k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};

use super::*;

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let account: client::k8s_openapi::api::core::v1::ServiceAccount =
        object(json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    run(&Config {
        informers: cluster.informers.clone(),
        clock: cluster.clock.clone(),
        drain: cluster.drain.clone(),
    });
    cluster
}

fn pod(name: &str, cpu: &str, more: Value) -> Pod {
    let mut spec =
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

async fn node_of(cluster: &Cluster, name: &str) -> String {
    let is_bound = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let pod = cluster.wait_until::<Pod>("default", name, "to be bound", is_bound).await;
    pod.spec.unwrap().node_name.unwrap()
}

fn scheduled(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
    Some((condition.status.clone(), condition.message.clone().unwrap_or_default()))
}

#[tokio::test]
async fn a_pod_waits_for_what_can_help_it() {
    let cluster = cluster().await;
    cluster.create("default", &pod("early", "1", json!({}))).await;
    let nothing = |p: &Pod| scheduled(p).is_some_and(|(_, why)| why == "no nodes available to schedule pods");
    cluster.wait_until("default", "early", "to be told why", nothing).await;
    cluster.create_node(&node("n1", 2, 4, 10)).await;
    assert_eq!(node_of(&cluster, "early").await, "n1");

    cluster.create("default", &pod("late", "2", json!({}))).await;
    let full =
        |p: &Pod| scheduled(p).is_some_and(|(is, why)| is == "False" && why.contains("1 Insufficient cpu"));
    cluster.wait_until("default", "late", "to be told why", full).await;
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("both sorts of events", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let said = |reason: &str, name: &str| {
                all.iter().any(|e| {
                    e.reason.as_deref() == Some(reason) && e.involved_object.name.as_deref() == Some(name)
                })
            };
            (said("Scheduled", "early") && said("FailedScheduling", "late")).then_some(())
        })
        .await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    cluster.api::<Pod>("default").delete("early", &now).await.unwrap();
    assert_eq!(node_of(&cluster, "late").await, "n1");
    let bound = cluster.api::<Pod>("default").get("late").await.unwrap();
    assert_eq!(scheduled(&bound).unwrap().0, "True");
}

#[tokio::test]
async fn gates_other_schedulers_and_cordons() {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 9, 9, 10)).await;
    cluster.create("default", &pod("gated", "1", json!({"schedulingGates": [{"name": "x.io/wait"}]}))).await;
    cluster.create("default", &pod("other", "1", json!({"schedulerName": "mine"}))).await;
    cluster.create("default", &pod("plain", "1", json!({}))).await;
    assert_eq!(node_of(&cluster, "plain").await, "n1");
    let pods = cluster.api::<Pod>("default");
    for name in ["gated", "other"] {
        assert_eq!(pods.get(name).await.unwrap().spec.unwrap().node_name, None);
    }
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    pods.patch("gated", &PatchParams::default(), &open).await.unwrap();
    assert_eq!(node_of(&cluster, "gated").await, "n1");

    let cordon = |on: bool| Patch::Merge(json!({"spec": {"unschedulable": on}}));
    cluster.all::<Node>().patch("n1", &PatchParams::default(), &cordon(true)).await.unwrap();
    let informer = cluster.informers.of::<Node>();
    cluster
        .wait_for("the cordon to be seen", || async {
            let node = informer.store().by_name("", "n1")?;
            node.spec.as_ref()?.unschedulable.filter(|on| *on).map(drop)
        })
        .await;
    cluster.create("default", &pod("barred", "1", json!({}))).await;
    let barred = |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains("were unschedulable"));
    cluster.wait_until("default", "barred", "to be told why", barred).await;
    cluster.all::<Node>().patch("n1", &PatchParams::default(), &cordon(false)).await.unwrap();
    assert_eq!(node_of(&cluster, "barred").await, "n1");
}

#[tokio::test]
async fn many_pods_fill_the_nodes_and_no_more() {
    let cluster = cluster().await;
    for n in 0..4 {
        cluster.create_node(&node(&format!("n{n}"), 4, 9, 100)).await;
    }
    for n in 0..20 {
        cluster.create("default", &pod(&format!("p{n}"), "1", json!({}))).await;
    }
    let pods = cluster.api::<Pod>("default");
    cluster
        .wait_for("16 bound and 4 told why", || async {
            let all = pods.list(&ListParams::default()).await.unwrap().items;
            let bound = all.iter().filter(|p| p.spec.as_ref().unwrap().node_name.is_some()).count();
            let told = all.iter().filter(|p| scheduled(p).is_some_and(|(is, _)| is == "False")).count();
            (bound == 16 && told == 4).then_some(())
        })
        .await;
}
