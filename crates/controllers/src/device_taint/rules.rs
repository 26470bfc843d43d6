//! Taints that people lay upon devices by rules, where the server has such rules: their version is off unless
//! `--runtime-config` says otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::{Controller, Informer, Key, Next, PodView, Queue, is_deleting, is_served};
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::decide::{Eviction, Taint};
use super::{State, look_at_all};
use crate::error::{Attempt, Error};

/// The condition that says how far a rule has come.
const CONDITION: &str = "EvictionInProgress";
/// At most so often is it written.
const PERIOD: Duration = Duration::from_secs(10);

/// Follows the rules, if there are any to follow.
pub(super) fn start(state: Arc<State>, queue: Queue) {
    let drain = state.ctx.drain.clone();
    drain.clone().spawn_until_started(async move {
        if !is_served::<DeviceTaintRule>(&state.ctx.client()).await {
            return;
        }
        let rules = state.ctx.informers.of::<DeviceTaintRule>();
        let (claims, pods) = (state.claims.clone(), queue);
        let controller =
            Controller::new("device-taint-rules").watches_changes(&rules, move |change, queue| {
                look_at_all(&claims, &pods);
                queue.add(Key::of(&**change.object()));
            });
        // Who looks at a pod before that finds no rules, and is told to look again.
        let _ = state.rules.set(rules);
        let told = controller.run(drain, move |key| tell(state.clone(), key));
        told.await;
    });
}

impl State {
    fn all_rules(&self) -> Vec<Arc<DeviceTaintRule>> {
        self.rules.get().map(|rules: &Informer<DeviceTaintRule>| rules.store().list()).unwrap_or_default()
    }

    /// What the rules say of a device.
    pub(super) fn ruled(&self, driver: &str, pool: &str, device: &str) -> Vec<Taint> {
        let rules = self.all_rules().into_iter().filter(|rule| means(rule, driver, pool, device));
        rules.map(|rule| taint(&rule)).collect()
    }

    /// The pods that a rule wants to go, and their namespaces.
    fn pending(&self, rule: &DeviceTaintRule) -> (usize, usize) {
        let (mut count, mut namespaces) = (0, BTreeSet::new());
        let now = self.ctx.now();
        let uid = rule.uid().unwrap_or_default();
        let look = |pod: &PodView| {
            !is_deleting(&pod.metadata) && {
                let (eviction, causes) = self.eviction(pod, now, now);
                eviction != Eviction::Never && causes.contains(&uid)
            }
        };
        self.pods.store().for_each(|key, pod| {
            if pod.node_name.is_some() && look(pod) {
                count += 1;
                namespaces.insert(key.namespace().to_owned());
            }
        });
        (count, namespaces.len())
    }
}

/// Whether a rule is about a device; what it does not name does not matter.
fn means(rule: &DeviceTaintRule, driver: &str, pool: &str, device: &str) -> bool {
    let Some(selector) = &rule.spec.device_selector else { return true };
    let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    is(&selector.driver, driver) && is(&selector.pool, pool) && is(&selector.device, device)
}

fn taint(rule: &DeviceTaintRule) -> Taint {
    let taint = &rule.spec.taint;
    Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: taint.effect.clone(),
        added: taint.time_added.as_ref().map(|time| time.0),
        rule: rule.uid(),
    }
}

/// Says in a rule's status how far it has come (`maybeUpdateRuleStatus`).
async fn tell(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(rule) = state.rules.get().and_then(|rules| rules.get(&key)) else { return Ok(Next::Done) };
    let conditions = rule.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let before = conditions.into_iter().find(|c| c.type_ == CONDITION);
    let now = state.ctx.now();
    if let Some(before) = before.filter(|c| c.observed_generation == rule.metadata.generation) {
        let passed =
            Duration::try_from(now.duration_since(before.last_transition_time.0)).unwrap_or_default();
        if passed < PERIOD {
            return Ok(Next::After(PERIOD - passed));
        }
    }
    let (pods, namespaces) = state.pending(&rule);
    let evicted = state.evicted.lock().get(&rule.uid().unwrap_or_default()).copied().unwrap_or(0);
    let (status, reason, message) = words(&rule.spec.taint.effect, pods, namespaces, evicted);
    let same = before.is_some_and(|c| {
        c.status == status
            && c.reason == reason
            && c.message == message
            && c.observed_generation == rule.metadata.generation
    });
    if !same {
        let condition = Condition {
            type_: CONDITION.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: rule.metadata.generation,
            last_transition_time: Time(now),
        };
        let patch = json!({"apiVersion": DeviceTaintRule::api_version(&()), "kind": DeviceTaintRule::kind(&()),
            "metadata": {"uid": rule.metadata.uid}, "status": {"conditions": [condition]}});
        let api: Api<DeviceTaintRule> = Api::all(state.ctx.client());
        let params = PatchParams::apply("device-taint-eviction-controller").force();
        let written = api.patch_status(key.name(), &params, &Patch::Apply(patch)).await;
        written.attempt(|| format!("add a condition to DeviceTaintRule {key}"))?;
    }
    Ok(if pods > 0 { Next::After(PERIOD) } else { Next::Done })
}

fn words(effect: &str, pods: usize, namespaces: usize, evicted: u64) -> (&'static str, &'static str, String) {
    let places = match namespaces {
        1 => "1 namespace.".to_owned(),
        n => format!("{n} different namespaces."),
    };
    let (status, reason, mut message) = match effect {
        "NoExecute" if pods == 1 => {
            ("True", "PodsPendingEviction", format!("1 pod needs to be evicted in {places}"))
        }
        "NoExecute" if pods > 0 => {
            ("True", "PodsPendingEviction", format!("{pods} pods need to be evicted in {places}"))
        }
        "NoExecute" if evicted > 0 => ("False", "Completed", String::new()),
        "NoExecute" => ("False", "NotStarted", String::new()),
        "None" => ("False", "NoEffect", String::new()),
        _ => ("False", "OtherEffect", "Eviction only happens for the NoExecute effect.".to_owned()),
    };
    if evicted > 0 {
        let who = if evicted == 1 { "1 pod".to_owned() } else { format!("{evicted} pods") };
        let gap = if message.is_empty() { "" } else { " " };
        message += &format!("{gap}{who} evicted since starting the controller.");
    }
    (status, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_what_it_names() {
        let rule = |selector: serde_json::Value| -> DeviceTaintRule {
            testkit::object(json!({"metadata": {"name": "r"}, "spec": {"deviceSelector": selector,
                "taint": {"key": "k", "effect": "NoExecute"}}}))
        };
        assert!(means(&rule(json!({"driver": "d", "pool": "p"})), "d", "p", "x"));
        assert!(!means(&rule(json!({"driver": "d", "device": "y"})), "d", "p", "x"));
        assert!(means(&rule(json!({})), "d", "p", "x"));
        let (status, reason, message) = words("NoExecute", 2, 1, 1);
        assert_eq!((status, reason), ("True", "PodsPendingEviction"));
        assert_eq!(
            message,
            "2 pods need to be evicted in 1 namespace. 1 pod evicted since starting the controller."
        );
    }
}
