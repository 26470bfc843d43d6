//! What the server counts, under upstream's names, which dashboards and alerts rely on
//! (kubernetes/kubernetes, `apiserver/pkg/endpoints/metrics/metrics.go`).

mod process;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use registry::Verb;

use crate::request::Target;
use crate::state::Inner;

pub(crate) use text::{Histogram, Text};

/// What other parts of this process count. Each call writes a whole page.
pub type MetricsPage = Arc<dyn Fn(&mut base::metrics::Page) + Send + Sync>;

/// A page that stands for the server's own on one of its ports.
#[derive(Clone)]
pub(crate) struct Instead(pub(crate) MetricsPage);

impl Instead {
    pub(crate) fn text(&self) -> String {
        let mut page = base::metrics::Page::new();
        (self.0)(&mut page);
        page.finish()
    }
}

/// Upper bounds in seconds; upstream's, and finer ones below.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0,
    6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Upper bounds in bytes.
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// What a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    verb: &'static str,
    group: Arc<str>,
    version: Arc<str>,
    resource: Arc<str>,
    subresource: Box<str>,
    scope: &'static str,
    dry_run: bool,
}

impl Label {
    /// Of a request. Unknown resources share one label, so that nobody can fill the memory.
    pub(crate) fn of(method: &Method, target: &Target) -> Self {
        let Target::Resource(r) = target else {
            let verb = if *method == Method::GET { "GET" } else { "other" };
            let none = || Arc::<str>::default();
            return Self {
                verb,
                group: none(),
                version: none(),
                resource: none(),
                subresource: "".into(),
                scope: "",
                dry_run: false,
            };
        };
        let known = r.def.has_subresource(&r.subresource);
        Self {
            verb: match r.verb {
                Verb::Create => "POST",
                Verb::Update => "PUT",
                Verb::Patch if r.query.force.is_some() => "APPLY",
                Verb::Patch => "PATCH",
                Verb::Delete => "DELETE",
                Verb::DeleteCollection => "DELETECOLLECTION",
                Verb::Get => "GET",
                Verb::List => "LIST",
                Verb::Watch => "WATCH",
                Verb::Connect => "CONNECT",
            },
            group: r.def.gvk.group.clone(),
            version: r.def.gvk.version.clone(),
            resource: r.def.resource.clone(),
            subresource: if known { r.subresource.as_str().into() } else { "".into() },
            scope: match (r.name.is_empty(), r.namespace.is_empty()) {
                (false, _) => "resource",
                (true, false) => "namespace",
                (true, true) => "cluster",
            },
            dry_run: r.query.dry_run,
        }
    }

    /// Whether the request changes something.
    fn is_mutating(&self) -> bool {
        !matches!(self.verb, "GET" | "LIST" | "WATCH")
    }

    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",dry_run=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            if self.dry_run { "All" } else { "" },
            self.group,
            self.resource,
            self.scope,
            self.subresource,
            self.verb,
            self.version
        )
    }
}

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    seconds: Histogram,
    bytes: Histogram,
}

/// The counters.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Read-only and mutating requests being served.
    in_flight: Mutex<[i64; 2]>,
    requests: Mutex<BTreeMap<Label, Series>>,
    /// Watches being served.
    lasting: Mutex<BTreeMap<Label, i64>>,
    /// Watch events sent, by group, version and kind.
    events: Mutex<BTreeMap<[Arc<str>; 3], Arc<AtomicU64>>>,
    commits: Mutex<BTreeMap<(&'static str, Arc<str>), Histogram>>,
    /// What others have to tell besides.
    pages: Mutex<Vec<MetricsPage>>,
}

/// Counts a request as in flight until it is dropped.
pub(crate) struct InFlight<'a>(&'a Metrics, usize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.lock()[self.1] -= 1;
    }
}

/// Counts a watch until it is dropped.
pub(crate) struct Lasting(Arc<Inner>, Label);

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some(count) = self.0.metrics.lasting.lock().get_mut(&self.1) {
            *count -= 1;
        }
    }
}

impl Metrics {
    pub(crate) fn begin(&self, label: &Label) -> InFlight<'_> {
        let kind = usize::from(label.is_mutating());
        self.in_flight.lock()[kind] += 1;
        InFlight(self, kind)
    }

    /// Counts a watch from now on.
    pub(crate) fn begin_lasting(server: &Arc<Inner>, label: Label) -> Lasting {
        *server.metrics.lasting.lock().entry(label.clone()).or_default() += 1;
        Lasting(server.clone(), label)
    }

    pub(crate) fn end(&self, label: Label, code: u16, took: Duration, bytes: Option<u64>) {
        let mut requests = self.requests.lock();
        let series = requests.entry(label).or_default();
        *series.codes.entry(code).or_default() += 1;
        series.seconds.observe(SECONDS, took.as_secs_f64());
        if let Some(bytes) = bytes {
            series.bytes.observe(BYTES, bytes as f64);
        }
    }

    /// Where the events are counted that watchers of a kind are sent.
    pub(crate) fn sent(&self, gvk: &registry::Gvk) -> Arc<AtomicU64> {
        let key = [gvk.group.clone(), gvk.version.clone(), gvk.kind.clone()];
        self.events.lock().entry(key).or_default().clone()
    }

    /// A write to the store.
    pub(crate) fn committed(&self, operation: &'static str, table: &Arc<str>, took: Duration) {
        let mut commits = self.commits.lock();
        commits.entry((operation, table.clone())).or_default().observe(SECONDS, took.as_secs_f64());
    }

    /// Has somebody else's numbers told with the server's own.
    pub(crate) fn add(&self, page: MetricsPage) {
        self.pages.lock().push(page);
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn text(server: &Inner) -> String {
        let this = &server.metrics;
        let mut out = Text::default();
        this.requests_text(&mut out);
        let [reads, writes] = *this.in_flight.lock();
        out.family("apiserver_current_inflight_requests", "gauge", "Requests being served now, by kind.");
        out.sample("request_kind=\"readOnly\"", reads as f64);
        out.sample("request_kind=\"mutating\"", writes as f64);
        out.family("apiserver_longrunning_requests", "gauge", "Watches being served now.");
        for (label, count) in this.lasting.lock().iter() {
            out.sample(&label.text(), *count as f64);
        }
        out.family("apiserver_watch_events_total", "counter", "Events sent to watchers.");
        for ([group, version, kind], count) in this.events.lock().iter() {
            out.sample(
                &format!("group=\"{group}\",version=\"{version}\",resource=\"{kind}\""),
                count.load(Ordering::Relaxed) as f64,
            );
        }
        out.family("etcd_request_duration_seconds", "histogram", "Time that writes to the store took.");
        for ((operation, table), histogram) in this.commits.lock().iter() {
            out.histogram(&format!("operation=\"{operation}\",type=\"{table}\""), SECONDS, histogram);
        }
        server.fairness.metrics(&mut out);
        crate::aggregation::metrics(server, &mut out);
        server.reloads.text(&mut out);
        if let Some(audit) = &server.audit {
            audit.metrics(&mut out);
        }
        store_text(server, &mut out);
        out.family("kubernetes_build_info", "gauge", "The version of Kubernetes that is spoken.");
        let version = registry::KUBERNETES_VERSION;
        out.sample(&format!("git_version=\"{version}\",major=\"1\",minor=\"36\""), 1.0);
        process::text(&mut out);
        let pages = this.pages.lock().clone();
        pages.into_iter().fold(out.finish(), |text, page| text + &Instead(page).text())
    }

    fn requests_text(&self, out: &mut Text) {
        let requests = self.requests.lock();
        let total = "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.";
        out.family("apiserver_request_total", "counter", total);
        for (label, series) in requests.iter() {
            for (code, count) in &series.codes {
                out.sample(&format!("code=\"{code}\",{}", label.text()), *count as f64);
            }
        }
        for name in ["apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"] {
            out.family(name, "histogram", "Response latency in seconds.");
            for (label, series) in requests.iter() {
                out.histogram(&label.text(), SECONDS, &series.seconds);
            }
        }
        out.family("apiserver_response_sizes", "histogram", "Response size in bytes.");
        for (label, series) in requests.iter().filter(|(_, s)| s.bytes.count() > 0) {
            out.histogram(&label.text(), BYTES, &series.bytes);
        }
    }
}

fn store_text(server: &Inner, out: &mut Text) {
    let stats = server.store.stats();
    out.family("apiserver_storage_objects", "gauge", "Objects in the store, by resource.");
    let mut seen = std::collections::BTreeSet::new();
    for def in server.registry().resources() {
        if seen.insert(def.table.clone()) {
            let count = server.store.snapshot(&def.table).records.len();
            out.sample(&format!("resource=\"{}\"", def.table), count as f64);
        }
    }
    for (name, kind, help, value) in [
        ("gantry_store_revision", "counter", "The latest revision.", stats.revision),
        ("gantry_store_commits_total", "counter", "Transactions committed since the start.", stats.commits),
        ("gantry_store_flushes_total", "counter", "Flushes of the disk since the start.", stats.batches),
    ] {
        out.family(name, kind, help);
        out.sample("", value as f64);
    }
}
