use client::Amounts;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde_json::{Value, json};

use crate::requests::requests;

use super::decide::{Step, differ, lower_memory_limit, room, step, told, wanted, with};

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

fn requirements(cpu: &str, memory: &str) -> ResourceRequirements {
    serde_json::from_value(resources(cpu, memory)).unwrap()
}

fn container(cpu: &str, memory: &str, policy: Value) -> Container {
    let value = json!({"name": "a", "resources": resources(cpu, memory), "resizePolicy": policy});
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_policy_says_whether_to_restart() {
    let has = requirements("500m", "64Mi");
    let step = |cpu: &str, memory: &str, policy: Value| step(&container(cpu, memory, policy), &has);
    let policy = |cpu: &str, memory: &str| json!([{"resourceName": "cpu", "restartPolicy": cpu}, {"resourceName": "memory", "restartPolicy": memory}]);
    let (stays, restarts) = ("NotRequired", "RestartContainer");
    // The same amounts in other words.
    assert_eq!(step("0.5", "65536Ki", policy(restarts, restarts)), Step::Nothing);
    assert_eq!(step("1", "64Mi", json!([])), Step::Update);
    assert_eq!(step("1", "64Mi", policy(stays, restarts)), Step::Update);
    assert_eq!(step("1", "32Mi", policy(stays, restarts)), Step::Restart);
    assert_eq!(step("1", "64Mi", policy(restarts, stays)), Step::Restart);
    assert_eq!(step("500m", "32Mi", policy(restarts, stays)), Step::Update);
}

#[test]
fn only_a_lower_limit_on_memory_is_checked() {
    let has = requirements("1", "64Mi");
    let lower = |memory: &str| lower_memory_limit(container("1", memory, json!([])).resources.as_ref(), &has);
    assert_eq!((lower("64Mi"), lower("65Mi"), lower("32Mi")), (None, None, Some(32 << 20)));
    assert_eq!(
        lower_memory_limit(container("1", "1Ki", json!([])).resources.as_ref(), &Default::default()),
        Some(1024)
    );
}

#[test]
fn room_on_the_node() {
    let amounts = |cpu, memory| Amounts { cpu, memory, ..Amounts::default() };
    let node = amounts(2000, 1000);
    let outcome = |after: Amounts| {
        let room = room(&amounts(500, 500), &after, &amounts(1200, 600), &node);
        room.map_err(|why| (why.reason, why.message))
    };
    assert_eq!(outcome(amounts(800, 400)), Ok(()));
    // What does not grow is no reason, even if there is too little by now.
    assert_eq!(outcome(amounts(800, 500)), Ok(()));
    let why = "Node didn't have enough resource: cpu, requested: 801, used: 1200, capacity: 2000";
    assert_eq!(outcome(amounts(801, 400)), Err(("Deferred", why.into())));
    let why = "Node didn't have enough capacity: memory, requested: 1001, capacity: 1000";
    assert_eq!(outcome(amounts(801, 1001)), Err(("Infeasible", why.into())));
}

#[test]
fn an_agent_goes_on_from_the_status() {
    let pod = |status: Value| -> Pod {
        let own = json!({"name": "a", "resources": resources("2", "2Gi")});
        let side = json!({"name": "s", "restartPolicy": "Always", "resources": resources("1", "1Gi")});
        let init = json!({"name": "i", "resources": resources("1", "1Gi")});
        let spec = json!({"initContainers": [init, side], "containers": [own]});
        serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
    };
    let fresh = pod(json!({}));
    assert_eq!(told(&fresh), wanted(&fresh));
    assert!(!differ(&told(&fresh), &wanted(&fresh)));
    let shown = json!({"name": "a", "resources": resources("1", "1Gi"), "image": "", "imageID": "",
        "ready": true, "restartCount": 0});
    let resized = pod(json!({"containerStatuses": [shown]}));
    assert!(differ(&told(&resized), &wanted(&resized)));
    let before = with(&resized, &told(&resized));
    assert_eq!(before.spec.as_ref().unwrap().containers[0].resources, Some(requirements("1", "1Gi")));
    assert_eq!((requests(&before).cpu, requests(&resized).cpu), (2000, 3000));
}

#[test]
fn what_is_said_for_the_pod_is_allocated_too() {
    let pod = |cpu: &str, told: Option<&str>| -> Pod {
        let container = json!({"name": "a", "resources": resources("1", "1Gi")});
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": [container], "resources": resources(cpu, "2Gi")}});
        if let Some(cpu) = told {
            pod["status"] = json!({"resources": resources(cpu, "2Gi")});
        }
        serde_json::from_value(pod).unwrap()
    };
    let (old, new) = (pod("2", None), pod("3", Some("2")));
    // An agent that starts again goes on from the status.
    assert_eq!(told(&new), wanted(&old));
    assert!(differ(&told(&new), &wanted(&new)) && !differ(&told(&old), &wanted(&old)));
    let held = with(&new, &wanted(&old));
    assert_eq!(held.spec.as_ref().unwrap().resources, Some(requirements("2", "2Gi")));
    assert_eq!((requests(&held).cpu, requests(&new).cpu), (2000, 3000));
}
