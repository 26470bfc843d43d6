//! The cluster's wishes as packet rules and names: Services and cluster DNS.
//!
//! Both parts read the same plain values, [`ServiceState`]. Each has a pure half, which decides, and a half that
//! acts: [`services::desired`] and [`services::Applier`], [`dns::Zone`] and [`dns::Server`].

pub mod dns;
mod run;
pub mod services;
mod state;

pub use run::{Config, TABLE, TrafficError, run};
pub use state::{
    Endpoint, EndpointPort, Protocol, Service, ServiceName, ServicePort, ServiceState, ServiceType,
    TrafficPolicy,
};
