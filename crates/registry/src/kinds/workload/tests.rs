use serde_json::{Value, json};
use types::FieldErrors;

use super::*;
use crate::kinds::refused;
use crate::strategy::Strategy;

fn spec(more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    for (k, v) in more.as_object().into_iter().flatten() {
        spec[k] = v.clone();
    }
    spec
}

#[test]
fn refusals() {
    let cases: Vec<(&dyn Strategy, Value, &[&str])> = vec![
        (&Deployment, json!({}), &[]),
        (
            &Deployment,
            json!({"selector": {"matchLabels": {"a": "c"}}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (&Deployment, json!({"selector": null}), &["spec.selector: Required value"]),
        (
            &Deployment,
            json!({"selector": {}}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            &Deployment,
            json!({"replicas": -1, "progressDeadlineSeconds": 5, "minReadySeconds": 5}),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
            ],
        ),
        (
            &Deployment,
            json!({"strategy": {"type": "Other"}}),
            &[
                "spec.strategy: Unsupported value: {\"type\":\"Other\"}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            &Deployment,
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
            &[
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        ),
        (
            &Deployment,
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        ),
        (
            &Deployment,
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": "150%"}}}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%",
            ],
        ),
        (
            &DaemonSet,
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        ),
        (
            &StatefulSet,
            json!({"podManagementPolicy": "Other"}),
            &["spec.podManagementPolicy: Invalid value: \"Other\": must be 'OrderedReady' or 'Parallel'"],
        ),
        (
            &StatefulSet,
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        ),
        (
            &ReplicationController,
            json!({"selector": {"a": "c"}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
    ];
    for (strategy, more, want) in cases {
        assert_eq!(refused(strategy, spec(more.clone())), want, "{more}");
    }
    let mut once = spec(json!({}));
    once["template"]["spec"]["restartPolicy"] = "Never".into();
    once["template"]["spec"]["activeDeadlineSeconds"] = 5.into();
    assert_eq!(
        refused(&ReplicaSet, once),
        [
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ]
    );
}

#[test]
fn a_stateful_set_mounts_its_claims() {
    let mut set = spec(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}));
    set["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/d"}]);
    assert!(refused(&StatefulSet, set.clone()).is_empty(), "{:?}", refused(&StatefulSet, set));
}

#[test]
fn selectors_stay() {
    let mut old = json!({"spec": spec(json!({}))});
    Deployment.default(&mut old);
    let mut new = old.clone();
    new["spec"]["selector"] = json!({"matchLabels": {"a": "b", "c": "d"}});
    new["spec"]["template"]["metadata"]["labels"]["c"] = "d".into();
    let mut errors = FieldErrors::new();
    Deployment.validate_update(&new, &old, &mut errors);
    assert_eq!(
        errors.to_string(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable"
    );
}
