//! What every other crate stands on: time, randomness, retry delays, shared values and orderly shutdown.
//!
//! Nothing here knows of Kubernetes or containers. Clock and randomness are parameters everywhere above
//! this crate, so that tests drive them.

mod backoff;
mod clock;
mod drain;
mod ids;
pub mod metrics;
mod pool;
mod ready;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use drain::Drain;
pub use ids::{Ids, RandomIds, SeededIds};
pub use pool::Pool;
pub use ready::{Readiness, ReadinessToken};
