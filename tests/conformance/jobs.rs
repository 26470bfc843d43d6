//! Jobs.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, count, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    pods_are_adopted_and_released: "Jobs, orphan pods, re-adoption";
    pods_go_with_their_job: "Jobs, active pods, graceful termination";
    tasks_may_fail_once: "Jobs, completion after task failure";
];

fn job(pod: &PodShape, policy: &str, parallelism: u32, completions: u32) -> Value {
    let mut template = pod.template("job");
    template["spec"]["restartPolicy"] = policy.into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"parallelism": parallelism, "completions": completions, "template": template},
    })
}

fn pods_are_adopted_and_released(t: &Trial) {
    t.create(&[job(&sleeps(), "Never", 2, 4)]);
    t.until_ready("job-name=work", 2);
    let owner = |pod: &str| t.get(&["pod", pod])["metadata"]["ownerReferences"].clone();
    let pod = t.names("pods", "job-name=work").remove(0);
    let before = owner(&pod);
    assert_eq!(before[0]["name"], "work");
    t.kubectl(&["patch", "pod", &pod, "--type=json", "-p", r#"[{"op":"remove","path":"/metadata/ownerReferences"}]"#]);
    t.until(&["pod", &pod], "to be adopted again", |pod| pod["metadata"]["ownerReferences"] == before);
    let labels = r#"[{"op":"replace","path":"/metadata/labels","value":{"mine":"yes"}}]"#;
    t.kubectl(&["patch", "pod", &pod, "--type=json", "-p", labels]);
    t.until(&["pod", &pod], "to be released", |pod| pod["metadata"]["ownerReferences"].is_null());
    t.kubectl(&["delete", "job/work", &format!("pod/{pod}")]);
}

fn pods_go_with_their_job(t: &Trial) {
    t.create(&[job(&sleeps(), "Never", 2, 4)]);
    t.until_ready("job-name=work", 2);
    assert_eq!(t.get(&["job", "work"])["status"]["active"], 2);
    t.kubectl(&["delete", "job", "work", "--timeout=60s"]);
    t.until(&["pods"], "to be gone", |list| count(list) == 0);
}

fn tasks_may_fail_once(t: &Trial) {
    // A container that runs again finds what the one before left in the pod.
    let script = "busybox test -f /v/tried && exit 0; echo > /v/tried; exit 1";
    t.create(&[job(&sh(script).volume("/v", json!({"emptyDir": {}})), "OnFailure", 2, 4)]);
    t.until(&["job", "work"], "to be complete", |job| job["status"]["succeeded"] == 4);
    t.kubectl(&["wait", "--for=condition=complete", "job/work", "--timeout=30s"]);
}
