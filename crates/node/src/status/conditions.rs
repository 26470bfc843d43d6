//! The pod's conditions (kubernetes/kubernetes, `pkg/kubelet/status/generate.go`).

use base::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::whole;

/// The conditions that the agent owns; others are left alone.
pub(crate) const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

pub(super) struct Facts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) old: &'a [core::PodCondition],
    pub(super) phase: &'a str,
    /// Init containers that are not through.
    pub(super) incomplete: &'a [&'a str],
    /// Containers that are not ready.
    pub(super) unready: Vec<&'a str>,
    pub(super) sandbox: bool,
    /// Why the node has ended the pod, if it has.
    pub(super) disruption: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// What says that the pod did not end by its own doing.
pub(crate) const DISRUPTED: &str = "DisruptionTarget";
/// The agent's own reason for it.
pub(crate) const BY_AGENT: &str = "TerminationByKubelet";

struct Verdict(bool, Option<&'static str>, Option<String>);

const GOOD: Verdict = Verdict(true, None, None);

pub(super) fn conditions(facts: &Facts<'_>) -> Vec<core::PodCondition> {
    let over = matches!(facts.phase, "Succeeded" | "Failed");
    let initialized = match facts.incomplete {
        [] => GOOD,
        _ if facts.phase == "Succeeded" => Verdict(true, Some("PodCompleted"), None),
        names => Verdict(
            false,
            Some("ContainersNotInitialized"),
            Some(format!("containers with incomplete status: [{}]", names.join(" "))),
        ),
    };
    let mut list = facts.old.to_vec();
    let mut set = |kind: &str, verdict: Verdict| set(&mut list, kind, verdict, facts);
    set("PodReadyToStartContainers", Verdict(facts.sandbox && !over, None, None));
    set("Initialized", initialized);
    set("Ready", ready(facts));
    set("ContainersReady", containers_ready(facts));
    set("PodScheduled", GOOD);
    if let Some(why) = facts.disruption {
        set(DISRUPTED, Verdict(true, Some(BY_AGENT), Some(why.to_owned())));
    }
    list
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    match facts.phase {
        "Succeeded" => Verdict(false, Some("PodCompleted"), None),
        "Failed" => Verdict(false, Some("PodFailed"), None),
        _ if facts.unready.is_empty() && facts.incomplete.is_empty() => GOOD,
        _ => {
            let why = format!("containers with unready status: [{}]", facts.unready.join(" "));
            Verdict(false, Some("ContainersNotReady"), Some(why))
        }
    }
}

/// Ready containers, and every readiness gate True.
fn ready(facts: &Facts<'_>) -> Verdict {
    let containers = containers_ready(facts);
    if !containers.0 {
        return containers;
    }
    let gates = facts.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let closed: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match facts.old.iter().find(|c| c.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if closed.is_empty() {
        GOOD
    } else {
        Verdict(false, Some("ReadinessGatesNotReady"), Some(closed.join(", ")))
    }
}

/// The time of the last transition changes only when the status does.
fn set(
    list: &mut Vec<core::PodCondition>,
    kind: &str,
    Verdict(holds, reason, message): Verdict,
    facts: &Facts<'_>,
) {
    let status = if holds { "True" } else { "False" };
    let mut new = core::PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        observed_generation: facts.pod.metadata.generation,
        last_transition_time: Some(Time(whole(facts.now))),
        ..Default::default()
    };
    match list.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => list.push(new),
    }
}
