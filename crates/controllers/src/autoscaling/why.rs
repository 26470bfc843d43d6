use super::metrics::MetricsError;

/// Why a measurement leads to no number of pods.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoSamples,
    #[error("no metrics returned matched known pods")]
    NoMatch,
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    NoRequest { resource: String, container: String, pod: String },
    #[error("missing pod-level request for {resource} in Pod {pod}")]
    NoPodRequest { resource: String, pod: String },
    #[error("container {container} not found in Pod {pod}")]
    NoContainer { container: String, pod: String },
    #[error("{0}")]
    Metrics(MetricsError),
    #[error("unable to get metric {metric}: {why} on {whose}")]
    Unable { metric: String, why: MetricsError, whose: String },
    #[error("{0}")]
    Selector(types::SelectorError),
    #[error("invalid {what} metric source: neither {} target nor an average {} target was set",
        if *.what == "resource" { "an average utilization" } else { "a value" },
        if *.what == "resource" { "value (usage)" } else { "value" })]
    NoTarget { what: &'static str },
    #[error("unknown metric source type {0:?}")]
    UnknownType(String),
    #[error("selector is required")]
    NoSelector,
    #[error("couldn't convert selector into a corresponding internal selector object: {0}")]
    BadSelector(types::SelectorError),
    #[error("pods by selector {selector} are controlled by multiple HPAs: [{}]", .all.join(" "))]
    Ambiguous { selector: String, all: Vec<String> },
    #[error("invalid metrics ({invalid} invalid out of {all}), first error is: {first}")]
    Invalid { invalid: usize, all: usize, first: Box<Why> },
    #[error("{attempt}: {source}")]
    During { attempt: String, source: Box<Why> },
}

impl Why {
    /// The same, and what was tried.
    pub(super) fn during(self, attempt: impl Into<String>) -> Self {
        Self::During { attempt: attempt.into(), source: Box::new(self) }
    }
}
