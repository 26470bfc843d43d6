use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use registry::ResourceDef;
use serde_json::{Value, json};
use store::{Event, EventKind, Interest, Record, Watch, WatchEnd};
use tokio::time::{Instant, Sleep, sleep_until};
use types::{Reason, Status};

use super::list::{Narrow, check_fields, matches, narrow, parse_revision, select, wait_for};
use crate::encode::{self, Form, Media};
use crate::metrics::{Label, Lasting, Metrics};
use crate::object;
use crate::pipeline::Call;
use crate::request::{ResourceRequest, Target};
use crate::respond::{Body, BoxError};
use crate::state::Inner;

/// How often a quiet watch is told how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts when nobody says (upstream: half to a whole hour).
const LASTS: Duration = Duration::from_secs(45 * 60);

/// No watch lasts longer, whatever is asked for: clocks end somewhere.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What it takes to wake one watcher of many, and its client, for whatever there is to tell; about that much.
const TURN: Duration = Duration::from_micros(20);
/// However many they are.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// How long a watcher waits after each change for more of them, if it is one of so many that are woken together.
///
/// When hundreds watch what changes all the time, waking each of them for each change would take all the time there is,
/// and every change would be late. So they are told of several changes at once. A change after a while of quiet is
/// told at once.
fn pause(watchers: usize) -> Option<Duration> {
    let pause = TURN.saturating_mul(u32::try_from(watchers).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
    // Timers know no less than a millisecond.
    (pause >= Duration::from_millis(1)).then_some(pause)
}

/// A stream of changes.
pub(crate) async fn watch(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { request: r, http, .. } = &call;
    check_fields(r)?;
    let accept = encode::negotiate(http.headers(), r)?;
    // There is no way to tell YAML documents of a stream apart.
    let media = if accept.media == Media::Yaml { Media::Json } else { accept.media };
    let from = match r.query.resource_version.as_deref() {
        None | Some("0") => None,
        Some(text) => Some(parse_revision(text)?),
    };
    if let Some(revision) = from {
        wait_for(server, revision).await?;
    }
    let initial = r.query.send_initial_events.unwrap_or(from.is_none());
    let (events, progress) = if initial {
        let snapshot = server.store.snapshot(&r.def.table);
        (select(&snapshot, r, None).cloned().collect(), snapshot.revision)
    } else {
        (Vec::new(), from.unwrap_or_else(|| server.store.revision()))
    };
    // Whatever it gives is matched, so this only spares us what cannot match.
    let narrow = narrow(r);
    let interest = match &narrow {
        Narrow::One(key) => Interest::Key(key),
        Narrow::Field(field, value) => Interest::Field(field, value),
        Narrow::No => Interest::All,
    };
    let source = server.store.watch_only(&r.def.table, progress, interest);
    let source = source.map_err(|e| Status::too_old(e.revision, e.oldest))?;
    let lasts = r.query.timeout_seconds.map_or(LASTS, |seconds| Duration::from_secs(seconds).min(LONGEST));
    let now = Instant::now();
    let ends = now + lasts;
    let counted = Target::Resource(Box::new(clone_of(r)));
    let stream = WatchStream {
        server: server.clone(),
        request: clone_of(r),
        form: accept.form,
        media,
        source,
        initial: (!events.is_empty() || r.query.send_initial_events == Some(true))
            .then_some((events, progress)),
        ends,
        timer: Box::pin(sleep_until(ends.min(now + BOOKMARK_EVERY))),
        columns_sent: false,
        sent: 0,
        sent_in_all: server.metrics.sent(&r.def.gvk),
        quiet_until: None,
        gone: Box::pin(gone(server.clone(), r.def.clone())),
        over: false,
        _counted: Metrics::begin_lasting(server, Label::of(&http::Method::GET, &counted)),
    };
    let frames = stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), stream))
    });
    let content_type = match media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => crate::respond::JSON,
    };
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// A watch on `…/name` sees that object only.
fn is_named(r: &ResourceRequest, record: &Record) -> bool {
    r.name.is_empty() || object::split_key(&record.key).1 == r.name
}

fn clone_of(r: &ResourceRequest) -> ResourceRequest {
    ResourceRequest {
        registry: r.registry.clone(),
        def: r.def.clone(),
        elsewhere: None,
        verb: r.verb,
        namespace: r.namespace.clone(),
        name: r.name.clone(),
        subresource: String::new(),
        rest: String::new(),
        query: crate::request::Query {
            labels: r.query.labels.clone(),
            fields: r.query.fields.clone(),
            bookmarks: r.query.bookmarks,
            send_initial_events: r.query.send_initial_events,
            all: r.query.all.clone(),
            ..Default::default()
        },
    }
}

struct WatchStream {
    server: Arc<Inner>,
    request: ResourceRequest,
    form: Form,
    media: Media,
    source: Watch,
    /// What there was at the start, not yet sent, and the revision it is of.
    initial: Option<(Vec<Arc<Record>>, u64)>,
    ends: Instant,
    /// Rings for the next bookmark, or the end.
    timer: Pin<Box<Sleep>>,
    columns_sent: bool,
    /// Events not yet counted.
    sent: u64,
    sent_in_all: Arc<AtomicU64>,
    /// When the watcher may be told of changes again.
    quiet_until: Option<Instant>,
    /// Resolves when there is nothing to watch any more.
    gone: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    over: bool,
    _counted: Lasting,
}

impl WatchStream {
    /// The next bytes to send; `None` ends the response.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if let Some((records, revision)) = self.initial.take() {
            return Some(self.first(&records, revision).await);
        }
        loop {
            let quiet_until = self.quiet_until.take().filter(|until| *until > Instant::now());
            let source = &mut self.source;
            let events = async {
                if let Some(until) = quiet_until {
                    sleep_until(until).await;
                }
                source.next().await
            };
            let outcome = tokio::select! {
                biased;
                events = events => Woken::Events(events),
                () = &mut self.gone => Woken::Gone,
                () = &mut self.timer => Woken::Time,
            };
            match outcome {
                Woken::Events(Ok(events)) => {
                    self.quiet_until = pause(self.source.company()).map(|pause| Instant::now() + pause);
                    let bytes = self.events(&events).await;
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
                Woken::Events(Err(WatchEnd::TooOld(e))) => {
                    self.over = true;
                    let status = Status::too_old(e.revision, e.oldest);
                    return Some(self.error_frame(&status));
                }
                Woken::Events(Err(WatchEnd::Closed)) | Woken::Gone => return None,
                Woken::Time => {
                    let now = Instant::now();
                    let over = now >= self.ends;
                    self.timer.as_mut().reset(self.ends.min(now + BOOKMARK_EVERY));
                    self.over = over;
                    match (self.request.query.bookmarks, over) {
                        (true, _) => return Some(self.bookmark_frame(self.source.progress(), false)),
                        (false, true) => return None,
                        (false, false) => {}
                    }
                }
            }
        }
    }

    async fn first(&mut self, records: &[Arc<Record>], revision: u64) -> Bytes {
        let mut out = BytesMut::new();
        // All at once: a webhook may have to convert them.
        match self.server.all_shown(&self.request.def, records.to_vec()).await {
            Ok(records) => {
                for record in &records {
                    self.frame(&mut out, "ADDED", record, Whose::Mine).await;
                }
            }
            Err(status) => {
                self.over = true;
                return self.error_frame(&status);
            }
        }
        if self.request.query.send_initial_events == Some(true) {
            out.extend_from_slice(&self.bookmark_frame(revision, true));
        }
        out.freeze()
    }

    async fn events(&mut self, events: &[Arc<Event>]) -> Bytes {
        let mut out = BytesMut::new();
        for event in events {
            let now = event.kind != EventKind::Deleted && self.picks(&event.record);
            let before = match (&event.previous, event.kind) {
                (Some(previous), _) => self.picks(previous),
                (None, EventKind::Deleted) => self.picks(&event.record),
                (None, _) => false,
            };
            match (before, now) {
                (false, true) => self.frame(&mut out, "ADDED", &event.record, Whose::Everybodys).await,
                (true, true) => self.frame(&mut out, "MODIFIED", &event.record, Whose::Everybodys).await,
                (true, false) if event.kind == EventKind::Deleted => {
                    self.frame(&mut out, "DELETED", &event.record, Whose::Everybodys).await
                }
                // It no longer fits the selector: the watcher sees it go, as it last knew it.
                (true, false) => {
                    if let Some(previous) = &event.previous {
                        let last = at_revision(previous, event.revision);
                        self.frame(&mut out, "DELETED", &Arc::new(last), Whose::Mine).await;
                    }
                }
                (false, false) => {}
            }
        }
        let bytes = out.freeze();
        if self.sent > 0 {
            self.sent_in_all.fetch_add(std::mem::take(&mut self.sent), Ordering::Relaxed);
        }
        bytes
    }

    fn picks(&self, record: &Record) -> bool {
        let (namespace, _) = object::split_key(&record.key);
        (self.request.namespace.is_empty() || self.request.namespace == namespace)
            && is_named(&self.request, record)
            && matches(&self.request.def, &self.request, record)
    }

    async fn frame(&mut self, out: &mut BytesMut, kind: &str, record: &Arc<Record>, whose: Whose) {
        let body = self.body(record, whose).await;
        self.columns_sent = true;
        self.sent += 1;
        match body {
            Ok(body) => self.wrap(out, kind, &body),
            Err(status) => out.extend_from_slice(&self.error_frame(&status)),
        }
    }

    /// A record in the form and the media type of the stream.
    async fn body(&self, record: &Arc<Record>, whose: Whose) -> Result<Bytes, Status> {
        let def = &self.request.def;
        let encode = |record: &Record| {
            encode::event_object(&self.server, def, &self.form, record, !self.columns_sent)
                .and_then(|json| self.in_media(json))
        };
        // The stored bytes are there already, custom kinds may need a webhook, and tables tell ages.
        let stored = self.form == Form::Object && self.media == Media::Json && def.convert.is_none();
        let own = stored || def.custom.is_some() || matches!(self.form, Form::Table(_));
        if own || whose == Whose::Mine {
            return encode(&*self.server.shown(def, record).await?);
        }
        self.server.frames.get(record, def, (&self.form, self.media), || encode(record))
    }

    /// An object in the media type of the stream.
    fn in_media(&self, json: Bytes) -> Result<Bytes, Status> {
        match self.media {
            Media::Protobuf => encode::protobuf::object(&self.request, &self.form, &json, false),
            _ => Ok(json),
        }
    }

    /// An object as an event of a kind.
    fn wrap(&self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        if self.media == Media::Protobuf {
            return out.extend_from_slice(&types::protobuf::event(kind, object));
        }
        out.reserve(object.len() + 40);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(object);
        out.extend_from_slice(b"}\n");
    }

    fn error_frame(&self, status: &Status) -> Bytes {
        debug_assert_ne!(status.reason, None::<Reason>);
        let mut object = Bytes::from(status.to_json());
        if self.media == Media::Protobuf {
            match encode::protobuf::status(&self.request.registry, &object) {
                Ok(bytes) => object = bytes,
                Err(_) => return Bytes::new(),
            }
        }
        let mut out = BytesMut::new();
        self.wrap(&mut out, "ERROR", &object);
        out.freeze()
    }

    fn bookmark_frame(&self, revision: u64, initial_end: bool) -> Bytes {
        let def = &self.request.def;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.form {
            Form::Object => {
                json!({"kind": &*def.gvk.kind, "apiVersion": def.api_version(), "metadata": metadata})
            }
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table(_) => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [], "rows": []})
            }
        };
        let mut out = BytesMut::new();
        match self.in_media(object.to_string().into()) {
            Ok(object) => self.wrap(&mut out, "BOOKMARK", &object),
            Err(status) => return self.error_frame(&status),
        }
        out.freeze()
    }
}

/// Who gets to see a record in a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This watcher: it is among the first ones, or was made for it.
    Mine,
    /// Many: it comes with an event.
    Everybodys,
}

enum Woken {
    Events(Result<Vec<Arc<Event>>, WatchEnd>),
    Gone,
    Time,
}

/// Resolves when the server ends, or the kind that is watched is not served as it was: its definition changed, or is gone.
async fn gone(server: Arc<Inner>, def: Arc<ResourceDef>) {
    if def.custom.is_none() {
        return server.drain.started().await;
    }
    let mut kinds = server.crds.changes();
    let withdrawn = async {
        loop {
            kinds.mark_unchanged();
            if !server.registry().serves(&def) || kinds.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = server.drain.started() => {}
        () = withdrawn => {}
    }
}

/// A record as it was, with the revision of what ended it.
fn at_revision(record: &Record, revision: u64) -> Record {
    let mut record = record.clone();
    if let Ok(mut object) = serde_json::from_slice::<Value>(&record.value) {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        record.value = object.to_string().into();
        record.revision = revision;
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crowds_are_made_to_wait_and_never_long() {
        assert_eq!((pause(1), pause(49)), (None, None));
        assert_eq!(pause(200), Some(Duration::from_millis(4)));
        assert_eq!(pause(usize::MAX), Some(LONGEST_PAUSE));
    }
}
