use serde_json::{Value, json};

use super::*;
use crate::plan::STREAK;
use crate::probe::{Health, Healths};
use runtime::{ContainerState, ContainerStatus, Exit};

const NOW: &str = "2026-01-01T00:10:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn run(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        created_at: at(NOW),
        state,
        image: "i".into(),
        labels: [(STREAK.to_owned(), attempt.to_string())].into(),
        log_path: None,
    }
}

fn running(name: &str) -> ContainerStatus {
    run(name, 0, ContainerState::Running { pid: 1, started_at: at(NOW) })
}

fn exited(name: &str, attempt: u32, code: i32) -> ContainerStatus {
    let (started_at, finished_at) = (at("2026-01-01T00:09:50Z"), at("2026-01-01T00:09:58Z"));
    let exit = Exit { code, signal: None, oom_killed: code == 137, started_at, finished_at, lost: None };
    run(name, attempt, ContainerState::Exited(exit))
}

struct World {
    pod: Value,
    containers: Vec<ContainerStatus>,
    healths: Healths,
    known: Known,
    sandbox: bool,
}

fn world(spec: Value, containers: &[ContainerStatus]) -> World {
    let known = Known { pod_ip: Some("10.0.0.2".into()), host_ip: "10.0.0.1".into(), ..Known::default() };
    World {
        pod: json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
        containers: containers.to_vec(),
        healths: Healths::new(),
        known,
        sandbox: true,
    }
}

impl World {
    fn status(&self) -> Value {
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        let view = View {
            sandbox: self.sandbox,
            held: true,
            containers: &self.containers,
            healths: &self.healths,
            replaced: &self.known.replaced,
            now: at(NOW),
            longest: std::time::Duration::from_secs(300),
        };
        serde_json::to_value(status_of(&pod, &view, &self.known)).unwrap()
    }
}

fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

/// Phase, and of the first container: state's name, reason, message.
fn shown(status: &Value) -> (String, String, String, String) {
    let state = status["containerStatuses"][0]["state"].as_object().unwrap();
    let (name, inner) = state.iter().next().unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&status["phase"]), name.clone(), text(&inner["reason"]), text(&inner["message"]))
}

fn line(status: &Value) -> String {
    let (phase, state, reason, message) = shown(status);
    format!("{phase} {state} {reason} {message}").trim_end().to_owned()
}

fn spec(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}]})
}

#[test]
fn what_people_see() {
    assert_eq!(line(&world(spec("Always"), &[]).status()), "Pending waiting ContainerCreating");
    assert_eq!(line(&world(spec("Always"), &[running("a")]).status()), "Running running");
    assert_eq!(line(&world(spec("Always"), &[exited("a", 0, 1)]).status()), "Running terminated Error");
    assert_eq!(line(&world(spec("Never"), &[exited("a", 0, 0)]).status()), "Succeeded terminated Completed");
    assert_eq!(line(&world(spec("Never"), &[exited("a", 0, 3)]).status()), "Failed terminated Error");
    assert_eq!(line(&world(spec("Never"), &[exited("a", 0, 137)]).status()), "Failed terminated OOMKilled");
    assert_eq!(line(&world(spec("OnFailure"), &[exited("a", 0, 1)]).status()), "Running terminated Error");
    assert_eq!(
        line(&world(spec("Always"), &[exited("a", 1, 1)]).status()),
        "Running waiting CrashLoopBackOff back-off 10s restarting failed container=a pod=p_n(u)"
    );
    assert_eq!(
        line(&world(spec("Always"), &[exited("a", 4, 0)]).status()),
        "Running waiting CrashLoopBackOff back-off 1m20s restarting failed container=a pod=p_n(u)"
    );
}

#[test]
fn what_cannot_start_says_why() {
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image \"x\""),
        ("ErrImagePull", "failed to pull image \"x\""),
        ("CreateContainerConfigError", "secret \"s\" not found"),
    ] {
        let mut world = world(spec("Always"), &[]);
        world.known.waiting.insert("a".into(), (reason.into(), message.into()));
        assert_eq!(line(&world.status()), format!("Pending waiting {reason} {message}"));
        // It ran before: the pod is not pending.
        world.containers = vec![exited("a", 0, 1)];
        let status = world.status();
        assert_eq!(line(&status), format!("Running waiting {reason} {message}"));
        assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    }
}

#[test]
fn init_containers_hold_the_others_up() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let status = world(spec.clone(), &[running("i")]).status();
    assert_eq!(line(&status), "Pending waiting PodInitializing");
    let initialized = condition(&status, "Initialized");
    assert_eq!(initialized["message"], "containers with incomplete status: [i]");
    assert_eq!(status["initContainerStatuses"][0]["ready"], false);
    let status = world(spec.clone(), &[exited("i", 0, 0), running("a")]).status();
    assert_eq!(
        (line(&status).as_str(), condition(&status, "Ready")["status"].as_str()),
        ("Running running", Some("True"))
    );
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    let mut never = spec;
    never["restartPolicy"] = "Never".into();
    assert_eq!(world(never, &[exited("i", 0, 1)]).status()["phase"], "Failed");
}

#[test]
fn readiness_is_what_probes_say() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {}, "startupProbe": {}}]});
    let mut world = world(spec, &[running("a")]);
    let of = |world: &World| {
        let status = world.status();
        let container = &status["containerStatuses"][0];
        (
            container["started"] == true,
            container["ready"] == true,
            condition(&status, "Ready")["status"] == "True",
        )
    };
    assert_eq!(of(&world), (false, false, false));
    let mut set = |health| {
        world.healths.insert("a0".into(), health);
        of(&world)
    };
    assert_eq!(set(Health { started: Some(true), live: Some(true), ready: None }), (true, false, false));
    assert_eq!(set(Health { started: Some(true), live: Some(true), ready: Some(true) }), (true, true, true));
    assert_eq!(set(Health { started: None, live: Some(true), ready: Some(true) }), (false, false, false));
    set(Health { started: Some(true), live: Some(true), ready: Some(false) });
    let ready = condition(&world.status(), "Ready");
    assert_eq!(ready["reason"], "ContainersNotReady");
    assert_eq!(ready["message"], "containers with unready status: [a]");
}

#[test]
fn readiness_gates_must_be_open() {
    let mut spec = spec("Always");
    spec["readinessGates"] = json!([{"conditionType": "x/y"}]);
    let mut world = world(spec, &[running("a")]);
    let ready = condition(&world.status(), "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(ready["message"], "corresponding condition of pod readiness gate \"x/y\" does not exist.");
    assert_eq!(condition(&world.status(), "ContainersReady")["status"], "True");
    world.pod["status"] = json!({"conditions": [{"type": "x/y", "status": "False"}]});
    let ready = condition(&world.status(), "Ready");
    assert_eq!(ready["message"], "the status of pod readiness gate \"x/y\" is not \"True\", but False");
    world.pod["status"] = json!({"conditions": [{"type": "x/y", "status": "True"}]});
    assert_eq!(condition(&world.status(), "Ready")["status"], "True");
}

#[test]
fn transitions_are_timed_by_changes_of_status() {
    let old = "2026-01-01T00:00:00Z";
    let mut world = world(spec("Always"), &[running("a")]);
    world.pod["status"] = json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": old},
        {"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": old}]});
    let status = world.status();
    assert_eq!(condition(&status, "Ready")["lastTransitionTime"], old);
    let ready = condition(&status, "ContainersReady");
    assert_eq!((ready["lastTransitionTime"].as_str(), ready.get("reason")), (Some(NOW), None));
    // Written and read back, nothing is new.
    world.pod["status"] = status.clone();
    assert_eq!(world.status(), status);
}

#[test]
fn an_ended_pod_says_how() {
    let mut world = world(spec("Always"), &[exited("a", 0, 0)]);
    world.known.ending = Some(Ending::default());
    assert_eq!(line(&world.status()), "Succeeded terminated Completed");
    assert_eq!(condition(&world.status(), "Ready")["reason"], "PodCompleted");
    world.containers = vec![exited("a", 0, 143)];
    assert_eq!(line(&world.status()), "Failed terminated Error");
    assert_eq!(condition(&world.status(), "Ready")["reason"], "PodFailed");
    world.containers = vec![];
    assert_eq!(world.status()["phase"], "Failed");
    let (reason, message) = (Some("DeadlineExceeded".into()), Some("too long".into()));
    world.known.ending = Some(Ending { failed: true, reason, message, disrupted: false });
    let status = world.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
}

#[test]
fn last_words_are_shown() {
    let mut world = world(spec("Never"), &[exited("a", 0, 1)]);
    world.known.last_words.insert("a0".into(), "no disk".into());
    assert_eq!(line(&world.status()), "Failed terminated Error no disk");
}

#[test]
fn earlier_ends_are_remembered_by_the_api() {
    let mut world = world(spec("Always"), &[exited("a", 0, 3)]);
    world.pod["status"] = world.status();
    world.containers = vec![run("a", 1, ContainerState::Running { pid: 1, started_at: at(NOW) })];
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    world.pod["status"] = status;
    let again = world.status();
    assert_eq!(again["containerStatuses"][0]["lastState"]["terminated"]["containerID"], "gantry://a0");
    assert_eq!(again["containerStatuses"][0]["restartCount"], 1);
}

#[test]
fn what_is_lost_is_said_to_be() {
    let mut world = world(spec("Never"), &[running("a")]);
    world.pod["status"] = world.status();
    (world.containers, world.sandbox) = (vec![], false);
    assert_eq!(shown(&world.status()).2, "ContainerStatusUnknown");
    assert_eq!(world.status()["phase"], "Failed");
}

#[test]
fn ephemeral_containers_are_shown_and_not_counted() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "d", "image": "busybox"}]});
    let of = |world: &World| world.status()["ephemeralContainerStatuses"][0].clone();
    let mut world = world(spec, &[running("a")]);
    assert_eq!(of(&world)["state"]["waiting"]["reason"], "ContainerCreating");
    world.known.waiting.insert("d".into(), ("ErrImagePull".into(), "why".into()));
    assert_eq!(of(&world)["state"]["waiting"]["reason"], "ErrImagePull");
    world.containers.push(running("d"));
    let shown = of(&world);
    assert!(shown["state"]["running"].is_object() && shown["started"].is_null(), "{shown}");
    assert_eq!((&shown["ready"], &shown["image"]), (&json!(false), &json!("busybox")));
    world.containers = vec![running("a"), exited("d", 0, 1)];
    let status = world.status();
    assert_eq!(status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert_eq!(
        (&status["phase"], &condition(&status, "Ready")["status"]),
        (&json!("Running"), &json!("True"))
    );
    world.containers = vec![exited("a", 0, 0), running("d")];
    assert_eq!(world.status()["phase"], "Succeeded");
}

#[test]
fn a_resize_is_shown() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let parsed = |cpu: &str| serde_json::from_value(resources(cpu)).unwrap();
    let mut world =
        world(json!({"containers": [{"name": "a", "resources": resources("2")}]}), &[running("a")]);
    world.known.sizes.running.insert("a0".into(), parsed("1"));
    world.known.sizes.progress = Some(None);
    let status = world.status();
    let own = &status["containerStatuses"][0];
    assert_eq!((&own["allocatedResources"]["cpu"], &own["resources"]), (&json!("2"), &resources("1")));
    let progress = condition(&status, "PodResizeInProgress");
    assert_eq!((&progress["status"], &progress["reason"]), (&json!("True"), &Value::Null));
    world.pod["status"] = status;
    world.known.sizes.running.insert("a0".into(), parsed("2"));
    world.known.sizes.progress = Some(Some("why".into()));
    let status = world.status();
    assert_eq!(status["containerStatuses"][0]["resources"], resources("2"));
    let progress = condition(&status, "PodResizeInProgress");
    assert_eq!((&progress["reason"], &progress["message"]), (&json!("Error"), &json!("why")));
    world.known.sizes.progress = None;
    world.known.sizes.pending =
        Some(crate::resize::Pending { reason: "Deferred", message: "no room".into() });
    let status = world.status();
    assert_eq!(condition(&status, "PodResizeInProgress"), Value::Null);
    assert_eq!(condition(&status, "PodResizePending")["reason"], "Deferred");
}

#[test]
fn a_container_that_never_began_in_a_lost_sandbox_never_will() {
    let both = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    let mut world = world(both, &[exited("a", 0, 137)]);
    world.sandbox = false;
    let status = world.status();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][1]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    // Before anything has begun there is no sandbox either.
    world.containers = vec![];
    assert_eq!(world.status()["phase"], "Pending");
}

#[test]
fn of_a_pod_that_was_refused_no_container_waits() {
    let mut world = world(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}), &[]);
    assert_eq!(world.status()["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let (reason, message) = (Some("OutOfcpu".to_owned()), Some("Pod was rejected: no".to_owned()));
    world.known.ending = Some(Ending { failed: true, reason, message, disrupted: false });
    let status = world.status();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("OutOfcpu")));
    assert_eq!(
        (&status["containerStatuses"], &status["initContainerStatuses"]),
        (&Value::Null, &Value::Null)
    );
}
