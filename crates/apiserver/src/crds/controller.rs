use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use registry::{Names, TakenNames, custom_resources};
use serde_json::Value;
use store::{CommitError, Expect, Record};
use types::str_at;

use super::{Known, TABLE, cleanup, status};
use crate::follow::{Follower, News};
use crate::object;
use crate::state::Inner;

/// How often a status is written anew after somebody else was faster.
const ATTEMPTS: usize = 16;

/// Serves every definition that is stored, then follows the table.
pub(crate) async fn start(server: &Arc<Inner>) {
    let snapshot = server.store.snapshot(TABLE);
    let mut records: Vec<&Arc<Record>> = snapshot.records.values().collect();
    // Who was first keeps the names.
    records.sort_by_key(|record| record.created);
    for record in &records {
        note(server, record);
    }
    for record in &records {
        if let Ok(crd) = serde_json::from_slice::<Value>(&record.value)
            && registry::is_true(&crd, "Established")
        {
            serve(server, &record.key, &crd);
        }
    }
    for record in records {
        settle(server, &record.key).await;
    }
    let definitions = Follower::since(server, TABLE, snapshot.revision);
    server.crds.followed.send_replace(snapshot.revision);
    server.drain.spawn(follow(definitions));
}

async fn follow(mut definitions: Follower) {
    while let Some((server, news)) = definitions.next().await {
        match news {
            News::Events(events) => {
                for event in events {
                    settle(&server, &event.record.key).await;
                    server.crds.followed.send_replace(event.revision);
                }
            }
            News::Everything(revision) => {
                let snapshot = server.store.snapshot(TABLE);
                let mut names: Vec<Arc<str>> = snapshot.records.keys().cloned().collect();
                names.extend(server.crds.known.lock().keys().cloned());
                for name in names {
                    settle(&server, &name).await;
                }
                server.crds.followed.send_replace(revision);
            }
        }
    }
}

/// Notes which names a stored definition holds.
fn note(server: &Inner, record: &Record) {
    let Ok(crd) = serde_json::from_slice::<Value>(&record.value) else { return };
    let known = Known {
        group: str_at(&crd, &["spec", "group"]).unwrap_or_default().into(),
        accepted: Names::of(&crd["status"]["acceptedNames"]),
        has_conflict: false,
        fingerprint: None,
    };
    server.crds.known.lock().insert(record.key.clone(), known);
}

/// Brings one definition's status and what is served in step with it, and then those that waited for its names.
async fn settle(server: &Arc<Inner>, name: &Arc<str>) {
    for name in settle_one(server, name).await {
        let _ = settle_one(server, &name).await;
    }
}

/// Gives the definitions that may now get names which were taken before.
async fn settle_one(server: &Arc<Inner>, name: &Arc<str>) -> Vec<Arc<str>> {
    for _ in 0..ATTEMPTS {
        let Some(record) = server.store.get(TABLE, name) else {
            return withdraw(server, name);
        };
        let Ok(crd) = serde_json::from_slice::<Value>(&record.value) else {
            tracing::error!(name = &**name, "a stored definition cannot be decoded");
            return Vec::new();
        };
        let mut next = crd.clone();
        let group: Box<str> = str_at(&crd, &["spec", "group"]).unwrap_or_default().into();
        let looked = status::update(&mut next, &taken(server, &group, name), &server.timestamp());
        if looked.established {
            serve(server, name, &next);
        }
        if next != crd {
            match write(server, &next, &record).await {
                Ok(_) => {}
                Err(CommitError::Conflict { .. } | CommitError::NotFound { .. }) => continue,
                Err(error) => {
                    tracing::warn!(name = &**name, %error, "cannot write a definition's status");
                }
            }
        }
        let freed = {
            let mut known = server.crds.known.lock();
            let fingerprint = known.get(name).and_then(|k| k.fingerprint);
            let had = known.get(name).map(|k| k.accepted.clone());
            let lost_some = had.is_some_and(|had| had != looked.accepted);
            let (accepted, has_conflict) = (looked.accepted, looked.has_conflict);
            known.insert(name.clone(), Known { group: group.clone(), accepted, has_conflict, fingerprint });
            if lost_some { waiting(&known, &group, name) } else { Vec::new() }
        };
        if types::at(&next, &["metadata", "deletionTimestamp"]).is_some() {
            cleanup::begin(server, name);
        }
        return freed;
    }
    tracing::warn!(name = &**name, "a definition changes faster than its status can be written");
    Vec::new()
}

/// Writes a definition's new state; the write is known to come from here.
pub(super) async fn write(server: &Inner, crd: &Value, record: &Record) -> Result<Arc<Record>, CommitError> {
    let Some(def) = definition(server) else { return Err(CommitError::Closed) };
    server.put_quietly(&def, "", crd, Expect::Revision(record.revision)).await
}

/// The resource of definitions themselves.
pub(super) fn definition(server: &Inner) -> Option<Arc<registry::ResourceDef>> {
    server.registry().find("apiextensions.k8s.io", "v1", "customresourcedefinitions").cloned()
}

/// The names that others of the group hold, built-in kinds among them.
fn taken(server: &Inner, group: &str, name: &str) -> TakenNames {
    let mut taken = TakenNames::default();
    for (other, known) in server.crds.known.lock().iter() {
        if *known.group == *group && **other != *name {
            taken.add(&known.accepted);
        }
    }
    for def in server.registry().builtin_resources().iter().filter(|def| *def.gvk.group == *group) {
        taken.add(&Names {
            plural: (&*def.resource).into(),
            singular: def.singular.clone(),
            kind: (&*def.gvk.kind).into(),
            list_kind: def.list_kind().into(),
            short_names: def.short_names.to_vec(),
            categories: Vec::new(),
        });
    }
    taken
}

fn waiting(known: &std::collections::BTreeMap<Arc<str>, Known>, group: &str, but: &str) -> Vec<Arc<str>> {
    let of_group = known.iter().filter(|(name, k)| *k.group == *group && k.has_conflict && ***name != *but);
    of_group.map(|(name, _)| name.clone()).collect()
}

/// Whether a definition's objects would lie where those of a built-in kind lie. Its names are taken, so it is never
/// established, unless somebody with the right to writes into its status that it is.
pub(super) fn overlaps(server: &Inner, name: &str) -> bool {
    server.registry().builtin_resources().iter().any(|def| *def.table == *name)
}

/// Serves a definition as it is now, unless it is served so already.
fn serve(server: &Inner, name: &Arc<str>, crd: &Value) {
    if overlaps(server, name) {
        return;
    }
    let fingerprint = fingerprint(crd);
    let is_new = {
        let mut known = server.crds.known.lock();
        let group = str_at(crd, &["spec", "group"]).unwrap_or_default();
        let entry = known.entry(name.clone()).or_insert_with(|| Known {
            group: group.into(),
            accepted: Names::default(),
            has_conflict: false,
            fingerprint: None,
        });
        entry.fingerprint.replace(fingerprint) != Some(fingerprint)
    };
    if is_new {
        let base = server.registry().definitions().clone();
        let resources = custom_resources(crd, &base, server.store.revision(), fingerprint);
        server.change_registry(|registry| registry.with_custom(name, resources));
        server.crds.changed.send_replace(());
    }
    let terminating = types::at(crd, &["metadata", "deletionTimestamp"]).is_some();
    for custom in server.registry().custom(name).iter().filter_map(|def| def.custom.as_ref()) {
        custom.terminating.store(terminating, Ordering::Release);
    }
}

/// A hash of all that the served resources are made from.
fn fingerprint(crd: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    crd["spec"].to_string().hash(&mut hasher);
    crd["status"]["acceptedNames"].to_string().hash(&mut hasher);
    // One that was deleted and made again is another.
    object::uid(crd).hash(&mut hasher);
    hasher.finish()
}

/// Takes a definition's kinds out of what is served; watches on them end.
pub(super) fn stop_serving(server: &Inner, name: &str) {
    server.change_registry(|registry| registry.with_custom(name, Vec::new()));
    server.crds.changed.send_replace(());
}

/// A definition is gone, and its kinds with it.
fn withdraw(server: &Inner, name: &Arc<str>) -> Vec<Arc<str>> {
    stop_serving(server, name);
    let mut known = server.crds.known.lock();
    match known.remove(name) {
        Some(gone) => waiting(&known, &gone.group, name),
        None => Vec::new(),
    }
}
