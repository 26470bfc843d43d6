use jiff::Timestamp;
use serde_json::{Value, json};
use types::{at, str_at};

use super::{
    AGE, Column, NAME, age, column, containers_and_images, human_duration, list, name, number, selector_text,
    since, text_or, wide,
};

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Containers, images and selector, for `-o wide`.
fn template_cells(object: &Value) -> [Value; 3] {
    let (containers, images) = containers_and_images(&object["spec"]["template"]["spec"]);
    [json!(containers), json!(images), json!(selector_text(&object["spec"]["selector"]))]
}

pub(crate) const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready"),
    number("Up-to-date"),
    number("Available"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn deployment_cells(d: &Value, now: Timestamp) -> Vec<Value> {
    let status = &d["status"];
    let mut cells = vec![
        name(d),
        json!(format!("{}/{}", count(&status["readyReplicas"]), count(&d["spec"]["replicas"]))),
        json!(count(&status["updatedReplicas"])),
        json!(count(&status["availableReplicas"])),
        json!(age(d, now)),
    ];
    cells.extend(template_cells(d));
    cells
}

pub(crate) const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn replica_set_cells(rs: &Value, now: Timestamp) -> Vec<Value> {
    let status = &rs["status"];
    let mut cells = vec![
        name(rs),
        json!(count(&rs["spec"]["replicas"])),
        json!(count(&status["replicas"])),
        json!(count(&status["readyReplicas"])),
        json!(age(rs, now)),
    ];
    cells.extend(template_cells(rs));
    cells
}

/// Its selector is a plain map.
pub(crate) fn replication_controller_cells(rc: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_set_cells(rc, now);
    if let Some(selector) = cells.last_mut() {
        *selector = json!(super::map_text(&rc["spec"]["selector"]));
    }
    cells
}

pub(crate) const STATEFUL_SET: &[Column] = &[NAME, column("Ready"), AGE, wide("Containers"), wide("Images")];

pub(crate) fn stateful_set_cells(s: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", count(&s["status"]["readyReplicas"]), count(&s["spec"]["replicas"]));
    let [containers, images, _] = template_cells(s);
    vec![name(s), json!(ready), json!(age(s, now)), containers, images]
}

pub(crate) const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    column("Node Selector"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn daemon_set_cells(d: &Value, now: Timestamp) -> Vec<Value> {
    let status = &d["status"];
    let mut cells = vec![name(d)];
    for field in [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ] {
        cells.push(json!(count(&status[field])));
    }
    cells.push(json!(super::map_text(&d["spec"]["template"]["spec"]["nodeSelector"])));
    cells.push(json!(age(d, now)));
    cells.extend(template_cells(d));
    cells
}

pub(crate) const CONTROLLER_REVISION: &[Column] = &[NAME, column("Controller"), number("Revision"), AGE];

pub(crate) fn controller_revision_cells(r: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(&r["metadata"], "ownerReferences").find(|o| o["controller"] == true);
    let owner = owner.map_or("<none>".to_owned(), |o| {
        let group = o["apiVersion"].as_str().unwrap_or_default().split_once('/').map_or("", |(g, _)| g);
        let kind = o["kind"].as_str().unwrap_or_default().to_lowercase();
        format!("{kind}.{group}/{}", o["name"].as_str().unwrap_or_default())
    });
    vec![name(r), json!(owner), r["revision"].clone(), json!(age(r, now))]
}

pub(crate) const JOB: &[Column] = &[
    NAME,
    column("Status"),
    column("Completions"),
    column("Duration"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn job_cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let holds = |kind: &str| list(status, "conditions").any(|c| c["type"] == kind && c["status"] == "True");
    let state = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if at(job, &["metadata", "deletionTimestamp"]).is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let done = count(&status["succeeded"]);
    let completions = match spec["completions"].as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None if count(&spec["parallelism"]) > 1 => format!("{done}/1 of {}", count(&spec["parallelism"])),
        None => format!("{done}/1"),
    };
    let time = |field: &str| str_at(status, &[field]).and_then(|t| t.parse::<Timestamp>().ok());
    let duration = match (time("startTime"), time("completionTime")) {
        (Some(start), Some(end)) => human_duration(end.as_second() - start.as_second()),
        (Some(start), None) => human_duration(now.as_second() - start.as_second()),
        _ => String::new(),
    };
    let mut cells = vec![name(job), json!(state), json!(completions), json!(duration), json!(age(job, now))];
    cells.extend(template_cells(job));
    cells
}

pub(crate) const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule"),
    column("Timezone"),
    column("Suspend"),
    number("Active"),
    column("Last Schedule"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn cron_job_cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &job["spec"];
    let last = match str_at(&job["status"], &["lastScheduleTime"]) {
        Some(time) => since(Some(time), now),
        None => "<none>".into(),
    };
    let (containers, images) = containers_and_images(&spec["jobTemplate"]["spec"]["template"]["spec"]);
    vec![
        name(job),
        spec["schedule"].clone(),
        json!(text_or(&spec["timeZone"], "<none>")),
        json!(if spec["suspend"] == true { "True" } else { "False" }),
        json!(list(&job["status"], "active").count()),
        json!(last),
        json!(age(job, now)),
        json!(containers),
        json!(images),
        json!(selector_text(&spec["jobTemplate"]["spec"]["selector"])),
    ]
}
