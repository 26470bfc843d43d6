use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Drain;
use futures::FutureExt;
use serde_json::{Value, json};
use store::{CommitError, Event, Expect, Record};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::check::{Condition, check};
use super::services::{Extension, is_available};
use super::{TABLE, register};
use crate::follow::{Follower, News};
use crate::object;
use crate::state::Inner;

/// How long a server that is there is left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// How often a condition is written anew after somebody else was faster.
const ATTEMPTS: usize = 8;

/// An extension server under observation.
struct Watched {
    extension: Arc<Extension>,
    nudge: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a task for each extension server, and wakes it when what it depends on has changed.
pub(super) async fn follow(server: Weak<Inner>, drain: Drain) {
    let Some(strong) = server.upgrade() else { return };
    let mut registered = Follower::from_now(&strong, TABLE);
    let mut services = Follower::from_now(&strong, "services");
    let mut slices = Follower::from_now(&strong, "endpointslices.discovery.k8s.io");
    let again = strong.aggregation.again.clone();
    drop(strong);
    let mut watched: HashMap<Box<str>, Watched> = HashMap::new();
    loop {
        let Some(strong) = server.upgrade() else { return };
        settle(&strong, &mut watched).await;
        drop(strong);
        let any = !watched.is_empty();
        // Without extension servers nothing is looked at but what is registered.
        let changed = tokio::select! {
            () = drain.started() => return,
            () = again.notified() => Some(Changed::Everything),
            next = registered.next() => next.map(|_| Changed::Nothing),
            next = services.next(), if any => next.map(|(_, news)| Changed::new(news, Changed::Services)),
            next = slices.next(), if any => next.map(|(_, news)| Changed::new(news, Changed::Slices)),
        };
        let Some(changed) = changed else { return };
        let nudge = |which: &dyn Fn(&Extension) -> bool| {
            watched.values().filter(|w| which(&w.extension)).for_each(|w| w.nudge.notify_one());
        };
        match changed {
            Changed::Nothing => {}
            Changed::Everything => nudge(&|_| true),
            Changed::Services(events) => nudge(&|e| {
                let key = object::key(&e.namespace, &e.service);
                events.iter().any(|event| event.record.key == key)
            }),
            Changed::Slices(events) => nudge(&|e| events.iter().any(|event| is_slice_of(e, &event.record))),
        }
    }
}

/// Whether a slice is, or may have been, one of the service's.
fn is_slice_of(extension: &Extension, slice: &Record) -> bool {
    object::split_key(&slice.key).0 == &*extension.namespace
        && object::label(slice, "kubernetes.io/service-name")
            .is_none_or(|service| *service == *extension.service)
}

enum Changed {
    Nothing,
    Everything,
    Services(Vec<Arc<Event>>),
    Slices(Vec<Arc<Event>>),
}

impl Changed {
    fn new(news: News, these: impl FnOnce(Vec<Arc<Event>>) -> Self) -> Self {
        match news {
            News::Events(events) => these(events),
            News::Everything(_) => Self::Everything,
        }
    }
}

/// Begins and ends tasks as APIServices come, change and go.
async fn settle(server: &Arc<Inner>, watched: &mut HashMap<Box<str>, Watched>) {
    let services = server.api_services();
    watched.retain(|name, watched| {
        let still = services.extensions().iter().find(|e| e.name == *name);
        still.is_some_and(|e| e.fingerprint == watched.extension.fingerprint)
    });
    server.aggregation.learned.lock().retain(|name, _| services.extensions().iter().any(|e| e.name == *name));
    for extension in services.extensions() {
        if !watched.contains_key(&extension.name) {
            let nudge = Arc::new(Notify::new());
            // Boxed, because the compiler cannot see through the futures of connections.
            let task = observe(Arc::downgrade(server), extension.clone(), nudge.clone()).boxed();
            let task = server.drain.spawn_until_started(task).abort_handle();
            watched.insert(extension.name.clone(), Watched { extension: extension.clone(), nudge, task });
        }
    }
    register::mark_local(server, &services).await;
}

/// Asks one extension server again and again, as long as it is registered.
async fn observe(server: Weak<Inner>, extension: Arc<Extension>, nudge: Arc<Notify>) {
    let mut failures = 0;
    loop {
        let Some(strong) = server.upgrade() else { return };
        let condition = check(&strong, &extension).await;
        // What is served in this process is said to be so elsewhere (`register::mark_local`), and asked once.
        let within = extension.local.is_some();
        if !within {
            tell(&strong, &extension.name, &extension.uid, &condition).await;
        }
        drop(strong);
        failures = if condition.is_true() { 0 } else { failures + 1 };
        let pause = match failures {
            0 => PAUSE,
            n => PAUSE.min(Duration::from_secs(1 << n.min(5))),
        };
        tokio::select! {
            () = sleep(pause), if !within => {}
            () = nudge.notified() => {}
        }
    }
}

/// Writes the condition into the APIService, unless it says so already.
pub(super) async fn tell(server: &Inner, name: &str, uid: &str, condition: &Condition) {
    let registry = server.registry();
    let Some(def) = registry.find("apiregistration.k8s.io", "v1", "apiservices") else { return };
    for _ in 0..ATTEMPTS {
        let Some(record) = server.store.get(TABLE, name) else { return };
        let Ok(mut object) = object::decode(def, &record.value) else { return };
        let was_available = is_available(&object);
        if object::uid(&object) != uid || !set(&mut object, condition, &server.timestamp()) {
            return;
        }
        match server.put_quietly(def, "", &object, Expect::Revision(record.revision)).await {
            Ok(_) => {
                if was_available && !condition.is_true() {
                    let of = (name.into(), condition.reason);
                    *server.aggregation.failures.lock().entry(of).or_default() += 1;
                }
                return;
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => {
                tracing::warn!(name, %error, "cannot write an APIService's condition");
                return;
            }
        }
    }
    tracing::warn!(name, "an APIService changes faster than its condition can be written");
}

/// Sets the condition `Available`; tells whether anything has changed.
fn set(object: &mut Value, condition: &Condition, now: &str) -> bool {
    let status = types::ensure_object(object, "status");
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let mut next = json!({"type": "Available", "status": condition.status, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": now});
    let Some(conditions) = status["conditions"].as_array_mut() else { return false };
    match conditions.iter_mut().find(|c| c["type"] == "Available") {
        None => conditions.push(next),
        Some(old) => {
            if old["status"] == next["status"] && !old["lastTransitionTime"].is_null() {
                next["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == next {
                return false;
            }
            *old = next;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_have_their_time() {
        let mut object = json!({});
        let passed = Condition { status: "True", reason: "Passed", message: "m".into() };
        assert!(set(&mut object, &passed, "1"));
        assert!(!set(&mut object, &passed, "2"));
        assert!(set(&mut object, &Condition { message: "n".into(), ..passed }, "3"));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "1");
        let failed = Condition { status: "False", reason: "ServiceNotFound", message: "m".into() };
        assert!(set(&mut object, &failed, "4"));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "4");
    }
}
