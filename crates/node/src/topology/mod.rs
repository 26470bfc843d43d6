//! How the machine is built, and how closely together what a pod gets of it lies.

mod cpus;
mod machine;
mod mask;
mod policy;
#[cfg(test)]
mod tests;

pub use cpus::{CpuSet, CpuSetError};
#[cfg(test)]
pub(crate) use machine::made;
pub(crate) use machine::{Cpu, Machine};
pub(crate) use mask::Mask;
pub use policy::{TopologyPolicy, TopologyScope};
pub(crate) use policy::{Hint, Wishes, decide};
