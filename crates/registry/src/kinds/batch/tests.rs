use serde_json::{Value, json};
use types::FieldErrors;

use super::*;
use crate::strategy::Strategy;

fn refused(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
    let mut object = json!({"metadata": {"name": "a", "uid": "u"}, "spec": spec});
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);
    let mut errors = FieldErrors::new();
    strategy.validate_create(&object, &mut errors);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

fn job(more: Value) -> Value {
    let mut spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    for (k, v) in more.as_object().into_iter().flatten() {
        spec[k] = v.clone();
    }
    spec
}

#[test]
fn jobs() {
    for (more, want) in [
        (json!({}), vec![]),
        (
            json!({"parallelism": -1}),
            vec!["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            json!({"completionMode": "Odd"}),
            vec![
                "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 2}),
            vec!["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            json!({"backoffLimitPerIndex": 1}),
            vec!["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            json!({"maxFailedIndexes": 1, "completionMode": "Indexed", "completions": 3}),
            vec!["spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"],
        ),
        (
            json!({"managedBy": "me"}),
            vec![
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        ),
        (
            json!({"successPolicy": {"rules": []}}),
            vec!["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "0-5"}]}}),
            vec![
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-5\": error parsing succeededIndexes: too large index: \"5\"",
            ],
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "Ignore"}]}}),
            vec![
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0, 0]}}]}}),
            vec![
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Duplicate value: 0",
            ],
        ),
    ] {
        assert_eq!(refused(&Job, job(more.clone())), want, "{more}");
    }
    let mut always = job(json!({}));
    always["template"]["spec"]["restartPolicy"] = "Always".into();
    assert_eq!(
        refused(&Job, always),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
}

#[test]
fn a_suspended_job_may_go_elsewhere() {
    let made = |suspend: bool| {
        let mut job =
            json!({"metadata": {"name": "a", "uid": "u"}, "spec": job(json!({"suspend": suspend}))});
        Job.default(&mut job);
        Job.prepare_create(&mut job);
        job
    };
    for (suspend, field, value, fine) in [
        (true, "nodeSelector", json!({"a": "b"}), true),
        (true, "priority", json!(1), false),
        (false, "nodeSelector", json!({"a": "b"}), false),
    ] {
        let (old, mut new) = (made(suspend), made(suspend));
        new["spec"]["template"]["spec"][field] = value;
        let mut errors = FieldErrors::new();
        Job.validate_update(&new, &old, &mut errors);
        assert_eq!(errors.is_empty(), fine, "{suspend} {field}: {errors}");
    }
}

#[test]
fn cron_jobs() {
    let cron = |more: Value| {
        let mut spec = json!({"schedule": "* * * * *", "jobTemplate": {"spec": job(json!({}))}});
        for (k, v) in more.as_object().into_iter().flatten() {
            spec[k] = v.clone();
        }
        refused(&CronJob, spec)
    };
    for (more, want) in [
        (json!({}), vec![]),
        (json!({"timeZone": "Europe/Berlin"}), vec![]),
        (
            json!({"timeZone": "Europe/Atlantis"}),
            vec!["spec.timeZone: Invalid value: \"Europe/Atlantis\": unknown time zone Europe/Atlantis"],
        ),
        (
            json!({"timeZone": ""}),
            vec!["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
        ),
        (
            json!({"schedule": "* * *"}),
            vec!["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"],
        ),
        (
            json!({"schedule": "TZ=UTC * * * * *"}),
            vec![
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        ),
        (
            json!({"concurrencyPolicy": "Odd"}),
            vec![
                "spec.concurrencyPolicy: Unsupported value: \"Odd\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        ),
        (
            json!({"startingDeadlineSeconds": -1}),
            vec!["spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ] {
        assert_eq!(cron(more.clone()), want, "{more}");
    }
}
