//! What the API server knows of each kind: the [`ResourceDef`] table, built from the schema facts, and one small
//! [`Strategy`] for each kind that has rules of its own. Pure: no I/O, no clock but the `now` that is passed in.
//!
//! To add a kind's rules, write a `Strategy` in `kinds/` and name it in `kinds::strategy_for`; its columns go
//! into `table/`.

mod custom;
mod def;
mod expressions;
mod facts;
mod kinds;
mod meta;
mod registry;
mod runtime_config;
mod strategy;
mod table;
mod type_check;
mod version;

pub use custom::{
    CLEANUP, Conformed, Conversion, Custom, Names, ScalePaths, SchemaRules, TakenNames, Vintage, accept,
    custom_resources, head, is_true, set_condition,
};
pub use def::{Gvk, ResourceDef, Shared, SubresourceDef, Verb, Verbs};
pub use expressions::{ExpressionScope, Variables, Wanted, compile_expression};
pub use facts::{KUBERNETES_VERSION, facts};
pub use kinds::{deprecation, pod_resources, validate_ephemeral_containers_update, validate_pod_resize};
pub use meta::{validate_conditions, validate_meta, validate_meta_update};
pub use registry::Registry;
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use strategy::{Convert, Strategy};
pub use table::{Column, age};
pub use type_check::type_warnings;
pub use version::compare_versions;
