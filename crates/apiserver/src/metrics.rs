//! What the server counts, under upstream's names
//! (kubernetes/kubernetes, `apiserver/pkg/endpoints/metrics/metrics.go`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use store::Store;

use crate::fairness::Fairness;
use crate::request::Target;

const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    verb: &'static str,
    group: Box<str>,
    version: Box<str>,
    resource: Box<str>,
    subresource: Box<str>,
}

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
pub(crate) struct Metrics {
    in_flight: AtomicI64,
    requests: Mutex<BTreeMap<Label, Series>>,
}

/// Counts a request as in flight until it is dropped.
pub(crate) struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    /// What a request is counted under. Unknown resources share one label, so that nobody can fill the memory.
    pub(crate) fn label(&self, method: &Method, target: Option<&Target>) -> Label {
        match target {
            Some(Target::Resource(r)) => Label {
                verb: match r.verb.as_str() {
                    "create" => "POST",
                    "update" => "PUT",
                    "patch" => "PATCH",
                    "delete" => "DELETE",
                    "deletecollection" => "DELETECOLLECTION",
                    "get" => "GET",
                    "list" => "LIST",
                    "watch" => "WATCH",
                    _ => "CONNECT",
                },
                group: r.def.gvk.group.clone(),
                version: r.def.gvk.version.clone(),
                resource: r.def.resource.clone(),
                subresource: if r.def.has_subresource(&r.subresource) {
                    r.subresource.as_str().into()
                } else {
                    "".into()
                },
            },
            _ => Label {
                verb: if *method == Method::GET { "GET" } else { "other" },
                group: "".into(),
                version: "".into(),
                resource: "".into(),
                subresource: "".into(),
            },
        }
    }

    pub(crate) fn end(&self, label: Label, code: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock();
        let series = requests.entry(label).or_default();
        *series.codes.entry(code).or_default() += 1;
        series.count += 1;
        series.sum += seconds;
        for (count, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn text(&self, store: &Store, fairness: &Fairness) -> String {
        let mut out = String::new();
        out += "# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, group, version, resource and HTTP response code.\n# TYPE apiserver_request_total counter\n";
        let requests = self.requests.lock();
        let labels = |l: &Label| {
            format!(
                "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\"",
                l.verb, l.group, l.version, l.resource, l.subresource
            )
        };
        for (label, series) in requests.iter() {
            for (code, count) in &series.codes {
                let _ = writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", labels(label));
            }
        }
        out += "# HELP apiserver_request_duration_seconds Response latency distribution in seconds.\n# TYPE apiserver_request_duration_seconds histogram\n";
        for (label, series) in requests.iter() {
            let labels = labels(label);
            for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                let _ = writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}"
                );
            }
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}",
                series.count
            );
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", series.sum);
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {}", series.count);
        }
        fairness.metrics(&mut out);
        let stats = store.stats();
        for (name, kind, help, value) in [
            (
                "apiserver_current_inflight_requests",
                "gauge",
                "Requests being served now.",
                self.in_flight.load(Ordering::Relaxed),
            ),
            ("gantry_store_records", "gauge", "Objects in the store.", stats.records as i64),
            ("gantry_store_revision", "counter", "The latest revision.", stats.revision as i64),
            (
                "gantry_store_commits_total",
                "counter",
                "Transactions committed since the start.",
                stats.commits as i64,
            ),
            (
                "gantry_store_flushes_total",
                "counter",
                "Flushes of the disk since the start.",
                stats.batches as i64,
            ),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        out
    }
}
