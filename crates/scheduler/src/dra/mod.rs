//! Devices for pods' claims (kubernetes/kubernetes, `pkg/scheduler/framework/plugins/dynamicresources` and
//! `dynamic-resource-allocation/structured`).
//!
//! ```text
//! slices ─► pools ─┐
//! classes ─────────┼► DeviceAsk of a pod ─► allocate, for one node ─► Grant ─► assumed ─► written ─► ready? ─► pod bound
//! claims ─► taken ─┘                                                     └────── no: taken back ◄──────┘
//! ```
//!
//! A claim that is allocated says itself where its pods may run. Any other is asked of each node: a full search over the
//! devices in reach, in a fixed order, so that the same question has the same answer.

mod allocate;
mod amounts;
mod ask;
mod constraint;
mod extended;
mod known;
mod pool;
mod result;
mod slice;
mod taken;
mod wanted;

pub(crate) use ask::{DeviceAsk, ExtendedGrant, Grant};
pub(crate) use known::{Devices, News, Readiness};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
