//! The conditions of a job.

use base::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A moment as the API writes it: a status that was written equals what comes back.
pub(crate) fn second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

pub(super) fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(second(now)),
        last_transition_time: Some(second(now)),
    }
}

/// Puts a condition in the place of another one of its type. Tells whether anything changed; a condition that does not
/// hold is not noted where there was none.
pub(super) fn set(status: &mut JobStatus, new: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let changed = match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) => {
            false
        }
        Some(old) => {
            *old = new;
            true
        }
        None if new.status == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}
