//! Quotas of namespaces (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/resourcequota`,
//! `pkg/quota/v1/evaluator`).
//!
//! Usage is charged by a compare-and-swap of the quota's status before the object is written. Before anything is
//! refused usage is counted afresh, so that a quota also recovers from what was deleted, or charged and never written;
//! charges of the last moments whose objects are not there yet count as used all the while. What the API server sees go
//! is taken off by counting afresh, too (`pkg/controller/resourcequota`).

mod usage;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use parking_lot::Mutex;
use registry::{Registry, ResourceDef};
use serde_json::{Map, Value};
use types::{Quantity, Status, at, ensure_object, str_at};

use crate::cluster::{Cluster, Swap};
use crate::plugins::common::{amounts, list, quantity, text};
use crate::request::{Operation, Request};
use usage::{Amounts, Subject};

const TABLE: &str = "resourcequotas";
/// How long a charge waits for its object.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a swap that loses a race is tried again. Each loss is somebody else's gain.
const ATTEMPTS: usize = 64;

/// The quotas, and what was charged lately.
#[derive(Default)]
pub(crate) struct Quotas {
    charged: Mutex<Vec<Charge>>,
    /// One charge at a time for a namespace, so that nobody counts between a swap and the note of it.
    turns: [futures::lock::Mutex<()>; 16],
}

struct Charge {
    at: Timestamp,
    table: String,
    namespace: String,
    name: String,
    quota: String,
    usage: Amounts,
}

impl Quotas {
    /// Charges a write to the quotas that cover it, or refuses it.
    pub(crate) async fn charge(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        cluster: &dyn Cluster,
    ) -> Result<(), Status> {
        if request.namespace.is_empty() || cluster.last_change(TABLE) == 0 {
            return Ok(());
        }
        let Some(object) = object else { return Ok(()) };
        let Some(subject) = Subject::of(request) else { return Ok(()) };
        if cluster.list_in(TABLE, request.namespace).is_empty() {
            return Ok(());
        }
        let _turn = self.turn(request.namespace).await;
        Box::pin(self.charge_all(request, subject, object, old, cluster)).await
    }

    async fn charge_all(
        &self,
        request: &Request<'_>,
        subject: Subject,
        object: &Value,
        old: Option<&Value>,
        cluster: &dyn Cluster,
    ) -> Result<(), Status> {
        let names: Vec<String> = cluster
            .list_in(TABLE, request.namespace)
            .iter()
            .map(|quota| text(quota, &["metadata", "name"]).to_owned())
            .collect();
        for name in names {
            let mut counted = false;
            for _ in 0..ATTEMPTS {
                let Some(quota) = cluster.get(TABLE, request.namespace, &name) else { break };
                if !covers(&quota, subject, object) {
                    break;
                }
                let hard: Amounts = hard(&quota);
                let relevant: Vec<&str> =
                    hard.keys().map(String::as_str).filter(|r| subject.counts(r, request.def)).collect();
                if relevant.is_empty() {
                    break;
                }
                if let Some(missing) = subject.lacks(&relevant, object) {
                    let why = format!("failed quota: {name}: must specify {missing}");
                    return Err(request.forbidden_of(Some(object), &why));
                }
                let mut delta = subject.usage(request.def, object);
                if request.operation == Operation::Update
                    && let Some(old) = old.filter(|old| covers(&quota, subject, old))
                {
                    delta = beyond(delta, &subject.usage(request.def, old));
                }
                delta.retain(|resource, amount| hard.contains_key(resource) && !amount.is_zero());
                if delta.is_empty() {
                    break;
                }
                let known = known(&quota);
                let used = match &known {
                    Some(used) if !counted => used.clone(),
                    _ => self.count(request.registry, &quota, &hard, cluster),
                };
                counted |= known.is_none();
                let mut next = used.clone();
                for (resource, amount) in &delta {
                    let slot = next.entry(resource.clone()).or_default();
                    *slot = *slot + *amount;
                }
                let over: Vec<&String> = delta.keys().filter(|r| next.get(*r) > hard.get(*r)).collect();
                if !over.is_empty() {
                    if !counted {
                        counted = true;
                        continue;
                    }
                    let shown = |of: &Amounts| {
                        let parts: Vec<String> = over
                            .iter()
                            .map(|r| format!("{r}={}", of.get(*r).copied().unwrap_or_default()))
                            .collect();
                        parts.join(",")
                    };
                    let why = format!(
                        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                        shown(&delta),
                        shown(&used),
                        shown(&hard)
                    );
                    return Err(request.forbidden_of(Some(object), &why));
                }
                if request.dry_run {
                    break;
                }
                let new = with_status(&quota, &hard, &next);
                match cluster.swap(TABLE, &quota, new).await? {
                    Swap::Done => {
                        self.charged.lock().push(Charge {
                            at: cluster.now(),
                            table: request.def.table.to_string(),
                            namespace: request.namespace.to_owned(),
                            name: text(object, &["metadata", "name"]).to_owned(),
                            quota: name.clone(),
                            usage: delta,
                        });
                        break;
                    }
                    Swap::Lost => {}
                }
            }
        }
        Ok(())
    }

    /// Writes into the quotas of a namespace what is used by now, where they say something else. Gives when to count
    /// again: a charge whose object has gone already cannot be told from one whose object is still to come.
    pub(crate) async fn recount(
        &self,
        registry: &Registry,
        namespace: &str,
        cluster: &dyn Cluster,
    ) -> Result<Option<Duration>, Status> {
        let _turn = self.turn(namespace).await;
        for quota in cluster.list_in(TABLE, namespace) {
            let mut quota = Some(quota);
            while let Some(known) = quota.take() {
                let hard = hard(&known);
                let used = self.count(registry, &known, &hard, cluster);
                let new = with_status(&known, &hard, &used);
                if new != known
                    && let Swap::Lost = cluster.swap(TABLE, &known, new).await?
                {
                    quota = cluster.get(TABLE, namespace, text(&known, &["metadata", "name"]));
                }
            }
        }
        let waits = self.charged.lock().iter().any(|charge| charge.namespace == namespace);
        Ok(waits.then_some(PATIENCE))
    }

    async fn turn(&self, namespace: &str) -> futures::lock::MutexGuard<'_, ()> {
        let shard = namespace.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(b)));
        self.turns[shard % self.turns.len()].lock().await
    }

    /// What is used now: what the objects that are there use, and what was charged for objects that are still to come.
    fn count(&self, registry: &Registry, quota: &Value, hard: &Amounts, cluster: &dyn Cluster) -> Amounts {
        let namespace = text(quota, &["metadata", "namespace"]);
        let mut used: Amounts = hard.keys().map(|r| (r.clone(), Quantity::default())).collect();
        let mut add = |more: Amounts| {
            for (resource, amount) in more {
                if let Some(slot) = used.get_mut(&resource) {
                    *slot = *slot + amount;
                }
            }
        };
        let mut listed: HashSet<(String, String)> = HashSet::new();
        for (def, subject) in counted(registry, hard) {
            for object in cluster.list_in(&def.table, namespace) {
                listed.insert((def.table.to_string(), text(&object, &["metadata", "name"]).to_owned()));
                if covers(quota, subject, &object) {
                    add(subject.usage(def, &object));
                }
            }
        }
        let name = text(quota, &["metadata", "name"]);
        let now = cluster.now();
        let mut charged = self.charged.lock();
        // What was listed is what counts: an object may have come since.
        charged.retain(|charge| {
            let own = charge.namespace == namespace && charge.quota == name;
            now.duration_since(charge.at).unsigned_abs() < PATIENCE
                && !(own && listed.contains(&(charge.table.clone(), charge.name.clone())))
        });
        for charge in charged.iter().filter(|c| c.namespace == namespace && c.quota == name) {
            add(charge.usage.clone());
        }
        used
    }
}

/// The kinds whose objects use something of what a quota limits, each once.
fn counted<'a>(registry: &'a Registry, hard: &Amounts) -> Vec<(&'a ResourceDef, Subject)> {
    let mut found: Vec<(&ResourceDef, Subject)> = Vec::new();
    for def in registry.resources().filter(|def| def.namespaced && def.gvk == def.storage) {
        if let Some(subject) = Subject::of_kind(def)
            && !found.iter().any(|(known, _)| known.table == def.table)
            && hard.keys().any(|r| subject.counts(r, def))
        {
            found.push((def, subject));
        }
    }
    found
}

/// The tables whose objects use something of what a quota limits.
pub fn quota_tables(registry: &Registry, quota: &Value) -> Vec<Arc<str>> {
    counted(registry, &hard(quota)).into_iter().map(|(def, _)| def.table.clone()).collect()
}

/// `spec.hard`: what counts, even before anybody has written it into the status.
fn hard(quota: &Value) -> Amounts {
    amounts(quota, &["spec", "hard"]).map(|(r, q)| (r.to_owned(), q)).collect()
}

/// What the status says is used, if it speaks of the limits as they are.
fn known(quota: &Value) -> Option<Amounts> {
    let status = quota.get("status")?;
    let same = |of: &Value| -> BTreeMap<String, Option<Quantity>> {
        of.as_object().into_iter().flatten().map(|(r, q)| (r.clone(), quantity(q))).collect()
    };
    if same(&status["hard"]) != same(&quota["spec"]["hard"]) {
        return None;
    }
    let used: Amounts = amounts(status, &["used"]).map(|(r, q)| (r.to_owned(), q)).collect();
    hard(quota).keys().all(|r| used.contains_key(r)).then_some(used)
}

fn with_status(quota: &Value, hard: &Amounts, used: &Amounts) -> Value {
    let mut new = quota.clone();
    let status = types::object(ensure_object(&mut new, "status"));
    let shown: Map<String, Value> = used
        .iter()
        .filter(|(resource, _)| hard.contains_key(*resource))
        .map(|(resource, amount)| (resource.clone(), amount.to_string().into()))
        .collect();
    for (field, amounts) in [("hard", quota["spec"]["hard"].clone()), ("used", Value::Object(shown))] {
        if amounts.as_object().is_some_and(|amounts| !amounts.is_empty()) {
            status.insert(field.into(), amounts);
        } else {
            // What is empty is left out, as everywhere.
            status.remove(field);
        }
    }
    new
}

/// What is more than before.
fn beyond(now: Amounts, before: &Amounts) -> Amounts {
    let less = |(resource, amount): (String, Quantity)| {
        let rest = amount - before.get(&resource).copied().unwrap_or_default();
        (resource, if rest.is_negative() { Quantity::default() } else { rest })
    };
    now.into_iter().map(less).collect()
}

/// Whether an object is in every scope of a quota.
fn covers(quota: &Value, subject: Subject, object: &Value) -> bool {
    let plain = list(quota, &["spec", "scopes"])
        .filter_map(Value::as_str)
        .map(|scope| (scope, "Exists", &Value::Null));
    let selected = list(quota, &["spec", "scopeSelector", "matchExpressions"]).map(|e| {
        (
            text(e, &["scopeName"]),
            str_at(e, &["operator"]).unwrap_or("Exists"),
            at(e, &["values"]).unwrap_or(&Value::Null),
        )
    });
    plain.chain(selected).all(|(scope, operator, values)| subject.in_scope(scope, operator, values, object))
}
