use std::sync::Arc;

use client::PodView;
use client::k8s_openapi::api::core::v1::{Endpoints, Pod, Service, ServiceAccount};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, object, run_kubelet};

use super::addresses::backends;
use super::legacy;
use super::slices::plan;
use crate::testing::cluster;

fn service(spec: Value) -> Service {
    object(json!({"metadata": {"name": "web", "namespace": "default", "uid": "s"}, "spec": spec}))
}

fn pod(n: usize, ready: bool, port: Option<&str>) -> Arc<PodView> {
    let ports = port.map(|name| json!([{"name": name, "containerPort": 8000 + n}]));
    Arc::new(object(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "default", "uid": format!("u{n}")},
        "spec": {"nodeName": "n1", "hostname": format!("p{n}"), "subdomain": "web",
            "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })))
}

fn sizes(slices: &[EndpointSlice]) -> Vec<usize> {
    slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn slices_hold_a_hundred_and_change_as_little_as_possible() {
    let service = service(json!({"ports": [{"port": 80, "targetPort": 8080}], "selector": {"a": "b"}}));
    let none = |_: &str| None;
    let mut pods: Vec<Arc<PodView>> = (0..250).map(|n| pod(n, true, None)).collect();
    let first = plan(&service, &backends(&service, &pods, none), &[], 100);
    assert_eq!(sizes(&first.create), [100, 100, 50]);
    let existing: Vec<Arc<EndpointSlice>> = first
        .create
        .into_iter()
        .enumerate()
        .map(|(n, mut slice)| {
            slice.metadata.name = Some(format!("web-{n}"));
            Arc::new(slice)
        })
        .collect();
    let same = plan(&service, &backends(&service, &pods, none), &existing, 100);
    assert_eq!(same, super::slices::Plan::default());

    pods[0] = pod(0, false, None);
    let changed = plan(&service, &backends(&service, &pods, none), &existing, 100);
    assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 0));
    let gone = plan(&service, &[], &existing, 100);
    assert_eq!((sizes(&gone.update), gone.delete.len()), (vec![0], 2));
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let service =
        service(json!({"ports": [{"port": 80, "targetPort": "http"}], "publishNotReadyAddresses": true}));
    let pods = [pod(1, false, Some("http")), pod(2, true, Some("http")), pod(3, true, None)];
    let found = backends(&service, &pods, |_| Some("z".into()));
    let ports: Vec<Option<i32>> = found.iter().map(|b| b.ports.first().and_then(|p| p.port)).collect();
    assert_eq!(ports, [Some(8001), Some(8002), None]);
    assert!(found[0].ready && !found[0].serving, "not ready, and published nevertheless");
    assert_eq!(found[0].hostname.as_deref(), Some("p1"));
    assert_eq!(plan(&service, &found, &[], 100).create.len(), 3);
}

#[test]
fn traffic_may_stay_near() {
    let hinted = |distribution: Value, pods: &[Arc<PodView>]| {
        let service = service(json!({"ports": [{"port": 80}], "trafficDistribution": distribution}));
        let slices = plan(&service, &backends(&service, pods, |_| Some("z".into())), &[], 100).create;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints.unwrap());
        endpoints.map(|e| serde_json::to_value(e.hints).unwrap()).collect::<Vec<_>>()
    };
    let pods = [pod(1, true, None), pod(2, false, None)];
    let (zone, node) = (json!([{"name": "z"}]), json!([{"name": "n1"}]));
    for same_zone in ["PreferClose", "PreferSameZone"] {
        assert_eq!(hinted(json!(same_zone), &pods), [json!({"forZones": zone}), Value::Null]);
    }
    let both = json!({"forNodes": node, "forZones": zone});
    assert_eq!(hinted(json!("PreferSameNode"), &pods), [both, Value::Null]);
    assert_eq!(hinted(Value::Null, &pods), [Value::Null, Value::Null]);
}

#[test]
fn the_older_form_holds_a_thousand_and_says_so() {
    let service = service(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}));
    let some = |count: usize| -> Vec<Arc<PodView>> { (0..count).map(|n| pod(n, n > 0, None)).collect() };
    let told = |count: usize| legacy::endpoints(&service, &backends(&service, &some(count), |_| None));
    let (full, over) = (told(1000), told(1001));
    let subset = &over.subsets.as_ref().unwrap()[0];
    assert_eq!((subset.addresses.as_ref().unwrap().len(), &subset.not_ready_addresses), (1000, &None));
    let said = &over.metadata.annotations.as_ref().unwrap()["endpoints.kubernetes.io/over-capacity"];
    assert_eq!(said, "truncated");
    assert!(full.metadata.annotations.is_none() && !legacy::says_the_same(&full, &over));
    let back = legacy::changed(&over, told(1000));
    assert!(legacy::says_the_same(&back, &full));
}

async fn slice_of(cluster: &Cluster, wish: impl Fn(&EndpointSlice) -> bool) -> EndpointSlice {
    let api = cluster.api::<EndpointSlice>("default");
    let of = ListParams::default().labels("kubernetes.io/service-name=web");
    cluster
        .wait_for("a slice as wished", || async {
            api.list(&of).await.unwrap().items.into_iter().find(|slice| wish(slice))
        })
        .await
}

#[tokio::test]
async fn follow_the_pods_of_a_service() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |pod| {
        let slow = pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key("slow"));
        if slow { Outcome::Unready } else { Outcome::Running }
    });
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    cluster.create("default", &service(spec)).await;
    slice_of(&cluster, |s| s.endpoints.as_ref().is_none_or(Vec::is_empty)).await;
    cluster.create("default", &testkit::pod("a", "web")).await;
    let mut slow = testkit::pod("b", "web");
    slow.metadata.labels.as_mut().unwrap().insert("slow".into(), "yes".into());
    cluster.create("default", &slow).await;
    let slice = slice_of(&cluster, |s| s.endpoints.as_ref().is_some_and(|e| e.len() == 2)).await;
    let ready: Vec<Option<bool>> =
        slice.endpoints.unwrap().into_iter().map(|e| e.conditions.unwrap().ready).collect();
    assert_eq!(ready.iter().filter(|r| **r == Some(true)).count(), 1);
    assert_eq!(slice.ports.unwrap()[0].port, Some(8080));
    cluster
        .wait_until::<Endpoints>("default", "web", "one ready, one not", |e| {
            let subset = e.subsets.as_ref().and_then(|s| s.first());
            subset.is_some_and(|s| {
                s.addresses.as_ref().is_some_and(|a| a.len() == 1)
                    && s.not_ready_addresses.as_ref().is_some_and(|a| a.len() == 1)
            })
        })
        .await;
    // A pod that no longer fits, and one that goes.
    let other = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    cluster.api::<Pod>("default").patch("b", &PatchParams::default(), &other).await.unwrap();
    cluster.api::<Pod>("default").delete("a", &DeleteParams::default()).await.unwrap();
    slice_of(&cluster, |s| s.endpoints.as_ref().is_none_or(Vec::is_empty)).await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<Endpoints>("default", "web").await;
}

#[test]
fn slices_are_as_large_as_people_want_them() {
    let service = service(json!({"ports": [{"port": 80, "targetPort": 8080}], "selector": {"a": "b"}}));
    let pods: Vec<Arc<PodView>> = (0..5).map(|n| pod(n, true, None)).collect();
    let found = backends(&service, &pods, |_| None);
    let first = plan(&service, &found, &[], 2).create;
    assert_eq!(sizes(&first), [2, 2, 1]);
    let name = |(n, mut slice): (usize, EndpointSlice)| {
        slice.metadata.name = Some(format!("web-{n}"));
        Arc::new(slice)
    };
    let large: Vec<_> = plan(&service, &found, &[], 100).create.into_iter().enumerate().map(name).collect();
    let smaller = plan(&service, &found, &large, 3);
    assert_eq!(
        (sizes(&smaller.update), sizes(&smaller.create)),
        (vec![3], vec![2]),
        "what has no room moves"
    );
}

/// What there is of a Service: whether it has slices, and whether it has Endpoints.
async fn forms(cluster: &Cluster, name: &str) -> (bool, bool) {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = cluster.api::<EndpointSlice>("default").list(&of).await.unwrap().items;
    let endpoints = cluster.api::<Endpoints>("default").get_opt(name).await.unwrap();
    (!slices.is_empty(), endpoints.is_some())
}

#[tokio::test]
async fn either_form_can_be_left_out() {
    for (controllers, wanted) in [
        ("endpointslice-controller", (true, false)),
        ("endpoints-controller", (false, true)),
        ("*,-endpointslice-mirroring-controller", (true, true)),
    ] {
        let cluster = Cluster::start().await;
        let selected = controllers.parse().unwrap();
        crate::run(&crate::Config { selected, ..crate::testing::config(&cluster) });
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        for name in ["web", "later"] {
            let mut service = service(spec.clone());
            service.metadata.name = Some(name.into());
            cluster.create("default", &service).await;
        }
        // Both forms are written by one look, slices first.
        let both = || async { (forms(&cluster, "later").await == wanted).then_some(()) };
        cluster.wait_for(controllers, both).await;
        let done = || async { (forms(&cluster, "web").await == wanted).then_some(()) };
        cluster.wait_for(controllers, done).await;
    }
}

#[tokio::test]
async fn changes_of_pods_are_gathered() {
    let cluster = Cluster::start().await;
    let mut config = crate::testing::config(&cluster);
    // So long that a change which is not gathered is seen before a test's patience ends.
    let period = std::time::Duration::from_secs(3600);
    (config.tuning.endpoints.slices_batch, config.tuning.endpoints.endpoints_batch) = (period, 2 * period);
    crate::run(&config);
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    run_kubelet(&cluster, |_| Outcome::Running);
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    cluster.create("default", &service(spec)).await;
    let has = |slice: &EndpointSlice| slice.endpoints.as_ref().is_some_and(|e| !e.is_empty());
    slice_of(&cluster, |slice| !has(slice)).await;
    cluster.create("default", &testkit::pod("a", "web")).await;
    cluster.wait_until("default", "a", "to run", |pod: &PodView| crate::common::pods::is_ready(pod)).await;
    let filled = |e: &Endpoints| e.subsets.as_ref().is_some_and(|s| !s.is_empty());
    let endpoints = cluster.api::<Endpoints>("default");
    assert!(!has(&slice_of(&cluster, |_| true).await) && !filled(&endpoints.get("web").await.unwrap()));
    pass(period).await;
    slice_of(&cluster, has).await;
    assert!(!filled(&endpoints.get("web").await.unwrap()), "it waits longer");
    // Its time begins when the slices have been written, which may be only now.
    let mut passed = 0;
    while !filled(&endpoints.get("web").await.unwrap()) {
        assert!(passed < 600, "they are never written");
        passed += 1;
        pass(period).await;
    }
}

async fn pass(time: std::time::Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
