use client::k8s_openapi::api::core::v1::Event;
use client::{controller_of, is_controlled_by};
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use testkit::{Cluster, Outcome, run_kubelet};

use super::*;
use crate::testing::{cluster, config, first_fails};

fn set(name: &str, replicas: i32, more: Value) -> StatefulSet {
    let mut spec = json!({"replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "app:v1"}]}}});
    types::patch::merge_patch(&mut spec, more);
    testkit::object(json!({"metadata": {"name": name}, "spec": spec}))
}

fn claims(policy: Value) -> Value {
    json!({"persistentVolumeClaimRetentionPolicy": policy, "volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]})
}

fn ready(set: &StatefulSet) -> (i32, i32) {
    let status = set.status.clone().unwrap_or_default();
    (status.replicas, status.available_replicas.unwrap_or(0))
}

async fn wait(cluster: &Cluster, name: &str, what: &str, wish: impl Fn(&StatefulSet) -> bool) -> StatefulSet {
    cluster.wait_until::<StatefulSet>("default", name, what, wish).await
}

async fn patch(cluster: &Cluster, name: &str, spec: Value) {
    let patch = Patch::Strategic(json!({"spec": spec}));
    cluster.api::<StatefulSet>("default").patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    let mut pods = cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items;
    pods.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
    pods
}

async fn wait_for_event(cluster: &Cluster, reason: &str, message: &str) {
    let events = cluster.api::<Event>("default");
    let what = format!("{reason}: {message}");
    cluster
        .wait_for(&what, || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let is = |e: &Event| {
                e.reason.as_deref() == Some(reason)
                    && e.message.as_deref().unwrap_or_default().contains(message)
            };
            all.iter().any(is).then_some(())
        })
        .await;
}

fn image(image: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "main", "image": image}]}}})
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

#[tokio::test]
async fn pods_come_in_order_with_an_identity_and_go_in_reverse() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &set("web", 3, json!({}))).await;
    let made = wait(&cluster, "web", "3 available", |s| ready(s) == (3, 3)).await;
    let pod = cluster.api::<Pod>("default").get("web-2").await.unwrap();
    let labels = pod.metadata.labels.clone().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-2");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "2");
    let status = made.status.unwrap();
    assert_eq!(Some(&labels["controller-revision-hash"]), status.current_revision.as_ref());
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(3), Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("svc")));
    assert!(is_controlled_by(&pod.metadata, made.metadata.uid.as_deref().unwrap()));
    wait_for_event(&cluster, "SuccessfulCreate", "create Pod web-0 in StatefulSet web successful").await;

    patch(&cluster, "web", json!({"replicas": 1})).await;
    wait(&cluster, "web", "1 left", |s| ready(s) == (1, 1)).await;
    assert_eq!(pods(&cluster).await[0].metadata.name.as_deref(), Some("web-0"));
    wait_for_event(&cluster, "SuccessfulDelete", "delete Pod web-2 in StatefulSet web successful").await;
}

#[tokio::test]
async fn one_that_is_not_ready_holds_up_those_after_it_unless_in_parallel() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| {
        if pod.metadata.name.as_deref().is_some_and(|n| n.ends_with("-1")) {
            Outcome::Unready
        } else {
            Outcome::Running
        }
    });
    cluster.create("default", &set("slow", 3, json!({}))).await;
    cluster.create("default", &set("fast", 3, json!({"podManagementPolicy": "Parallel"}))).await;
    wait(&cluster, "fast", "2 of 3 available", |s| ready(s) == (3, 2)).await;
    wait(&cluster, "slow", "1 of 2 available", |s| ready(s) == (2, 1)).await;
    assert!(cluster.api::<Pod>("default").get_opt("slow-2").await.unwrap().is_none());
}

#[tokio::test]
async fn updates_roll_down_to_the_partition_and_back() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let strategy = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    cluster.create("default", &set("web", 3, strategy)).await;
    wait(&cluster, "web", "3 available", |s| ready(s) == (3, 3)).await;
    patch(&cluster, "web", image("app:v2")).await;
    let part = wait(&cluster, "web", "1 new", |s| {
        let status = s.status.clone().unwrap_or_default();
        ready(s) == (3, 3) && status.updated_replicas == Some(1) && status.current_replicas == Some(2)
    })
    .await;
    let status = part.status.unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    // One below the partition comes back as it was.
    let api = cluster.api::<Pod>("default");
    let former = api.get("web-0").await.unwrap().metadata.uid;
    api.delete("web-0", &DeleteParams::default()).await.unwrap();
    let again = cluster.wait_until::<Pod>("default", "web-0", "another", |p| p.metadata.uid != former).await;
    assert_eq!(image_of(&again), "app:v1");

    patch(&cluster, "web", json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}})).await;
    let whole = wait(&cluster, "web", "all new", |s| {
        let status = s.status.clone().unwrap_or_default();
        ready(s) == (3, 3) && status.current_revision == status.update_revision
    })
    .await;
    assert_eq!(whole.status.as_ref().unwrap().updated_replicas, Some(3));
    assert!(pods(&cluster).await.iter().all(|p| image_of(p) == "app:v2"));

    // The first template again is the first revision under a new number.
    patch(&cluster, "web", image("app:v1")).await;
    wait(&cluster, "web", "all as at first", |s| {
        let status = s.status.clone().unwrap_or_default();
        ready(s) == (3, 3)
            && status.current_revision == status.update_revision
            && status.current_revision != whole.status.as_ref().unwrap().current_revision
    })
    .await;
    let revisions =
        cluster.api::<ControllerRevision>("default").list(&ListParams::default()).await.unwrap().items;
    let mut numbers: Vec<i64> = revisions.iter().map(|r| r.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test]
async fn failed_pods_are_replaced() {
    let cluster = cluster().await;
    run_kubelet(&cluster, first_fails());
    cluster.create("default", &set("web", 1, json!({}))).await;
    wait(&cluster, "web", "1 available", |s| ready(s) == (1, 1)).await;
    let message = "delete Pod web-0 in StatefulSet web successful";
    wait_for_event(&cluster, "SuccessfulDelete", message).await;
    // Events come in the order in which they are said, and nobody says that it is made anew.
    let events = cluster.api::<Event>("default").list(&ListParams::default()).await.unwrap().items;
    let anew = |e: &Event| e.reason.as_deref().is_some_and(|reason| reason.starts_with("Recreating"));
    assert!(!events.iter().any(anew));
}

#[tokio::test]
async fn claims_come_first_and_go_as_told() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let kept = claims(json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    let dropped = claims(json!({"whenDeleted": "Delete", "whenScaled": "Delete"}));
    cluster.create("default", &set("kept", 2, kept)).await;
    cluster.create("default", &set("dropped", 2, dropped)).await;
    for name in ["kept", "dropped"] {
        wait(&cluster, name, "2 available", |s| ready(s) == (2, 2)).await;
    }
    let api = cluster.api::<PersistentVolumeClaim>("default");
    let claim = api.get("data-kept-1").await.unwrap();
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["app"], "kept");
    assert!(claim.metadata.owner_references.is_none());
    let owner = |c: &PersistentVolumeClaim| controller_of(&c.metadata).map(|o| o.kind.clone());
    assert_eq!(owner(&api.get("data-dropped-1").await.unwrap()).as_deref(), Some("StatefulSet"));
    wait_for_event(
        &cluster,
        "SuccessfulCreate",
        "create Claim data-kept-1 Pod kept-1 in StatefulSet kept success",
    )
    .await;
    for name in ["kept", "dropped"] {
        patch(&cluster, name, json!({"replicas": 1})).await;
        wait(&cluster, name, "1 left", |s| ready(s) == (1, 1)).await;
    }
    let claim = cluster.wait_until::<PersistentVolumeClaim>(
        "default",
        "data-dropped-1",
        "to belong to its pod",
        |c| owner(c).as_deref() == Some("Pod"),
    );
    // It goes with the pod: whoever looks may see it for the last time, or no more.
    let gone = cluster.wait_for("the claim to go", || async {
        let claim = api.get_opt("data-dropped-1").await.unwrap();
        claim.is_none_or(|c| c.metadata.deletion_timestamp.is_some()).then_some(())
    });
    tokio::select! { _ = claim => {}, () = gone => {} }
    assert!(api.get("data-kept-1").await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn adopts_its_own_and_lets_others_be() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::pod("web-0", "web")).await;
    cluster.create("default", &testkit::pod("stray", "web")).await;
    let made = cluster.create("default", &set("web", 2, json!({}))).await;
    wait(&cluster, "web", "2 available", |s| ready(s) == (2, 2)).await;
    let uid = made.metadata.uid.unwrap();
    cluster
        .wait_until::<Pod>("default", "web-0", "to be labelled", |p| {
            let labels = p.metadata.labels.clone().unwrap_or_default();
            is_controlled_by(&p.metadata, &uid) && labels.contains_key("statefulset.kubernetes.io/pod-name")
        })
        .await;
    let stray = cluster.api::<Pod>("default").get("stray").await.unwrap();
    assert!(controller_of(&stray.metadata).is_none());
}

/// The controllers do not run; the test looks, with a cache of pods that has stood still since before there were any.
#[tokio::test]
async fn a_cache_that_stands_still_makes_no_pod_twice() {
    let cluster = Cluster::start().await;
    let ctx = Context::new(&config(&cluster));
    crate::service_account::start(&ctx);
    cluster
        .wait_until::<k8s_openapi::api::core::v1::ServiceAccount>("default", "default", "to be made", |_| {
            true
        })
        .await;
    let state = Arc::new(State::new(&ctx));
    let stale = ctx.informers.of::<PodView>();
    stale.ready().await;
    ctx.informers.of::<ControllerRevision>().ready().await;
    ctx.informers.of::<PersistentVolumeClaim>().ready().await;
    stale.stop();
    cluster.create("default", &set("web", 3, json!({"podManagementPolicy": "Parallel"}))).await;
    let key = Key::new("default", "web");
    cluster.wait_for("the set in the cache", || async { state.sets.get(&key) }).await;

    look(state.clone(), key.clone()).await.unwrap();
    let made = pods(&cluster).await;
    assert_eq!(made.len(), 3);
    // Nothing is done before the cache shows what was done.
    cluster.wait_for("a look that waits", || async { look(state.clone(), key.clone()).await.ok() }).await;
    // Nor does one that has forgotten all of that, as after a crash, make a second pod of a name.
    state.control.expectations.forget(&key);
    look(state.clone(), key.clone()).await.unwrap_err();
    let uids = |pods: &[Pod]| -> std::collections::BTreeSet<_> {
        pods.iter().map(|p| p.metadata.uid.clone()).collect()
    };
    assert_eq!(uids(&pods(&cluster).await), uids(&made));

    // One that is taken for another of its name stays.
    let former = PodView { metadata: made[0].metadata.clone(), ..PodView::default() };
    let former = PodView {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            uid: Some("former".into()),
            ..former.metadata
        },
        ..former
    };
    let set = state.sets.get(&key).unwrap();
    state.delete(&key, &set, &former).await.unwrap();
    assert_eq!(uids(&pods(&cluster).await), uids(&made));
}
