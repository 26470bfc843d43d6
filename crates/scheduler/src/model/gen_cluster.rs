//! Random clusters: small, so that everything meets everything.

use proptest::collection::vec;
use proptest::option;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;

const KEYS: [&str; 3] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"];

/// What some nodes say that they can do.
const ABLE: &str = "RestartAllContainersOnContainerExits";

pub(super) fn model() -> impl Strategy<Value = Model> {
    let service = select(vec!["app", "tier"]).prop_flat_map(|key| (Just(key), select(vec!["x", "y"])));
    let services = vec(service.prop_map(|(key, value)| Labels::from([(key.into(), value.into())])), 0..3);
    let nodes = vec((node(), vec((pod(""), prop::bool::weighted(0.3)), 0..4)), 1..6);
    (nodes, services, storage::storage(), choice::choice()).prop_map(|(nodes, services, storage, choice)| {
        let mut model = Model { services, storage, choice, ..Model::default() };
        for (name, team) in [("a", "red"), ("b", "blue")] {
            model.namespaces.insert(name.into(), Labels::from([("team".into(), team.into())]));
        }
        for (n, (mut node, pods)) in nodes.into_iter().enumerate() {
            let name = format!("n{n}");
            node["metadata"]["name"] = json!(name);
            if node["metadata"]["labels"][KEYS[0]].is_string() {
                node["metadata"]["labels"][KEYS[0]] = json!(name);
            }
            model.nodes.push(testkit::object(node));
            for (p, (mut pod, deleting)) in pods.into_iter().enumerate() {
                pod.metadata.uid = Some(format!("{name}-{p}"));
                if deleting && p == 0 {
                    let now = client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                        base::Timestamp::UNIX_EPOCH,
                    );
                    pod.metadata.deletion_timestamp = Some(now);
                }
                model.placed.push((name.clone(), pod));
            }
        }
        model
    })
}

fn node() -> impl Strategy<Value = Value> {
    let label = |values: Vec<&'static str>| option::weighted(0.8, select(values));
    let labels = (option::weighted(0.8, Just("me")), label(vec!["z1", "z2"]), label(vec!["r1", "r2", "r3"]));
    let declared = select(vec![json!(null), json!(["Other"]), json!(["Other", ABLE]), json!([ABLE])]);
    (labels, 1..5u32, prop::bool::weighted(0.15), declared).prop_map(|((host, zone, rack), cores, tainted, declared)| {
        let mut labels = Map::new();
        for (key, value) in KEYS.into_iter().zip([host, zone, rack]) {
            labels.extend(value.map(|value| (key.to_owned(), json!(value))));
        }
        let taints = if tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { Value::Null };
        let mut allocatable = json!({"cpu": cores.to_string(), "memory": "4Gi", "pods": "50"});
        if cores % 2 == 0 {
            allocatable["x.io/card"] = json!("3");
        }
        json!({"metadata": {"labels": labels}, "spec": {"taints": taints}, "status": {"allocatable": allocatable, "declaredFeatures": declared}})
    })
}

pub(super) fn pod(uid: &'static str) -> impl Strategy<Value = PodView> {
    let cpu = select(vec![None, None, Some("500m"), Some("1"), Some("2")]);
    let who = (select(vec!["a", "b"]), labels(), 0..4i32, cpu);
    let zone = option::weighted(0.15, select(vec!["z1", "z2"]));
    let claims = prop_oneof![3 => Just(Vec::new()), 1 => vec(select(vec!["c0", "c1", "c2", "c3"]), 1..3)];
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.15));
    (who, affinity(), vec(spread(), 0..3), zone, flags, claims).prop_map(
        move |(
            (namespace, labels, priority, cpu),
            affinity,
            spread,
            zone,
            (tolerant, card, all),
            mut claims,
        )| {
            claims.sort_unstable();
            claims.dedup();
            let mut requests = cpu.map_or(json!({}), |cpu| json!({"cpu": cpu}));
            if card {
                requests["x.io/card"] = json!("1");
            }
            let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}],
                "priority": priority, "affinity": affinity});
            if !spread.is_empty() {
                spec["topologySpreadConstraints"] = json!(spread);
            }
            if let Some(zone) = zone {
                spec["nodeSelector"] = json!({KEYS[1]: zone});
            }
            if !claims.is_empty() {
                let volume = |c: &&str| json!({"name": c, "persistentVolumeClaim": {"claimName": c}});
                spec["volumes"] = claims.iter().map(volume).collect();
            }
            if all {
                spec["containers"][0]["restartPolicyRules"] = json!([{"action": "RestartAllContainers"}]);
            }
            if tolerant {
                spec["tolerations"] = json!([{"operator": "Exists"}]);
            }
            testkit::object(json!({"metadata": {"name": "p", "namespace": namespace, "uid": uid,
                "labels": labels}, "spec": spec}))
        },
    )
}

fn labels() -> impl Strategy<Value = Value> {
    let value = || option::weighted(0.8, select(vec!["x", "y"]));
    (value(), value()).prop_map(|(app, tier)| {
        let mut labels = Map::new();
        labels.extend(app.map(|v| ("app".to_owned(), json!(v))));
        labels.extend(tier.map(|v| ("tier".to_owned(), json!(v))));
        Value::Object(labels)
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let one = (select(vec!["app", "tier"]), select(vec!["x", "y"]));
    prop_oneof![
        1 => Just(Value::Null),
        1 => Just(json!({})),
        6 => one.prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
    ]
}

fn keys() -> impl Strategy<Value = Value> {
    prop_oneof![4 => Just(Value::Null), 1 => Just(json!(["tier"]))]
}

fn term() -> impl Strategy<Value = Value> {
    let namespaces = prop_oneof![
        4 => Just((Value::Null, Value::Null)),
        1 => Just((json!(["b"]), Value::Null)),
        1 => Just((Value::Null, json!({"matchLabels": {"team": "blue"}}))),
        1 => Just((json!(["a"]), json!({}))),
    ];
    (selector(), namespaces, select(KEYS.to_vec()), keys(), keys()).prop_map(
        |(selector, (namespaces, by_labels), key, same, other)| {
            json!({"labelSelector": selector, "namespaces": namespaces, "namespaceSelector": by_labels,
                "topologyKey": key, "matchLabelKeys": same,
                "mismatchLabelKeys": if same.is_null() { other } else { Value::Null }})
        },
    )
}

fn affinity() -> impl Strategy<Value = Value> {
    let sort = |name: &'static str| {
        let preferred = vec((term(), 1..50i32), 0..2);
        let required = prop_oneof![1 => Just(Vec::new()), 2 => vec(term(), 1..3)];
        option::weighted(0.4, (required, preferred)).prop_map(move |sort| {
            let sort = sort.map(|(required, preferred)| {
                let weighted =
                    |(term, weight): (Value, i32)| json!({"weight": weight, "podAffinityTerm": term});
                let preferred: Vec<Value> = preferred.into_iter().map(weighted).collect();
                json!({"requiredDuringSchedulingIgnoredDuringExecution": required,
                    "preferredDuringSchedulingIgnoredDuringExecution": preferred})
            });
            (name, sort)
        })
    };
    (sort("podAffinity"), sort("podAntiAffinity"))
        .prop_map(|(near, apart)| json!({near.0: near.1, apart.0: apart.1}))
}

fn spread() -> impl Strategy<Value = Value> {
    let when = select(vec!["DoNotSchedule", "ScheduleAnyway"]);
    let policies = (
        select(vec![None, Some("Honor"), Some("Ignore")]),
        select(vec![None, Some("Honor"), Some("Ignore")]),
    );
    let min = prop_oneof![1 => Just(None), 1 => (1..5i32).prop_map(Some)];
    (selector(), select(KEYS.to_vec()), 1..3i32, when, min, policies, keys()).prop_map(
        |(selector, key, skew, when, min, (affinity, taints), keys)| {
            json!({"labelSelector": selector, "topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when,
                "minDomains": min.filter(|_| when == "DoNotSchedule"), "nodeAffinityPolicy": affinity,
                "nodeTaintsPolicy": taints, "matchLabelKeys": keys})
        },
    )
}
