use registry::ResourceDef;
use serde_json::Value;
use types::{LabelSelector, at, str_at};

use super::read::{Binding, Policy};
use crate::matching::{Hit, World};
use crate::request::Request;

/// One policy that a request has to face: bound, and with one of its parameters.
pub(super) struct Invocation<'p> {
    pub(super) policy: &'p Policy,
    pub(super) binding: &'p Binding,
    pub(super) hit: Hit,
    pub(super) params: Option<Value>,
}

/// A policy that could not be applied.
pub(super) struct Fault<'p> {
    pub(super) policy: &'p Policy,
    pub(super) binding: Option<&'p Binding>,
    pub(super) message: String,
}

/// Everything that a request has to face (upstream: `plugin/policy/generic/policy_dispatcher.go`, `Dispatch`).
pub(super) async fn invocations<'p>(
    policies: &'p [Policy],
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    world: &World<'_>,
) -> (Vec<Invocation<'p>>, Vec<Fault<'p>>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for policy in policies {
        let outcome = match &policy.matches {
            Ok(matches) => matches.find(request, object, old, world).map_err(|status| status.message),
            Err(why) => Err(why.clone()),
        };
        let hit = match outcome {
            Ok(Some(hit)) => hit,
            Ok(None) => continue,
            Err(why) => {
                let message = format!("failed to configure policy: {why}");
                faults.push(Fault { policy, binding: None, message });
                continue;
            }
        };
        for binding in &policy.bindings {
            let bound = match &binding.matches {
                None => Ok(true),
                Some(Ok(matches)) => {
                    matches.find(request, object, old, world).map(|hit| hit.is_some()).map_err(|s| s.message)
                }
                Some(Err(why)) => Err(why.clone()),
            };
            let params = match bound {
                Ok(false) => continue,
                Ok(true) => collect(policy, binding, request, world).await,
                Err(why) => Err(why),
            };
            match params {
                Ok(params) => found.extend(params.into_iter().map(|params| Invocation {
                    policy,
                    binding,
                    hit: hit.clone(),
                    params,
                })),
                Err(why) => {
                    let message = format!("failed to configure binding: {why}");
                    faults.push(Fault { policy, binding: Some(binding), message });
                }
            }
        }
    }
    (found, faults)
}

/// The parameters of a binding; one that is nothing, if it has none (`CollectParams`).
async fn collect(
    policy: &Policy,
    binding: &Binding,
    request: &Request<'_>,
    world: &World<'_>,
) -> Result<Vec<Option<Value>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![None]) };
    let param = &binding.param_ref;
    if param.is_null() {
        return Ok(vec![None]);
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let Some(def) = request.registry.find_kind(group, Some(version), kind) else {
        return Err(format!(
            "paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"
        ));
    };
    let asked = str_at(param, &["namespace"]).unwrap_or_default();
    let namespace = match (def.namespaced, asked) {
        (true, "") if request.own_namespace().is_empty() => {
            let why =
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => request.own_namespace(),
        (true, asked) => asked,
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
    };
    let found = match str_at(param, &["name"]) {
        Some(name) => Vec::from_iter(world.cluster.get(&def.table, namespace, name)),
        None => {
            let selector = LabelSelector::from_object(param.get("selector")).map_err(|e| e.to_string())?;
            let mut all = if def.namespaced {
                world.cluster.list_in(&def.table, namespace)
            } else {
                world.cluster.list(&def.table)
            };
            all.retain(|o| selector.matches_labels(at(o, &["metadata", "labels"])));
            all
        }
    };
    if found.is_empty() && param["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let mut shown = Vec::with_capacity(found.len());
    for object in found {
        shown.push(Some(show(def, object, request, world).await?));
    }
    Ok(shown)
}

/// A stored object in the version that the policy names.
async fn show(
    def: &ResourceDef,
    object: Value,
    request: &Request<'_>,
    world: &World<'_>,
) -> Result<Value, String> {
    if def.gvk == def.storage {
        return Ok(object);
    }
    let stored = request.registry.resources().find(|d| d.table == def.table && d.gvk == d.storage);
    let from = stored.map_or(def, |d| &**d);
    world.cluster.convert(from, def, object).await.map_err(|status| status.message)
}
