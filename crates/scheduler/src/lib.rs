//! Which node each pod runs on: [`place`] decides, over columns of what the nodes have and what is taken; the loop
//! in `run/` keeps the columns up to date and binds.

mod config;
mod dra;
mod features;
mod hints;
mod metrics;
mod place;
mod pod;
mod preempt;
mod reason;
mod run;
mod score;
mod view;
mod volumes;

pub use config::{ExtenderSettings, ExtenderTls, Settings, SettingsError};
pub use metrics::metrics;
pub use place::place;
pub use pod::PodInfo;
pub use reason::{Reason, Unschedulable};
pub use run::{Config, ExtenderAnswer, ExtenderCall, NAME, run};
pub use view::{ClusterView, PodChange};

#[cfg(test)]
mod model;
