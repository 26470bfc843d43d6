use std::collections::HashSet;

use serde_json::{Value, json};
use types::Status;
use types::patch::JsonPatch;

use super::call::{CallError, call};
use super::config::Hook;
use super::{Shown, converted, should_call};
use crate::matching::{Hit, World};
use crate::request::{Notes, Request};

/// What of one sort of mutation was called in the first round, and has to be called in the second
/// (`plugin/webhook/mutating/reinvocationcontext.go`; policies have the same).
#[derive(Default)]
pub(crate) struct Reinvocation {
    called: HashSet<String>,
    again: HashSet<String>,
    /// The object as this sort left it.
    left: Option<Value>,
    /// The first is 0.
    pub(crate) round: usize,
}

impl Reinvocation {
    /// Begins a second round: if others changed the object meanwhile, whatever was called is called again.
    pub(crate) fn second_round(&mut self, object: Option<&Value>) {
        if self.left.as_ref() != object {
            self.changed();
        }
    }

    /// The object was changed: all that were called before and want to know are to be called again.
    pub(crate) fn changed(&mut self) {
        self.again.extend(self.called.drain());
    }

    pub(crate) fn wants(&self, id: &str) -> bool {
        self.again.contains(id)
    }

    pub(crate) fn note(&mut self, id: &str) {
        self.called.insert(id.to_owned());
    }

    pub(crate) fn end(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}

/// Calls the mutating webhooks one after the other. Tells whether the object changed.
pub(crate) async fn mutate(
    hooks: &[Hook],
    request: &Request<'_>,
    mut object: Option<&mut Value>,
    old: Option<&Value>,
    world: &World<'_>,
    state: &mut Reinvocation,
    notes: &mut Notes,
) -> Result<bool, Status> {
    let round = state.round;
    if round > 0 {
        state.second_round(object.as_deref());
    }
    let mut any = false;
    for (place, hook) in hooks.iter().enumerate() {
        let Some(hit) = should_call(hook, request, object.as_deref(), old, world).await? else { continue };
        if round > 0 && !state.wants(&hook.id) {
            continue;
        }
        let outcome = one(hook, request, object.as_deref_mut(), old, &hit, world, notes).await;
        let changed = *outcome.as_ref().unwrap_or(&false);
        let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{place}");
        let shown = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        notes.annotate(key, shown.to_string());
        if changed {
            state.changed();
            any = true;
        }
        if hook.if_needed {
            state.note(&hook.id);
        }
        if let Err(error) = outcome {
            if matches!(error, CallError::Failed(_)) && hook.ignore {
                let key =
                    format!("failed-open.mutation.webhook.admission.k8s.io/round_{round}_index_{place}");
                notes.annotate(key, hook.name.as_str());
            }
            error.settle(hook)?;
        }
    }
    state.end(object.as_deref());
    Ok(any)
}

async fn one(
    hook: &Hook,
    request: &Request<'_>,
    object: Option<&mut Value>,
    old: Option<&Value>,
    hit: &Hit,
    world: &World<'_>,
    notes: &mut Notes,
) -> Result<bool, CallError> {
    let shown = converted(request, hit, object.as_deref(), world).await.map_err(CallError::Refused)?;
    let before = converted(request, hit, old, world).await.map_err(CallError::Refused)?;
    let pair = (shown.as_ref().map(Shown::get), before.as_ref().map(Shown::get));
    let answer = call(hook, true, request, hit, pair, world, notes).await?;
    if answer.patch.is_empty() {
        return Ok(false);
    }
    if answer.patch_type != "JSONPatch" {
        let why = format!("unsupported patch type {:?}", answer.patch_type);
        return Err(CallError::Failed(why));
    }
    let refused = |why: String| CallError::Refused(Status::internal(why));
    let patch = JsonPatch::parse(&answer.patch).map_err(|e| refused(e.to_string()))?;
    let Some(shown) = shown else {
        return Err(refused(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let mut patched = shown.get().clone();
    patch.apply(&mut patched).map_err(|e| refused(e.to_string()))?;
    if patched == *shown.get() {
        return Ok(false);
    }
    let mut patched = match (&hit.def, shown) {
        (Some(def), Shown::Other(_)) => {
            world.cluster.convert(def, request.def, patched).await.map_err(CallError::Refused)?
        }
        _ => patched,
    };
    if *request.kind() == request.def.gvk {
        world.cluster.refit(request.def, &mut patched).map_err(CallError::Refused)?;
    }
    let Some(object) = object else { return Ok(false) };
    let changed = *object != patched;
    *object = patched;
    Ok(changed)
}
