//! What scores take a pod for.

use client::{Amounts, PodSpecView, sum_over_containers};

/// For scores, a container that says nothing counts as if it asked for this much
/// (kubernetes/kubernetes, `pkg/scheduler/util/pod_resources.go`).
pub(super) const SMALL_CPU: i64 = 100;
pub(super) const SMALL_MEMORY: i64 = 200 * 1024 * 1024;

/// Cores and memory as scores count them: a container that does not mention one of them counts for a little, unless
/// the pod as a whole says how much (`pkg/scheduler/framework/types.go`, `calculateResource`).
pub(super) fn weight(spec: &PodSpecView, requests: &Amounts) -> (i64, i64) {
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let said = |name: &str| whole.is_some_and(|w| w.contains_key(name));
    let total = sum_over_containers(spec, |container| {
        let list = container.and_then(|r| r.requests.as_ref());
        let mut amounts = Amounts::of(list);
        let mentions = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !mentions("cpu") {
            amounts.cpu = SMALL_CPU;
        }
        if !mentions("memory") {
            amounts.memory = SMALL_MEMORY;
        }
        amounts
    });
    let overhead = Amounts::of(spec.overhead.as_ref());
    (
        if said("cpu") { requests.cpu } else { total.cpu.saturating_add(overhead.cpu) },
        if said("memory") { requests.memory } else { total.memory.saturating_add(overhead.memory) },
    )
}
