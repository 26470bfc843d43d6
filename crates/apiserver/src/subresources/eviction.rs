use std::sync::Arc;

use admission::{Objects, Operation};
use http::{Response, StatusCode};
use serde_json::Value;
use types::{Cause, LabelSelector, Reason, Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::verbs::{self, Deletion};
use crate::{admit, body, object};

/// Deletes a pod if the budgets that cover it allow one more disruption (kubernetes/kubernetes,
/// `pkg/registry/core/pod/storage/eviction.go`).
pub(super) async fn evict(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let sub = r.def.subresources.get("eviction").ok_or_else(Status::no_such_resource)?;
    let mut eviction = body::read_as(&r.registry, http, &sub.kind).await?;
    let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
    let pod = object::decode(&r.def, &record.value)?;
    let request = admit::subresource(&r, &user, Operation::Create);
    server.pass(&request, Some(&mut eviction), None).await?;
    let over = matches!(str_at(&pod, &["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"));
    let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
    if !over && !leaving {
        check_budgets(server, &r.namespace, &pod)?;
    }
    let options = &eviction["deleteOptions"];
    let deletion = Deletion {
        grace_seconds: at(options, &["gracePeriodSeconds"]).and_then(Value::as_i64),
        uid: str_at(options, &["preconditions", "uid"]).map(str::to_owned),
        resource_version: str_at(options, &["preconditions", "resourceVersion"]).map(str::to_owned),
        dry_run: r.query.dry_run,
        passed: true,
        ..Deletion::default()
    };
    verbs::delete_object(server, &r.def, &user, &r.namespace, &r.name, &deletion).await?;
    let success = Status { details: None, ..Status::success("", "", "", "") };
    Ok(respond::json(StatusCode::CREATED, success.to_json()))
}

fn check_budgets(server: &Inner, namespace: &str, pod: &Value) -> Result<(), Status> {
    let covers = |budget: &Value| {
        budget["metadata"]["namespace"] == namespace
            && LabelSelector::from_object(budget["spec"].get("selector"))
                .is_ok_and(|s| s.matches_labels(at(pod, &["metadata", "labels"])))
    };
    for budget in server.list("poddisruptionbudgets.policy").iter().filter(|b| covers(b)) {
        let status = &budget["status"];
        if status["disruptionsAllowed"].as_i64().unwrap_or(0) > 0 {
            continue;
        }
        let name = object::name(budget);
        let mut refused = Status::new(
            Reason::TooManyRequests,
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        refused.details.get_or_insert_default().causes = vec![Cause {
            reason: "DisruptionBudget".into(),
            message: format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status["desiredHealthy"].as_i64().unwrap_or(0),
                status["currentHealthy"].as_i64().unwrap_or(0)
            ),
            field: String::new(),
        }];
        return Err(refused);
    }
    Ok(())
}
