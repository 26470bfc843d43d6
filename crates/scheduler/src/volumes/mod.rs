//! What pods' claims ask of their nodes (kubernetes/kubernetes, `pkg/scheduler/framework/plugins/volumebinding`,
//! `volumezone`, `volumerestrictions` and `nodevolumelimits`).
//!
//! ```text
//! claims of a pod ─┬► bound: the node must reach the volume
//!                  ├► delayed: a free volume there, or one can be made there ─► Plan ─► written ─► bound? ─► pod bound
//!                  └► anything else: the pod waits
//! ```

mod ask;
mod choice;
mod known;
mod limits;
mod progress;
mod restrictions;

pub(crate) use ask::VolumeAsk;
pub(crate) use choice::Plan;
pub(crate) use known::Volumes;
pub(crate) use limits::Shift;
pub(crate) use progress::{Progress, progress};

#[cfg(test)]
mod tests;
