//! API priority and fairness: whose turn it is when there is more to do than can be done at once.
//!
//! A request is told by the FlowSchemas to which priority level it belongs ([`rules`]); each level has its share of the
//! server's seats, and queues for when they are taken ([`gate`]). Follows kubernetes/kubernetes,
//! `apiserver/pkg/util/flowcontrol`.

mod defaults;
mod gate;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use registry::Verb;
use store::Revision;
use types::{Reason, Status};

use crate::metrics::Text;
use crate::request::Target;
use crate::state::Inner;

pub(crate) use defaults::objects as default_objects;
use gate::{Gate, Outcome, Seat};
use rules::{Rules, Subject};

const TABLES: [&str; 2] =
    ["flowschemas.flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"];

/// How long a request waits for a seat (upstream: a quarter of the longest request).
const MOST_WAIT: Duration = Duration::from_secs(15);

/// The gate that requests pass one by one.
pub(crate) struct Fairness {
    rules: Mutex<([Revision; 2], Arc<Rules>)>,
    gate: Arc<Gate>,
}

/// A request that may go on. It gives its seat back when this is dropped.
pub(crate) struct Admitted {
    _seat: Option<Seat>,
    rules: Arc<Rules>,
    schema: usize,
}

impl Admitted {
    /// Tells the client how it was classed.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
        const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
        let schema = &self.rules.schemas[self.schema];
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        headers.insert(SCHEMA, header(&schema.uid));
        headers.insert(LEVEL, header(&schema.level_uid));
    }
}

impl Fairness {
    /// `seats` requests are served at once at most, those of exempt levels apart.
    pub(crate) fn new(seats: u32) -> Self {
        Self { rules: Mutex::new(([Revision::MAX; 2], Arc::default())), gate: Arc::new(Gate::new(seats)) }
    }

    /// Waits for a seat. Nothing comes back for requests that need none: those that last, and all of them while there are
    /// no rules.
    pub(crate) async fn admit(
        &self,
        server: &Arc<Inner>,
        user: &User,
        method: &Method,
        target: &Target,
    ) -> Result<Option<Admitted>, Status> {
        if lasts(target) {
            return Ok(None);
        }
        let rules = self.rules(server);
        let Some((schema, flow)) = rules.classify(&Subject { user, method, target }) else { return Ok(None) };
        let chosen = &rules.schemas[schema];
        let seat = match self.gate.enter(&chosen.level, &chosen.name, flow) {
            Outcome::Exempt => None,
            Outcome::Seat(seat) => Some(seat),
            Outcome::Full => return Err(too_many()),
            Outcome::Wait(seat) => match tokio::time::timeout(MOST_WAIT, seat).await {
                Ok(Ok(seat)) => Some(seat),
                Ok(Err(_)) | Err(_) => return Err(too_many()),
            },
        };
        Ok(Some(Admitted { _seat: seat, rules, schema }))
    }

    /// The rules as they are now.
    fn rules(&self, server: &Arc<Inner>) -> Arc<Rules> {
        let version = TABLES.map(|table| server.store.last_change(table));
        let mut known = self.rules.lock();
        if known.0 != version {
            let [schemas, levels] = TABLES.map(|table| {
                let records = server.store.snapshot(table).records;
                let objects = records.values().filter_map(|r| serde_json::from_slice(&r.value).ok());
                objects.collect::<Vec<_>>()
            });
            self.gate.set_levels(&levels);
            let rules = Rules::build(&schemas, &levels);
            defaults::tell_dangling(server, &schemas, &levels);
            *known = (version, Arc::new(rules));
        }
        known.1.clone()
    }

    /// Counters in Prometheus' text format.
    pub(crate) fn metrics(&self, out: &mut Text) {
        self.gate.metrics(out);
    }
}

/// Requests that may last for ever are not counted (`BasicLongRunningRequestCheck`); watches are, until they begin.
fn lasts(target: &Target) -> bool {
    matches!(target, Target::Resource(r) if r.verb == Verb::Connect || r.subresource == "log")
}

fn too_many() -> Status {
    let mut status = Status::new(Reason::TooManyRequests, "too many requests, please try again later");
    status.details.get_or_insert_default().retry_after_seconds = 1;
    status
}
