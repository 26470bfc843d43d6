use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:10:00Z";

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn exited(name: &str, attempt: u32, code: i32, finished: &str) -> ContainerStatus {
    let at: Timestamp = finished.parse().unwrap();
    let exit = Exit { code, signal: None, oom_killed: false, started_at: at, finished_at: at, lost: None };
    status(name, attempt, ContainerState::Exited(exit))
}

fn running(name: &str) -> ContainerStatus {
    status(name, 0, ContainerState::Running { pid: 1, started_at: NOW.parse().unwrap() })
}

fn status(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}-{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        created_at: NOW.parse().unwrap(),
        state,
        image: "i".into(),
        labels: Default::default(),
        log_path: None,
    }
}

fn start(container: &str, attempt: u32) -> Action {
    Action::Start { container: container.into(), attempt, streak: attempt }
}

const LONGEST: Duration = Duration::from_secs(300);

fn with(pod: &Pod, sandbox: bool, containers: &[ContainerStatus], healths: &Healths) -> Plan {
    let (replaced, now) = (&HashSet::new(), NOW.parse().unwrap());
    plan(pod, &View { sandbox, held: false, containers, healths, replaced, now, longest: LONGEST })
}

fn planned(spec: Value, containers: &[ContainerStatus]) -> Plan {
    with(&pod(spec), true, containers, &Healths::new())
}

#[test]
fn init_containers_come_first_and_in_order() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(
        with(&pod(spec.clone()), false, &[], &Healths::new()).actions,
        [Action::StartSandbox, start("i", 0)]
    );
    assert_eq!(planned(spec.clone(), &[running("i")]).actions, []);
    let done = |name: &str| exited(name, 0, 0, NOW);
    assert_eq!(planned(spec.clone(), &[done("i")]).actions, [start("j", 0)]);
    assert_eq!(planned(spec.clone(), &[done("i"), done("j")]).actions, [start("a", 0), start("b", 0)]);
    assert_eq!(planned(spec, &[exited("i", 0, 1, NOW)]).actions, [start("i", 1)]);
}

#[test]
fn exits_may_have_rules_of_their_own() {
    let spec = |action: &str| {
        let codes = json!({"operator": "In", "values": [42]});
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "b"},
            {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": codes}]}]})
    };
    let with_code =
        |action: &str, code| planned(spec(action), &[running("b"), exited("a", 0, code, NOW)]).actions;
    assert_eq!(with_code("Restart", 42), [start("a", 1)]);
    assert_eq!((with_code("Restart", 1), with_code("Restart", 0)), (vec![], vec![]));
    let all = Action::RestartAll { container: "a".into() };
    assert_eq!(with_code("RestartAllContainers", 42), [all]);
    assert_eq!(with_code("RestartAllContainers", 0), []);
}

#[test]
fn a_sidecar_runs_beside() {
    let spec =
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    assert_eq!(planned(spec.clone(), &[running("s")]).actions, [start("a", 0)]);
    assert_eq!(planned(spec, &[exited("s", 0, 0, NOW)]).actions, [start("s", 1)]);
}

#[test]
fn an_ephemeral_container_begins_once_whatever_the_others_do() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "d"}]});
    assert_eq!(planned(spec.clone(), &[running("i")]).actions, [start("d", 0)]);
    assert_eq!(planned(spec.clone(), &[running("a")]).actions, [start("d", 0)]);
    for code in [0, 1] {
        assert_eq!(planned(spec.clone(), &[running("a"), exited("d", 0, code, NOW)]).actions, []);
    }
    assert_eq!(
        with(&pod(spec.clone()), false, &[], &Healths::new()).actions,
        [Action::StartSandbox, start("i", 0)]
    );
    // Neither does it after its sandbox was lost.
    let mut lost = pod(spec);
    let statuses = json!({"ephemeralContainerStatuses": [{"name": "d", "containerID": "x", "image": "",
        "imageID": "", "ready": false, "restartCount": 0}]});
    lost.status = Some(serde_json::from_value(statuses).unwrap());
    assert_eq!(with(&lost, true, &[running("a")], &Healths::new()).actions, []);
}

#[test]
fn an_ephemeral_container_does_not_hold_the_end_up() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d"}, {"name": "e"}]});
    let actions = planned(spec, &[running("s"), running("d"), exited("a", 0, 0, NOW)]).actions;
    assert!(matches!(&actions[..], [Action::Kill { container, .. }] if container == "s"), "{actions:?}");
}

#[test]
fn restarts_wait_longer_each_time() {
    let always = json!({"containers": [{"name": "a"}]});
    assert_eq!(planned(always.clone(), &[exited("a", 0, 0, NOW)]).actions, [start("a", 1)]);
    let waiting = planned(always.clone(), &[exited("a", 2, 1, "2026-01-01T00:09:55Z")]);
    assert_eq!((waiting.actions.len(), waiting.again), (0, Some(Duration::from_secs(15))));
    assert_eq!(planned(always, &[exited("a", 2, 1, "2026-01-01T00:09:00Z")]).actions, [start("a", 3)]);
    let once = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
    assert_eq!(planned(once, &[exited("a", 0, 1, NOW)]), Plan::default());
    let on_failure = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]});
    assert_eq!(planned(on_failure.clone(), &[exited("a", 0, 0, NOW)]), Plan::default());
    assert_eq!(planned(on_failure, &[exited("a", 0, 2, NOW)]).actions, [start("a", 1)]);
}

#[test]
fn delays_double_and_are_forgotten_after_a_good_run() {
    let wait = |attempt, streak: Option<u32>, began: &str| {
        let mut run = exited("a", attempt, 1, NOW);
        let ContainerState::Exited(exit) = &mut run.state else { panic!() };
        exit.started_at = began.parse().unwrap();
        let exit = exit.clone();
        run.labels.extend(streak.map(|s| (STREAK.to_owned(), s.to_string())));
        (backoff(&run, &exit, LONGEST).as_secs(), backoff(&run, &exit, LONGEST / 10).as_secs())
    };
    let (waits, short): (Vec<u64>, Vec<u64>) = (0..8).map(|n| wait(n, None, NOW)).unzip();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(short, [0, 10, 20, 30, 30, 30, 30, 30], "as long as the node's settings allow");
    assert_eq!(wait(20, Some(2), NOW).0, 20);
    assert_eq!(wait(20, None, "2026-01-01T00:00:00Z").0, 0);
    let spec = json!({"containers": [{"name": "a"}]});
    let mut long = exited("a", 7, 1, NOW);
    let ContainerState::Exited(exit) = &mut long.state else { panic!() };
    exit.started_at = "2026-01-01T00:00:00Z".parse().unwrap();
    let again = Action::Start { container: "a".into(), attempt: 8, streak: 1 };
    assert_eq!(planned(spec, &[long]).actions, [again]);
}

#[test]
fn a_failed_probe_replaces_the_container() {
    let spec = json!({"terminationGracePeriodSeconds": 7,
        "containers": [{"name": "a", "livenessProbe": {}, "startupProbe": {"terminationGracePeriodSeconds": 3}}]});
    let after = |spec: &Value, health: Health| {
        with(&pod(spec.clone()), true, &[running("a")], &[("a-0".to_owned(), health)].into()).actions
    };
    let well = Health { started: Some(true), live: Some(true), ready: Some(false) };
    assert_eq!(after(&spec, well), []);
    let kill = |message: &str, grace| {
        [Action::Kill { id: "a-0".into(), container: "a".into(), message: message.into(), grace }]
    };
    let dead = Health { live: Some(false), ..well };
    assert_eq!(after(&spec, dead), kill("Container a failed liveness probe, will be restarted", 7));
    let stuck = Health { started: Some(false), ..well };
    assert_eq!(after(&spec, stuck), kill("Container a failed startup probe, will be restarted", 3));
    let mut never = spec;
    never["restartPolicy"] = "Never".into();
    assert_eq!(after(&never, dead), kill("Container a failed liveness probe", 7));
}

#[test]
fn a_replaced_container_restarts_whatever_it_returned() {
    let pod = pod(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}));
    let containers = [exited("a", 0, 0, NOW)];
    let replaced = HashSet::from(["a-0".to_owned()]);
    let healths = Healths::new();
    let view = View {
        sandbox: true,
        held: true,
        containers: &containers,
        healths: &healths,
        replaced: &replaced,
        now: NOW.parse().unwrap(),
        longest: LONGEST,
    };
    assert_eq!(plan(&pod, &view).actions, [start("a", 1)]);
}

#[test]
fn what_ran_in_a_lost_sandbox_does_not_run_twice() {
    let with = |policy: &str, containers: &[ContainerStatus]| {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
        with(&pod, false, containers, &Healths::new()).actions
    };
    // Nobody knows yet how it has ended, and the API not even that it has begun.
    assert_eq!(with("Never", &[running("a")]), []);
    assert_eq!(with("Never", &[exited("a", 0, 137, NOW)]), []);
    let anew = [Action::StartSandbox, start("a", 0), start("b", 0)];
    assert_eq!((with("Never", &[]), with("OnFailure", &[running("a")])), (anew.to_vec(), anew.to_vec()));
}

#[test]
fn a_clock_that_steps_holds_nothing_back() {
    let spec = json!({"containers": [{"name": "a"}]});
    let again = |finished: &str| planned(spec.clone(), &[exited("a", 1, 1, finished)]);
    let (soon, late) = (again("2026-01-01T00:09:58Z"), again("2026-01-01T00:10:02Z"));
    assert_eq!((soon.actions, soon.again), (vec![], Some(Duration::from_secs(8))));
    // Clocks may differ a little.
    assert_eq!((late.actions, late.again), (vec![], Some(Duration::from_secs(10))));
    // It was set back, or forward, by hours.
    for finished in ["2026-01-01T05:10:00Z", "2025-12-31T19:10:00Z"] {
        assert_eq!(again(finished).actions, [start("a", 2)], "{finished}");
    }
}

#[test]
fn a_pod_that_is_over_gives_back_what_a_lost_sandbox_left() {
    let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    let (healths, replaced) = (Healths::new(), HashSet::new());
    let now = NOW.parse().unwrap();
    let with = |held| {
        let (healths, replaced) = (&healths, &replaced);
        let view = View { sandbox: false, held, containers: &[], healths, replaced, now, longest: LONGEST };
        plan(&pod, &view).actions
    };
    assert_eq!((with(true), with(false)), (vec![Action::StopSandbox], vec![]));
}

#[test]
fn sidecars_end_when_all_else_has() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [
        {"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    let actions = planned(spec, &[running("s"), running("t"), exited("a", 0, 0, NOW)]).actions;
    let names: Vec<&str> = actions
        .iter()
        .filter_map(|a| if let Action::Kill { container, .. } = a { Some(container.as_str()) } else { None })
        .collect();
    assert_eq!(names, ["t", "s"]);
}

#[test]
fn a_pod_has_its_time() {
    let mut pod = pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a"}]}));
    let began = |at: &str| serde_json::from_value(json!({"startTime": at})).unwrap();
    pod.status = Some(began("2026-01-01T00:09:30Z"));
    let early = with(&pod, true, &[running("a")], &Healths::new());
    assert_eq!((early.actions, early.again), (vec![], Some(Duration::from_secs(30))));
    pod.status = Some(began("2026-01-01T00:09:00Z"));
    assert_eq!(with(&pod, true, &[running("a")], &Healths::new()).actions, [Action::Expire]);
    pod.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    assert_eq!(with(&pod, true, &[], &Healths::new()).actions, [Action::StopSandbox]);
}

#[test]
fn a_deleted_pod_ends() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap()));
    pod.metadata.deletion_grace_period_seconds = Some(5);
    let plan = with(&pod, true, &[running("a")], &Healths::new());
    assert_eq!(plan.actions, [Action::Terminate { grace: 5 }]);
}
