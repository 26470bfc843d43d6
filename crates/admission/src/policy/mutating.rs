use cel::{Budget, RUNTIME_COST_BUDGET};
use serde_json::Value;
use types::apply::Shapes;
use types::patch::{JsonPatch, JsonPatchError};
use types::{Cause, Reason, Status, str_at};

use super::namespace_of;
use super::params::{Invocation, invocations};
use super::read::{Mutation, Policy};
use crate::cluster::settled;
use crate::evaluate::{Asking, Input, request_json, request_resource};
use crate::matching::World;
use crate::request::{Request, kind_of};
use crate::webhook::{Reinvocation, Shown, converted};

/// Lets the policies change an object, one after the other. Tells whether it changed (upstream:
/// `plugin/policy/mutating/dispatcher.go`).
pub(crate) async fn mutate(
    policies: &[Policy],
    request: &Request<'_>,
    object: Option<&mut Value>,
    old: Option<&Value>,
    world: &World<'_>,
    state: &mut Reinvocation,
    round: usize,
) -> Result<bool, Status> {
    if round > 0 {
        state.second_round(object.as_deref());
    }
    let (found, faults) = invocations(policies, request, object.as_deref(), old, world).await;
    let mut errors: Vec<(String, Option<Reason>)> = Vec::new();
    for fault in faults.iter().filter(|f| !f.policy.ignore) {
        errors.push((refusal(fault.policy, fault.binding.map(|b| b.name.as_str()), &fault.message), None));
    }
    let mut any = false;
    // A request without an object, such as a delete, leaves nothing to change.
    if let (Some(object), false) = (object, found.is_empty()) {
        let namespace = namespace_of(request, world);
        for invocation in &found {
            let id = invocation.id();
            let outcome =
                one(invocation, request, object, old, &namespace, world, round > 0 && !state.wants(&id))
                    .await?;
            let Some((changed, faults)) = outcome else { continue };
            if changed {
                state.changed();
                any = true;
            }
            if invocation.policy.if_needed {
                state.note(&id);
            }
            if !invocation.policy.ignore {
                let name = invocation.binding.name.as_str();
                let told =
                    |why: String| (refusal(invocation.policy, Some(name), &why), Some(Reason::Invalid));
                errors.extend(faults.into_iter().map(told));
            }
        }
        state.end(Some(object));
    }
    let Some((message, reason)) = errors.first().cloned() else { return Ok(any) };
    let mut status = request.forbidden("");
    status.message = message;
    // Upstream changes the reason and leaves the code.
    status.reason = reason.or(status.reason);
    let causes = errors.into_iter().map(|(message, _)| Cause { message, ..Cause::default() });
    status.details.get_or_insert_default().causes = causes.collect();
    Err(status)
}

fn refusal(policy: &Policy, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => {
            format!("policy '{}' with binding '{binding}' denied request: {why}", policy.name)
        }
        None => format!("policy {:?} denied request: {why}", policy.name),
    }
}

impl Invocation<'_> {
    fn id(&self) -> String {
        let meta = |field| {
            self.params.as_ref().and_then(|p| str_at(p, &["metadata", field])).unwrap_or_default().to_owned()
        };
        format!("{}/{}/{}/{}", self.policy.name, self.binding.name, meta("namespace"), meta("name"))
    }
}

/// One policy's mutations. Gives whether the object changed and what failed; nothing if the policy does not apply.
async fn one(
    invocation: &Invocation<'_>,
    request: &Request<'_>,
    object: &mut Value,
    old: Option<&Value>,
    namespace: &Value,
    world: &World<'_>,
    skip: bool,
) -> Result<Option<(bool, Vec<String>)>, Status> {
    let Invocation { policy, hit, .. } = invocation;
    let def = hit.def(request);
    let own_kind = *request.kind() == request.def.gvk;
    let shown = converted(request, hit, Some(object), world).await?;
    let before = converted(request, hit, old, world).await?;
    let other = matches!(shown, Some(Shown::Other(_)));
    let mut current = shown.as_ref().map_or(Value::Null, |s| s.get().clone());
    let started = current.clone();
    let review = Value::Object(request_json(request, def));
    let asking = Asking { cluster: world.cluster, user: request.user };
    let resource = request_resource(request);
    let old_shown = before.as_ref().map_or(&Value::Null, Shown::get);
    let mut faults = Vec::new();
    let base = Input {
        object: &Value::Null,
        old: old_shown,
        request: &review,
        namespace,
        params: invocation.params.as_ref(),
        asking: &asking,
        resource: &resource,
    };
    match settled(world.cluster, || policy.conditions.hold(&Input { object: &current, ..base })).await {
        Ok(true) if !skip => {}
        Ok(_) => return Ok(None),
        Err(why) => return Ok(Some((false, vec![why]))),
    }
    for mutation in &policy.mutations {
        let patched = {
            let input = Input { object: &current, ..base };
            settled(world.cluster, || patch(policy, mutation, &input, request, def)).await
        };
        match patched {
            Ok(mut next) => {
                if own_kind {
                    world.cluster.refit(def, &mut next)?;
                }
                current = next;
            }
            Err(why) => faults.push(why),
        }
    }
    if current == started {
        return Ok(Some((false, faults)));
    }
    *object = if other { world.cluster.convert(def, request.def, current).await? } else { current };
    Ok(Some((true, faults)))
}

/// What one mutation makes of an object.
fn patch(
    policy: &Policy,
    mutation: &Mutation,
    input: &Input<'_>,
    request: &Request<'_>,
    def: &registry::ResourceDef,
) -> Result<Value, String> {
    let program = mutation.program.as_ref().map_err(Clone::clone)?;
    let activation = input.activation().compose("variables", &policy.variables);
    let mut budget = Budget::new(RUNTIME_COST_BUDGET);
    let value = program.evaluate(&activation, &mut budget);
    let value = value.map_err(|e| format!("expression '{}' resulted in error: {e}", mutation.source))?;
    if mutation.patch {
        if let cel::Value::List(list) = &value {
            for operation in list.iter() {
                if let cel::Value::Struct(operation) = operation
                    && let Some(part) = operation.field("value")
                {
                    part.check_object_paths().map_err(|e| format!("type mismatch: {e}"))?;
                }
            }
        }
        let text = value.to_json().map_err(|e| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}")
        })?;
        let operations =
            JsonPatch::parse(text.to_string().as_bytes()).map_err(|e| format!("JSONPath: {e}"))?;
        let mut patched = input.object.clone();
        return match operations.apply(&mut patched) {
            Ok(()) => Ok(patched),
            // A test that fails says that there is nothing to do.
            Err(JsonPatchError::TestFailed(_)) => Ok(input.object.clone()),
            Err(e) => Err(format!("JSONPath: {e}")),
        };
    }
    value.check_object_paths().map_err(|e| format!("type mismatch: {e}"))?;
    let mut config = value.to_json().map_err(|e| format!("invalid return type: {e}"))?;
    let gvk = kind_of(def, request.subresource);
    config["apiVersion"] = gvk.api_version().into();
    config["kind"] = (*gvk.kind).into();
    let definitions = def.definitions(request.registry);
    let own;
    let shapes = if *gvk == def.gvk {
        def.shape(request.registry).map(|(definitions, root)| Shapes { definitions, root })
    } else {
        let group =
            if gvk.group.is_empty() { "core" } else { gvk.group.split('.').next().unwrap_or_default() };
        own = definitions.find(&format!("io.k8s.api.{group}.{}.{}", gvk.version, gvk.kind));
        own.map(|id| Shapes { definitions, root: &definitions.get(id).field })
    };
    let Some(shapes) = shapes else {
        return Err(format!("Resource kind {}, Kind={} not found", gvk.api_version(), gvk.kind));
    };
    let atomics = shapes.atomics(&config);
    if !atomics.is_empty() {
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        ));
    }
    Ok(shapes.merge(input.object, &config))
}
