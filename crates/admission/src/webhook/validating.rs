use futures::future::join_all;
use serde_json::Value;
use types::Status;

use super::call::{CallError, call};
use super::config::Hook;
use super::{Shown, converted, should_call};
use crate::matching::{Hit, World};
use crate::request::{Notes, Request};

/// Calls the validating webhooks all at once; the first refusal in their order counts.
pub(crate) async fn validate(
    hooks: &[Hook],
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    world: &World<'_>,
    notes: &mut Notes,
) -> Result<(), Status> {
    let mut chosen: Vec<(&Hook, Hit)> = Vec::new();
    for hook in hooks {
        if let Some(hit) = should_call(hook, request, object, old, world).await? {
            chosen.push((hook, hit));
        }
    }
    let calls = chosen.iter().map(|(hook, hit)| one(hook, hit, request, object, old, world));
    let mut outcome = Ok(());
    for (place, ((hook, _), (said, result))) in chosen.iter().zip(join_all(calls).await).enumerate() {
        notes.extend(said);
        if let Err(error) = result {
            if matches!(error, CallError::Failed(_)) && hook.ignore {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{place}");
                notes.annotate(key, hook.name.as_str());
            }
            outcome = outcome.and(error.settle(hook));
        }
    }
    outcome
}

async fn one(
    hook: &Hook,
    hit: &Hit,
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    world: &World<'_>,
) -> (Notes, Result<(), CallError>) {
    let mut notes = Notes::default();
    let result = async {
        let shown = converted(request, hit, object, world).await.map_err(CallError::Refused)?;
        let before = converted(request, hit, old, world).await.map_err(CallError::Refused)?;
        let pair = (shown.as_ref().map(Shown::get), before.as_ref().map(Shown::get));
        call(hook, false, request, hit, pair, world, &mut notes).await.map(|_| ())
    }
    .await;
    (notes, result)
}
