//! What the API server knows of each kind: the [`ResourceDef`] table, built from the schema facts, and one small
//! [`Strategy`] for each kind that has rules of its own. Pure: no I/O, no clock but the `now` that is passed in.
//!
//! To add a kind's rules, write a `Strategy` in `kinds/` and name it in `kinds::strategy_for`; its columns go
//! into `table/`.

mod def;
mod facts;
mod kinds;
mod meta;
mod runtime_config;
mod strategy;
mod table;

pub use def::{Gvk, Registry, ResourceDef, SubresourceDef, Verb, Verbs};
pub use facts::{FACTS, KUBERNETES_VERSION};
pub use kinds::{deprecation, pod_resources, validate_ephemeral_containers_update, validate_pod_resize};
pub use meta::{validate_conditions, validate_meta, validate_meta_update};
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use strategy::{Convert, Strategy};
pub use table::{Column, age};
