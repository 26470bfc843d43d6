//! When the node runs short of something: pods that must go, and pods that are not taken (kubernetes/kubernetes,
//! `pkg/kubelet/eviction`).
//!
//! ```text
//! look ─► decide.rs: which pressures, which threshold ─► gc.rs: images and dead containers go
//!                                                        └─ not enough ─► rank.rs: a pod goes
//! ```

mod decide;
mod rank;
mod threshold;

pub(crate) use threshold::{
    defaults as default_thresholds, default_texts, duration, parse as parse_thresholds,
};
pub use threshold::{Amount, Signal, Threshold, ThresholdError, statements};
