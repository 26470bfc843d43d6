use client::k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use client::k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, node, object};

use super::*;

pub(super) async fn cluster() -> Cluster {
    cluster_with("", |_| {}).await
}

/// A cluster that serves what is off by default, too, with a scheduler that is told more.
pub(super) async fn cluster_with(switches: &str, tell: impl FnOnce(&mut Config)) -> Cluster {
    let cluster = Cluster::start_serving(switches).await;
    let account: client::k8s_openapi::api::core::v1::ServiceAccount =
        object(json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    // With no more rights than its roles give it.
    let informers = cluster.informers.acting_as(cluster.client_of("system:kube-scheduler", []));
    let mut config = Config::new(informers, cluster.clock.clone(), cluster.drain.clone());
    tell(&mut config);
    run(&config);
    cluster
}

/// What a configuration file says.
pub(super) fn settings(more: Value) -> crate::Settings {
    let mut file =
        json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    for (field, value) in more.as_object().into_iter().flatten() {
        file[field] = value.clone();
    }
    crate::Settings::read(&file).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn pod(name: &str, cpu: &str, more: Value) -> Pod {
    let mut spec =
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

pub(super) async fn node_of(cluster: &Cluster, name: &str) -> String {
    let is_bound = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let pod = cluster.wait_until::<Pod>("default", name, "to be bound", is_bound).await;
    pod.spec.unwrap().node_name.unwrap()
}

pub(super) fn scheduled(pod: &Pod) -> Option<(String, String)> {
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
    let gated = |p: &Pod| {
        scheduled(p).is_some_and(|(_, why)| why == "Scheduling is blocked due to non-empty scheduling gates")
    };
    cluster.wait_until("default", "gated", "to be told why", gated).await;
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

fn events_of<'a>(all: &'a [Event], reason: &str, name: &str) -> Vec<&'a Event> {
    let is =
        |e: &&Event| e.reason.as_deref() == Some(reason) && e.involved_object.name.as_deref() == Some(name);
    all.iter().filter(is).collect()
}

#[tokio::test]
async fn a_more_important_pod_takes_the_place_of_another() {
    let cluster = cluster().await;
    let class = |name: &str, value: i32| -> PriorityClass {
        object(json!({"metadata": {"name": name}, "value": value}))
    };
    cluster.create_global(&class("high", 1000)).await;
    cluster.create_global(&class("middle", 500)).await;
    cluster.create_node(&node("n1", 2, 4, 10)).await;
    cluster.create("default", &pod("victim", "2", json!({}))).await;
    assert_eq!(node_of(&cluster, "victim").await, "n1");
    // Once it runs, it takes its time to leave.
    let running = Patch::Merge(json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}}));
    let pods = cluster.api::<Pod>("default");
    pods.patch_status("victim", &PatchParams::default(), &running).await.unwrap();

    cluster.create("default", &pod("important", "2", json!({"priorityClassName": "high"}))).await;
    let nominated =
        |p: &Pod| p.status.as_ref().is_some_and(|s| s.nominated_node_name.as_deref() == Some("n1"));
    let waiting = cluster.wait_until("default", "important", "to be promised a node", nominated).await;
    assert_eq!(scheduled(&waiting).unwrap().1, "0/1 nodes are available: 1 Insufficient cpu.");
    let leaving = |p: &Pod| p.metadata.deletion_timestamp.is_some();
    let victim = cluster.wait_until("default", "victim", "to be on its way out", leaving).await;
    let conditions = victim.status.unwrap().conditions.unwrap();
    let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").expect("the condition");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("PreemptionByScheduler")));
    let uid = waiting.metadata.uid.unwrap();
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("the event", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let said = events_of(&all, "Preempted", "victim").first()?.message.clone();
            (said? == format!("Preempted by pod {uid} on node n1")).then_some(())
        })
        .await;

    // The room that is about to come is not for everybody.
    cluster.create("default", &pod("lesser", "1", json!({"priorityClassName": "middle"}))).await;
    let told = |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains("1 Insufficient cpu"));
    cluster.wait_until("default", "lesser", "to be told why", told).await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    pods.delete("victim", &now).await.unwrap();
    assert_eq!(node_of(&cluster, "important").await, "n1");
    let there = pods.get("important").await.unwrap();
    assert_eq!(there.status.unwrap().nominated_node_name, None, "what was promised has been kept");
    let lesser = pods.get("lesser").await.unwrap();
    assert_eq!(lesser.spec.unwrap().node_name, None);
}

#[tokio::test]
async fn others_may_say_where_a_pod_is_to_go() {
    let cluster = cluster().await;
    let told = |what: &'static str| move |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains(what));
    for name in ["n1", "n2"] {
        cluster.create_node(&node(name, 4, 4, 10)).await;
    }
    let pods = cluster.api::<Pod>("default");
    cluster.create("default", &pod("p", "4", json!({"nodeSelector": {"ready": "yes"}}))).await;
    let why = told("2 node(s) didn't match Pod's node affinity/selector");
    cluster.wait_until("default", "p", "to be told why", why).await;
    let expect = |node: Option<&str>| Patch::Merge(json!({"status": {"nominatedNodeName": node}}));
    for node in ["n1", "n2"] {
        pods.patch_status("p", &PatchParams::default(), &expect(Some(node))).await.unwrap();
    }
    let informer = cluster.informers.of::<client::PodView>();
    let seen = || async {
        let pod = informer.store().by_name("default", "p")?;
        (pod.status.as_ref()?.nominated_node_name.as_deref() == Some("n2")).then_some(())
    };
    cluster.wait_for("the promise to be seen", seen).await;
    // Those who are no more important leave it its room.
    cluster.create("default", &pod("a", "3", json!({}))).await;
    assert_eq!(node_of(&cluster, "a").await, "n1");
    cluster.create("default", &pod("b", "3", json!({}))).await;
    cluster.wait_until("default", "b", "to be told why", told("2 Insufficient cpu")).await;
    pods.patch_status("p", &PatchParams::default(), &expect(None)).await.unwrap();
    assert_eq!(node_of(&cluster, "b").await, "n2");
}

#[tokio::test]
async fn a_pod_has_no_node_since_the_first_time_that_it_found_none() {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 4, 4, 10)).await;
    let told = |what: &'static str| move |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains(what));
    cluster.create("default", &pod("p", "5", json!({"nodeSelector": {"ready": "yes"}}))).await;
    cluster.wait_until("default", "p", "to be told why", told("affinity/selector")).await;
    let pods = cluster.api::<Pod>("default");
    let since = "2026-01-01T00:00:00Z";
    let condition = json!({"type": "PodScheduled", "status": "False", "lastTransitionTime": since});
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    pods.patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"ready": value}}}));
    cluster.all::<Node>().patch("n1", &PatchParams::default(), &label("yes")).await.unwrap();
    let informer = cluster.informers.of::<Node>();
    let seen = || async {
        let node = informer.store().by_name("", "n1")?;
        node.metadata.labels.as_ref()?.get("ready").map(drop)
    };
    cluster.wait_for("the label to be seen", seen).await;
    // The node cannot help, but the pod is another one now.
    pods.patch("p", &PatchParams::default(), &label("now")).await.unwrap();
    let again = cluster.wait_until("default", "p", "to be told more", told("1 Insufficient cpu")).await;
    let conditions = again.status.unwrap().conditions.unwrap();
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled").unwrap();
    assert_eq!(serde_json::to_value(&condition.last_transition_time).unwrap(), json!(since));
}

#[test]
fn a_message_is_cut_to_what_an_event_takes() {
    let long = "ä".repeat(600);
    let short = cut(&long);
    assert!(short.len() <= 1024 && short.ends_with("ä ..."), "{}", short.len());
    assert_eq!(cut("short"), "short");
}

#[tokio::test]
async fn a_pod_waits_for_others_to_come_and_go() {
    let cluster = cluster().await;
    cluster.create_node(&node("n1", 8, 8, 10)).await;
    let term = |app: &str| {
        json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}},
            "namespaceSelector": {}}])
    };
    let labelled = |name: &str, affinity: Value| {
        let mut pod = pod(name, "1", json!({"affinity": affinity}));
        pod.metadata.labels = Some([("app".to_owned(), name.to_owned())].into());
        pod
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let follower = labelled("follower", json!({"podAffinity": {required: term("leader")}}));
    cluster.create("default", &follower).await;
    let told = |what: &'static str| move |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.contains(what));
    let why = told("1 node(s) didn't match pod affinity rules");
    cluster.wait_until("default", "follower", "to be told why", why).await;
    cluster.create("default", &labelled("leader", json!({}))).await;
    assert_eq!(node_of(&cluster, "follower").await, "n1");

    let hermit = labelled("hermit", json!({"podAntiAffinity": {required: term("leader")}}));
    cluster.create("default", &hermit).await;
    let why = told("1 node(s) didn't match pod anti-affinity rules");
    cluster.wait_until("default", "hermit", "to be told why", why).await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    cluster.api::<Pod>("default").delete("leader", &now).await.unwrap();
    assert_eq!(node_of(&cluster, "hermit").await, "n1");
}

#[tokio::test]
async fn pods_of_a_service_are_spread_without_being_told() {
    let cluster = cluster().await;
    for (name, zone) in [("n1", "z1"), ("n2", "z2"), ("n3", "z1")] {
        let mut node = node(name, if name == "n2" { 4 } else { 64 }, 64, 99);
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert("topology.kubernetes.io/zone".into(), zone.into());
        cluster.create_node(&node).await;
    }
    let service: Service = object(json!({"metadata": {"name": "s"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
    cluster.create("default", &service).await;
    let mut zones = Vec::new();
    for n in 0..4 {
        let mut pod = pod(&format!("p{n}"), "10m", json!({}));
        pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        cluster.create("default", &pod).await;
        zones.push(node_of(&cluster, &format!("p{n}")).await == "n2");
    }
    assert_eq!(zones.iter().filter(|second| **second).count(), 2, "half of them in each zone");
}

#[tokio::test]
async fn each_profile_places_its_own_pods_and_nobody_elses() {
    let most = json!({"scoringStrategy": {"type": "MostAllocated"}});
    let score = json!({"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]});
    let file = json!({"profiles": [
        {"schedulerName": "spread", "plugins": {"score": score}},
        {"schedulerName": "pack", "plugins": {"score": score}, "pluginConfig": [{"name": "NodeResourcesFit", "args": most}]},
    ]});
    let cluster = cluster_with("", |config| config.settings = settings(file)).await;
    for name in ["n1", "n2"] {
        cluster.create_node(&node(name, 8, 8, 10)).await;
    }
    let of = |name: &str, scheduler: &str| pod(name, "1", json!({"schedulerName": scheduler}));
    cluster.create("default", &of("nobodys", "default-scheduler")).await;
    cluster.create("default", &of("first", "pack")).await;
    let first = node_of(&cluster, "first").await;
    cluster.create("default", &of("second", "pack")).await;
    assert_eq!(node_of(&cluster, "second").await, first, "where most is taken");
    cluster.create("default", &of("third", "spread")).await;
    assert_ne!(node_of(&cluster, "third").await, first, "where most is free");
    let events = cluster.api::<Event>("default");
    cluster
        .wait_for("the event of the profile's own name", || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let said = events_of(&all, "Scheduled", "third").first()?.source.clone()?.component?;
            (said == "spread").then_some(())
        })
        .await;
    let other = cluster.api::<Pod>("default").get("nobodys").await.unwrap();
    assert_eq!((other.spec.as_ref().unwrap().node_name.clone(), scheduled(&other)), (None, None));
}

/// Two schedulers in one cluster count each other's pods, and leave them alone.
#[tokio::test]
async fn two_schedulers_side_by_side() {
    let cluster = cluster().await;
    let informers = client::Informers::new(cluster.client.clone(), cluster.drain.clone());
    let mut other = Config::new(informers, cluster.clock.clone(), cluster.drain.clone());
    other.settings = settings(json!({"profiles": [{"schedulerName": "other"}]}));
    run(&other);
    for n in 0..4 {
        cluster.create_node(&node(&format!("n{n}"), 4, 9, 100)).await;
    }
    for n in 0..24 {
        let scheduler = if n % 2 == 0 { "other" } else { "default-scheduler" };
        cluster.create("default", &pod(&format!("p{n}"), "1", json!({"schedulerName": scheduler}))).await;
    }
    let pods = cluster.api::<Pod>("default");
    let told = |p: &Pod| scheduled(p).is_some_and(|(is, _)| is == "False");
    let all = cluster
        .wait_for("every pod to have a node or to be told why", || async {
            let all = pods.list(&ListParams::default()).await.unwrap().items;
            let done = |p: &Pod| p.spec.as_ref().unwrap().node_name.is_some() || told(p);
            all.iter().all(done).then_some(all)
        })
        .await;
    for name in ["other", "default-scheduler"] {
        let specs = all.iter().filter_map(|p| p.spec.as_ref());
        let mut own = specs.filter(|spec| spec.scheduler_name.as_deref() == Some(name));
        assert!(own.any(|spec| spec.node_name.is_some()), "{name} has placed none of its pods");
    }
    // Each knows what the other has done a moment later only, so a node can be overfull by what they did at once; but
    // nobody has touched a pod that is not its own.
    let events = cluster.api::<Event>("default").list(&ListParams::default()).await.unwrap().items;
    for event in
        events.iter().filter(|e| matches!(e.reason.as_deref(), Some("Scheduled" | "FailedScheduling")))
    {
        let name = event.involved_object.name.as_deref().unwrap();
        let pod = all.iter().find(|p| p.metadata.name.as_deref() == Some(name)).unwrap();
        let by = event.source.as_ref().and_then(|s| s.component.as_deref());
        assert_eq!(by, pod.spec.as_ref().unwrap().scheduler_name.as_deref(), "{name}");
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let profile = json!({"profiles": [{"schedulerName": "counted"}]});
    let cluster = cluster_with("", |config| config.settings = settings(profile)).await;
    let mine = json!({"schedulerName": "counted"});
    cluster.create("default", &pod("early", "1", mine.clone())).await;
    let told = |p: &Pod| scheduled(p).is_some_and(|(is, _)| is == "False");
    cluster.wait_until("default", "early", "to be told why", told).await;
    cluster.create_node(&node("n1", 2, 4, 10)).await;
    node_of(&cluster, "early").await;
    let page = || {
        let mut page = base::metrics::Page::new();
        crate::metrics(&mut page);
        page.finish()
    };
    let value = |text: &str, series: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    };
    let at_least_one = [
        "scheduler_schedule_attempts_total{profile=\"counted\",result=\"scheduled\"}",
        "scheduler_schedule_attempts_total{profile=\"counted\",result=\"unschedulable\"}",
        "scheduler_scheduling_attempt_duration_seconds_count{profile=\"counted\",result=\"scheduled\"}",
        "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Filter\",profile=\"counted\",status=\"Success\"}",
        "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Bind\",profile=\"counted\",status=\"Success\"}",
        "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"2\"}",
        "scheduler_queue_incoming_pods_total{event=\"UnscheduledPodAdd\",queue=\"active\"}",
        "scheduler_queue_incoming_pods_total{event=\"ScheduleAttemptFailure\",queue=\"unschedulable\"}",
        "scheduler_scheduling_algorithm_duration_seconds_count",
    ];
    // The outcome of the binding is known a moment after the pod shows it.
    cluster
        .wait_for("the numbers", || async {
            let text = page();
            let missing = at_least_one.iter().find(|series| value(&text, series).is_none_or(|v| v < 1.0));
            missing.is_none().then_some(())
        })
        .await;
    assert!(value(&page(), "scheduler_pending_pods{queue=\"gated\"}").is_some());
}
