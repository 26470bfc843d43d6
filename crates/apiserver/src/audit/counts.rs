//! How many events there were, and how many of them were lost (kubernetes/kubernetes, `apiserver/pkg/audit/metrics.go`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::policy::Level;
use crate::metrics::Text;

#[derive(Default)]
pub(super) struct Counts {
    events: AtomicU64,
    rejected: AtomicU64,
    levels: Mutex<BTreeMap<&'static str, u64>>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn level(&self, level: Level) {
        *self.levels.lock().entry(level.name()).or_default() += 1;
    }

    /// A request that had to fail.
    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Events that a plugin lost. What happens a thousand times is said a few times: at powers of two.
    pub(super) fn failed(&self, plugin: &'static str, events: usize, why: &str) {
        let mut errors = self.errors.lock();
        let count = errors.entry(plugin).or_default();
        let before = *count;
        *count += events as u64;
        if before.checked_ilog2() != count.checked_ilog2() {
            tracing::error!(plugin, events, total = *count, why, "audit events are lost");
        }
    }

    #[cfg(test)]
    pub(super) fn lost(&self, plugin: &str) -> u64 {
        self.errors.lock().get(plugin).copied().unwrap_or(0)
    }

    pub(super) fn text(&self, out: &mut Text) {
        let counter = |out: &mut Text, name: &str, help: &str, value: &AtomicU64| {
            out.family(name, "counter", help);
            out.sample("", value.load(Ordering::Relaxed) as f64);
        };
        counter(
            out,
            "apiserver_audit_event_total",
            "Audit events made for the audit backends.",
            &self.events,
        );
        let rejected = "Requests that failed because their audit events could not be stored.";
        counter(out, "apiserver_audit_requests_rejected_total", rejected, &self.rejected);
        for (name, label, help, counts) in [
            ("apiserver_audit_level_total", "level", "Requests by the audit policy's level.", &self.levels),
            ("apiserver_audit_error_total", "plugin", "Audit events that a plugin lost.", &self.errors),
        ] {
            out.family(name, "counter", help);
            for (value, count) in counts.lock().iter() {
                out.sample(&format!("{label}=\"{value}\""), *count as f64);
            }
        }
    }
}
