use std::sync::Arc;

use admission::{Cluster, Objects, Operation, Swap};
use http::{Response, StatusCode};
use registry::set_condition;
use serde_json::{Value, json};
use types::{Cause, LabelSelector, Reason, Status, at, ensure_object, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::verbs::{self, Deletion};
use crate::{admit, body, object};

const BUDGETS: &str = "poddisruptionbudgets.policy";
/// More pods than this that were to go and are still there mean that nobody looks after the budget.
const MOST_DISRUPTED: usize = 2_000;
/// What the condition `DisruptionTarget` of an evicted pod says: reason and message.
const EVICTED: (&str, &str) = ("EvictionByEvictionAPI", "Eviction API: evicting");
/// When a client may ask again about a budget that is being worked on, in seconds.
const ASK_AGAIN: u32 = 10;

/// Deletes a pod if the budget that covers it allows one more disruption, and takes that from the budget first, so
/// that no two evictions share it (kubernetes/kubernetes, `pkg/registry/core/pod/storage/eviction.go`,
/// `EvictionREST.Create`).
pub(super) async fn evict(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let sub = r.def.subresources.get("eviction").ok_or_else(Status::no_such_resource)?;
    let mut eviction = body::read_as(&r.registry, http, &sub.kind).await?;
    if object::name(&eviction) != r.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let request = admit::subresource(&r, &user, Operation::Create);
    server.pass(&request, Some(&mut eviction), None).await?;
    let asked = Deletion { passed: true, ..Deletion::read(&eviction["deleteOptions"], &r.query)? };
    loop {
        let pod = server.get(&r.def.table, &r.namespace, &r.name).ok_or_else(|| r.not_found())?;
        let leave = leave(server, &r.namespace, &pod, asked.dry_run).await?;
        let mut deletion = asked.clone();
        let guarded = leave.only_as_it_is() && asked.resource_version.is_none();
        if guarded {
            deletion.resource_version = str_at(&pod, &["metadata", "resourceVersion"]).map(str::to_owned);
        }
        deletion.disruption = (leave != Leave::Gone).then_some(EVICTED);
        match verbs::delete_object(server, &r.def, &user, &r.namespace, &r.name, &deletion).await {
            Ok(_) => break,
            // It has changed since its state was looked at.
            Err(status) if guarded && status.code == 409 => match leave {
                Leave::Unready(budget) => return Err(in_work(&budget)),
                _ => continue,
            },
            Err(status) => return Err(status),
        }
    }
    let success = Status { details: None, ..Status::success("", "", "", "") };
    Ok(respond::json(StatusCode::CREATED, success.to_json()))
}

/// Why a pod may be evicted.
#[derive(Debug, PartialEq, Eq)]
enum Leave {
    /// It is at its end, or on its way out.
    Gone,
    /// It does not run yet.
    Pending,
    /// It is not ready, and the budget of that name does not mind.
    Unready(String),
    /// No budget covers it, or one has paid for it.
    Granted,
}

impl Leave {
    /// Whether it holds for the pod only as it was seen.
    fn only_as_it_is(&self) -> bool {
        matches!(self, Self::Pending | Self::Unready(_))
    }
}

async fn leave(server: &Inner, namespace: &str, pod: &Value, dry_run: bool) -> Result<Leave, Status> {
    let phase = str_at(pod, &["status", "phase"]);
    if matches!(phase, Some("Succeeded" | "Failed")) || !pod["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Leave::Gone);
    }
    if phase.is_none_or(|phase| phase == "Pending") {
        return Ok(Leave::Pending);
    }
    let mut budgets = server.list_in(BUDGETS, namespace);
    budgets.retain(|budget| covers(budget, pod));
    if budgets.len() > 1 {
        return Err(Status::new(
            Reason::InternalError,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let Some(mut budget) = budgets.pop() else { return Ok(Leave::Granted) };
    if !is_ready(pod) {
        let status = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
        let healthy = status("currentHealthy") >= status("desiredHealthy") && status("desiredHealthy") > 0;
        if healthy || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
            return Ok(Leave::Unready(object::name(&budget).to_owned()));
        }
    }
    let name = object::name(&budget).to_owned();
    loop {
        let paid = pay(&budget, object::name(pod), &server.timestamp())?;
        if dry_run {
            return Ok(Leave::Granted);
        }
        // Whoever loses this race looks again at what the winner left.
        if let Swap::Done = server.swap(BUDGETS, &budget, paid).await? {
            return Ok(Leave::Granted);
        }
        let Some(fresh) = server.get(BUDGETS, namespace, &name) else { return Ok(Leave::Granted) };
        budget = fresh;
    }
}

/// Whether a budget is about the pod. One without a selector is about none.
fn covers(budget: &Value, pod: &Value) -> bool {
    LabelSelector::from_object(budget["spec"].get("selector"))
        .is_ok_and(|s| s.matches_labels(at(pod, &["metadata", "labels"])))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The budget after one more disruption, if it allows one.
fn pay(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let name = object::name(budget);
    let status = &budget["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(in_work(name));
    }
    let refused = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return refused("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return refused("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(too_many(why_not(budget), 0));
    }
    let mut paid = budget.clone();
    ensure_object(&mut paid, "status")["disruptionsAllowed"] = json!(allowed - 1);
    if allowed == 1 {
        set_condition(&mut paid, "DisruptionAllowed", false, "InsufficientPods", "", now);
    }
    // The controller counts the pod as gone from now on, whether it has seen it go or not.
    ensure_object(&mut paid["status"], "disruptedPods")[pod] = now.into();
    Ok(paid)
}

/// Why a budget allows nothing.
fn why_not(budget: &Value) -> String {
    let (name, status) = (object::name(budget), &budget["status"]);
    let (desired, current) =
        ["desiredHealthy", "currentHealthy"].map(|f| status[f].as_i64().unwrap_or(0)).into();
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let said =
        conditions.filter(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False").find_map(|c| {
            Some((c["reason"].as_str()?, c["message"].as_str().filter(|message| !message.is_empty())?))
        });
    let not_currently = format!("The disruption budget {name} does not allow evicting pods currently");
    match said {
        // What was counted before it failed is not to be trusted.
        Some(("SyncFailed", why)) => format!("{not_currently} because it failed sync: {why}"),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, why)) => format!("{not_currently} ({reason}): {why}"),
        None => not_currently,
    }
}

fn in_work(budget: &str) -> Status {
    too_many(format!("The disruption budget {budget} is still being processed by the server."), ASK_AGAIN)
}

fn too_many(why: String, retry_after_seconds: u32) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut refused = Status::new(Reason::TooManyRequests, message);
    let details = refused.details.get_or_insert_default();
    details.retry_after_seconds = retry_after_seconds;
    details.causes = vec![Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() }];
    refused
}
