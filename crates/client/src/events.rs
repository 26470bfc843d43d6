//! Events: what components tell people about objects.

mod correlate;

use std::sync::Arc;

use base::{Clock, Drain};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;

use correlate::{Correlator, Verdict};

/// Whether all is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum EventKind {
    Normal,
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// More than this many events waiting to be written are dropped: they are for people, and the cluster comes first.
const WAITING: usize = 1000;

/// Writes events in the background. Equal ones are counted, similar ones combined, floods dropped, as upstream
/// does (kubernetes/client-go, `tools/record`). Clones share everything.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Said>);

struct Said {
    about: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
}

impl Recorder {
    /// A recorder that speaks for `component` (on the node `host`, or everywhere when empty) until `drain` starts.
    pub fn start(client: Client, component: &str, host: &str, clock: Arc<dyn Clock>, drain: &Drain) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let writer = Writer {
            client,
            source: EventSource { component: some(component), host: some(host) },
            clock,
            correlator: Correlator::default(),
            last: 0,
        };
        let until = drain.clone();
        drain.spawn(async move { writer.run(receiver, until).await });
        Self(sender)
    }

    /// Says something about an object. Never waits.
    pub fn say(&self, about: ObjectReference, kind: EventKind, reason: &str, message: impl Into<String>) {
        let said = Said { about, kind, reason: reason.to_owned(), message: message.into() };
        if self.0.try_send(said).is_err() {
            tracing::debug!(reason, "dropped an event");
        }
    }

    /// Says that something went as it should.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.say(reference(about), EventKind::Normal, reason, message);
    }

    /// Says that something went wrong.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.say(reference(about), EventKind::Warning, reason, message);
    }
}

/// A reference to an object, as events carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    source: EventSource,
    clock: Arc<dyn Clock>,
    correlator: Correlator,
    /// What the latest event is named after: a moment, of which clocks may show the same twice.
    last: i128,
}

impl Writer {
    async fn run(mut self, mut said: mpsc::Receiver<Said>, drain: Drain) {
        loop {
            let next = tokio::select! {
                next = said.recv() => next,
                () = drain.started() => return,
            };
            let Some(next) = next else { return };
            tokio::select! {
                () = self.write(next) => {}
                () = drain.started() => return,
            }
        }
    }

    async fn write(&mut self, said: Said) {
        let now = self.clock.now();
        let (id, message, known) =
            match self.correlator.judge(&said.about, said.kind, &said.reason, &said.message, now) {
                Verdict::Drop => return,
                Verdict::Write { id, message, known } => (id, message, known),
            };
        let namespace = said.about.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Some(known) = known {
            let patch = serde_json::json!({
                "count": known.count, "lastTimestamp": Time(now), "message": message,
            });
            match api.patch(&known.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                // It has expired or was deleted: begin anew.
                Err(error) if crate::is_not_found(&error) => self.correlator.restart(&id),
                Err(error) => return tracing::debug!(%error, "cannot count an event"),
            }
        }
        let object = said.about.name.as_deref().unwrap_or_default();
        self.last = now.as_nanosecond().max(self.last + 1);
        let name = format!("{object}.{:x}", self.last);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: said.about.clone(),
            reason: Some(said.reason),
            message: Some(message),
            type_: Some(said.kind.as_str().into()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Default::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => self.correlator.written(id, name),
            Err(error) => tracing::debug!(%error, "cannot write an event"),
        }
    }
}
