//! `metrics.k8s.io`: what nodes and pods use now, for `kubectl top` and autoscalers, with nothing to install
//! (kubernetes-sigs/metrics-server).
//!
//! [`Metrics::run`] asks each node's agent for its numbers every 15 seconds, [`Samples`](samples::Samples) keeps the last
//! two of each container, and [`Metrics::answer`] tells of them as an extension API server does. Who may ask has been
//! found out before.

mod answer;
mod exposition;
mod list;
mod samples;
mod scrape;

pub use answer::Answer;
pub use scrape::Metrics;

/// The group that is served.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";
/// How much the two are to be preferred to others, as metrics-server has it.
pub const PRIORITY: (i64, i64) = (100, 100);
