use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{AGE, Column, NAME, age, column, list, since, text_or, wide};

pub(crate) const POD: &[Column] = &[
    NAME,
    column("Ready"),
    column("Status"),
    column("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(crate) fn pod_cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = summarize(pod, now);
    let gates = match list(spec, "readinessGates").count() {
        0 => "<none>".to_owned(),
        all => {
            let met = list(spec, "readinessGates").filter(|gate| {
                list(status, "conditions")
                    .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
            });
            format!("{}/{all}", met.count())
        }
    };
    let ip = str_at(status, &["podIP"]).or_else(|| status["podIPs"][0]["ip"].as_str()).unwrap_or("<none>");
    vec![
        pod["metadata"]["name"].clone(),
        json!(summary.ready),
        json!(summary.reason),
        json!(summary.restarts),
        json!(age(pod, now)),
        json!(ip),
        json!(text_or(&spec["nodeName"], "<none>")),
        json!(text_or(&status["nominatedNodeName"], "<none>")),
        json!(gates),
    ]
}

struct Summary {
    ready: String,
    reason: String,
    restarts: String,
}

fn restarts_of(status: &Value) -> i64 {
    status["restartCount"].as_i64().unwrap_or(0)
}

/// The later of two RFC 3339 times in UTC with whole seconds, whose text order is their order in time.
fn later<'a>(a: Option<&'a str>, b: Option<&'a str>) -> Option<&'a str> {
    a.max(b)
}

fn last_finished(status: &Value) -> Option<&str> {
    str_at(status, &["lastState", "terminated", "finishedAt"])
}

/// One word for a pod's state (upstream: `printPod`).
fn summarize(pod: &Value, now: Timestamp) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecar = |name: &Value| {
        list(spec, "initContainers").any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
    };
    let mut total = list(spec, "containers").count();
    total += list(spec, "initContainers").filter(|c| c["restartPolicy"] == "Always").count();
    let mut ready = 0;
    let mut reason =
        str_at(status, &["reason"]).or(str_at(status, &["phase"])).unwrap_or_default().to_owned();
    let gated =
        list(status, "conditions").find(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated.is_some() {
        reason = "SchedulingGated".into();
    }
    let (mut restarts, mut last) = (0, None);
    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    let mut initializing = false;
    let init_total = list(spec, "initContainers").count();
    for (i, container) in list(status, "initContainerStatuses").enumerate() {
        restarts += restarts_of(container);
        last = later(last, last_finished(container));
        let is_sidecar = sidecar(&container["name"]);
        if is_sidecar {
            sidecar_restarts += restarts_of(container);
            sidecar_last = later(sidecar_last, last_finished(container));
        }
        if let Some(terminated) = at(container, &["state", "terminated"]) {
            if terminated["exitCode"] == 0 {
                continue;
            }
            reason = format!("Init:{}", termination(terminated));
        } else if is_sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        } else if let Some(waiting) =
            str_at(container, &["state", "waiting", "reason"]).filter(|r| *r != "PodInitializing")
        {
            reason = format!("Init:{waiting}");
        } else {
            reason = format!("Init:{i}/{init_total}");
        }
        initializing = true;
        break;
    }
    let initialized = list(status, "conditions").any(|c| c["type"] == "Initialized" && c["status"] == "True");
    if !initializing || initialized {
        restarts = sidecar_restarts;
        last = sidecar_last;
        let mut has_running = false;
        let statuses: Vec<&Value> = list(status, "containerStatuses").collect();
        for container in statuses.into_iter().rev() {
            restarts += restarts_of(container);
            last = later(last, last_finished(container));
            if let Some(waiting) = str_at(container, &["state", "waiting", "reason"]) {
                reason = waiting.to_owned();
            } else if let Some(terminated) = at(container, &["state", "terminated"]) {
                reason = termination(terminated);
            } else if container["ready"] == true && at(container, &["state", "running"]).is_some() {
                has_running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && has_running {
            let is_ready = list(status, "conditions").any(|c| c["type"] == "Ready" && c["status"] == "True");
            reason = if is_ready { "Running".into() } else { "NotReady".into() };
        }
    }
    if at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        if status["reason"] == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(str_at(status, &["phase"]), Some("Succeeded" | "Failed")) {
            reason = "Terminating".into();
        }
    }
    let restarts = match last {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", since(Some(last), now)),
        _ => restarts.to_string(),
    };
    Summary { ready: format!("{ready}/{total}"), reason, restarts }
}

fn termination(terminated: &Value) -> String {
    match (str_at(terminated, &["reason"]), terminated["signal"].as_i64().unwrap_or(0)) {
        (Some(reason), _) => reason.to_owned(),
        (None, 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        (None, signal) => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(pod: Value) -> (String, String, String) {
        let s = summarize(&pod, "2026-01-01T01:00:00Z".parse().unwrap());
        (s.ready, s.reason, s.restarts)
    }

    fn said(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.into(), b.into(), c.into())
    }

    #[test]
    fn says_why_a_pod_does_not_run() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Pending",
            "containerStatuses": [{"name": "a", "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}]}});
        assert_eq!(cells(pod), said("0/1", "ErrImagePull", "0"));
        let pod = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running",
            "containerStatuses": [{"name": "a", "restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}},
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        assert_eq!(cells(pod), said("0/1", "CrashLoopBackOff", "2 (60s ago)"));
    }

    #[test]
    fn counts_init_containers() {
        let pod = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "state": {"running": {}}}]}});
        assert_eq!(cells(pod), said("0/1", "Init:1/2", "0"));
    }
}
