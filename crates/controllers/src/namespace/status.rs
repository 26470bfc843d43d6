//! What a namespace says while it is being emptied (kubernetes/kubernetes,
//! `pkg/controller/namespace/deletion/status_condition_utils.go`).

use base::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Counts;

/// What stands between a namespace and its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Groups that could not be asked for their kinds.
    pub(super) silent: Vec<String>,
    pub(super) failures: Vec<String>,
    /// How many objects there are, by kind.
    pub(super) remaining: Counts,
    /// How many objects each finalizer holds.
    pub(super) finalizers: Counts,
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.silent.is_empty() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

pub(super) fn conditions(
    mut conditions: Vec<NamespaceCondition>,
    findings: &Findings,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let list = |counts: &Counts, how: &dyn Fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| how(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let remaining = list(&findings.remaining, &|kind, n| format!("{kind} has {n} resource instances"));
    let held = list(&findings.finalizers, &|name, n| format!("{name} in {n} resource instances"));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            (!findings.silent.is_empty()).then(|| {
                let stale = findings.silent.iter().map(|of| format!("{of}: stale GroupVersion discovery: {of}"));
                let stale = stale.collect::<Vec<_>>().join(", ");
                let why = format!(
                    "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {stale}",
                    findings.silent.len()
                );
                ("DiscoveryFailed", why)
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!findings.failures.is_empty()).then(|| {
                let mut failures = findings.failures.clone();
                failures.sort();
                let why = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    failures.len(),
                    failures.join(", ")
                );
                ("ContentDeletionFailed", why)
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!remaining.is_empty())
                .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {remaining}"))),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!held.is_empty()).then(|| {
                let what = format!("Some content in the namespace has finalizers remaining: {held}");
                ("SomeFinalizersRemain", what)
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    for (kind, trouble, calm) in rows {
        let (status, reason, message) = match trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", calm.0, calm.1.to_owned()),
        };
        let old = conditions.iter().position(|c| c.type_ == kind);
        let since = old
            .map(|place| &conditions[place])
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let new = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match old {
            Some(place) => conditions[place] = new,
            None => conditions.push(new),
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_counted() {
        let findings = Findings {
            silent: vec!["metrics.k8s.io/v1beta1".into()],
            failures: vec!["b.: no".into(), "a.: no".into()],
            ..Findings::default()
        };
        let messages: Vec<_> = conditions(Vec::new(), &findings, Timestamp::UNIX_EPOCH)
            .into_iter()
            .filter(|c| c.status == "True")
            .map(|c| c.message.unwrap())
            .collect();
        assert_eq!(
            messages,
            [
                "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                 metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1",
                "Failed to delete all resource types, 2 remaining: a.: no, b.: no",
            ]
        );
    }
}
