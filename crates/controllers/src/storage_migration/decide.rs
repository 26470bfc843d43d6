//! Whose turn it is, and what is said of it: pure.

use std::sync::Arc;

use base::Timestamp;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

pub(super) const RUNNING: &str = "Running";
pub(super) const SUCCEEDED: &str = "Succeeded";
pub(super) const FAILED: &str = "Failed";

/// What is to be done about a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing any more.
    Over,
    /// Nothing before another of the same resource has ended.
    Wait,
    /// It is to be marked as running.
    Begin,
    /// It was, perhaps by a controller that is gone.
    GoOn,
}

/// Whether a condition is true.
pub(super) fn is_true(migration: &StorageVersionMigration, kind: &str) -> bool {
    let conditions = migration.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

fn is_over(migration: &StorageVersionMigration) -> bool {
    is_true(migration, SUCCEEDED) || is_true(migration, FAILED)
}

/// One at a time for each resource; the oldest goes first (`migrationrunner.go`, `getSVMsForResource`). `all` are those
/// there are.
pub(super) fn decide(migration: &StorageVersionMigration, all: &[Arc<StorageVersionMigration>]) -> Turn {
    if is_over(migration) {
        return Turn::Over;
    }
    if is_true(migration, RUNNING) {
        return Turn::GoOn;
    }
    let of = |m: &StorageVersionMigration| m.spec.as_ref().map(|spec| spec.resource.clone());
    let age = |m: &StorageVersionMigration| (m.creation_timestamp(), m.name_any());
    let first = |other: &StorageVersionMigration| is_true(other, RUNNING) || age(other) < age(migration);
    let mut others = all.iter().filter(|other| {
        other.metadata.uid != migration.metadata.uid && of(other) == of(migration) && !is_over(other)
    });
    if others.any(|other| first(other)) { Turn::Wait } else { Turn::Begin }
}

/// The same migration of which something is true.
pub(super) fn with_condition(
    migration: &StorageVersionMigration,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> StorageVersionMigration {
    let mut new = migration.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    });
    new
}

/// The same migration that does not run any more (`cleanupAdmission`).
pub(super) fn ended(migration: &StorageVersionMigration, now: Timestamp) -> StorageVersionMigration {
    let mut new = migration.clone();
    let conditions = new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
    for condition in conditions.filter(|c| c.type_ == RUNNING) {
        condition.status = "False".to_owned();
        condition.reason = "MigrationCompleted".to_owned();
        condition.message = "Migration completed".to_owned();
        condition.last_transition_time = Time(now);
    }
    new
}

/// Whether an error says nothing of the object: the server is busy, or does not answer.
pub(super) fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn migration(name: &str, second: u32, resource: &str, said: &[&str]) -> Arc<StorageVersionMigration> {
        let conditions: Vec<_> = said
            .iter()
            .map(|kind| {
                json!({"type": kind, "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2025-01-01T00:00:00Z"})
            })
            .collect();
        Arc::new(testkit::object(json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2025-01-01T00:00:{second:02}Z")},
            "spec": {"resource": {"group": "g", "resource": resource}}, "status": {"conditions": conditions},
        })))
    }

    #[test]
    fn one_at_a_time_and_the_oldest_first() {
        let all = [
            migration("done", 0, "things", &["Succeeded"]),
            migration("b", 1, "things", &[]),
            migration("a", 1, "things", &[]),
            migration("late", 2, "things", &[]),
            migration("other", 3, "others", &[]),
        ];
        let turns: Vec<Turn> = all.iter().map(|m| decide(m, &all)).collect();
        assert_eq!(turns, [Turn::Over, Turn::Wait, Turn::Begin, Turn::Wait, Turn::Begin]);
        let all = [migration("early", 0, "things", &[]), migration("runs", 1, "things", &["Running"])];
        let turns: Vec<Turn> = all.iter().map(|m| decide(m, &all)).collect();
        assert_eq!(turns, [Turn::Wait, Turn::GoOn]);
    }

    #[test]
    fn what_has_ended_does_not_run() {
        let now: Timestamp = "2025-02-01T00:00:00Z".parse().unwrap();
        let runs = migration("m", 0, "things", &["Running"]);
        let done = ended(&with_condition(&runs, SUCCEEDED, "Done", "", now), now);
        assert!(is_true(&done, SUCCEEDED) && !is_true(&done, RUNNING) && is_over(&done));
        assert_eq!(done.status.unwrap().conditions.unwrap()[0].reason, "MigrationCompleted");
    }
}
