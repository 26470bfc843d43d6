use serde_json::Value;
use types::{Reason, Status};

use super::config::Hook;
use super::review::{self, Answer};
use crate::matching::{Hit, World};
use crate::request::{Notes, Request};

/// A call that came to no good end.
pub(super) enum CallError {
    /// The webhook could not be asked, or did not answer as it should.
    Failed(String),
    /// The request cannot go on.
    Refused(Status),
}

impl CallError {
    /// `plugin/webhook/errors`, `ErrCallingWebhook`: what happens is up to the failure policy.
    pub(super) fn settle(self, hook: &Hook) -> Result<(), Status> {
        match self {
            Self::Refused(status) => Err(status),
            Self::Failed(_) if hook.ignore => Ok(()),
            Self::Failed(why) => {
                Err(Status::internal(format_args!("failed calling webhook {:?}: {why}", hook.name)))
            }
        }
    }
}

/// Asks a webhook. A refusal is an error; what it has to say goes to `notes`.
pub(super) async fn call(
    hook: &Hook,
    mutating: bool,
    request: &Request<'_>,
    hit: &Hit,
    (object, old): (Option<&Value>, Option<&Value>),
    world: &World<'_>,
    notes: &mut Notes,
) -> Result<Answer, CallError> {
    if request.dry_run && !hook.dry_runs {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(CallError::Refused(Status::new(Reason::BadRequest, why)));
    }
    let Some(version) = hook.version else {
        return Err(CallError::Failed(
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .to_owned(),
        ));
    };
    let uid = world.cluster.ids().uid();
    let body = review::write(&uid, version, request, hit.def(request), object, old);
    let answered = world.cluster.post(&hook.client, body, hook.timeout).await;
    let answered = answered.map_err(|why| CallError::Failed(format!("failed to call webhook: {why}")))?;
    let answer = review::read(&uid, version, mutating, &answered)
        .map_err(|why| CallError::Failed(format!("received invalid webhook response: {why}")))?;
    for (key, value) in &answer.annotations {
        notes.annotate(format!("{}/{key}", hook.name), value.as_str());
    }
    answer.warnings.iter().for_each(|warning| notes.warn(warning.as_str()));
    if answer.allowed {
        Ok(answer)
    } else {
        Err(CallError::Refused(review::refusal(&hook.name, &answer.result)))
    }
}
