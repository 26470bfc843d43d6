//! The common language of Kubernetes objects: `Status`, field errors, names, selectors, quantities, schemas
//! and patches. Pure functions over JSON; no I/O, no clock.

pub mod apply;
mod base64;
mod cron;
mod decode;
mod field;
mod json;
pub mod local_volumes;
mod names;
pub mod patch;
pub mod protobuf;
mod quantity;
mod schema;
mod selector;
mod status;
mod structural;

pub use base64::{decode_base64, encode_base64, is_base64};
pub use cron::{CronError, CronSchedule};
pub use decode::{json_with_duplicates, with_duplicates};
pub use field::{FieldError, FieldErrors, Path};
pub use json::{MOST_DEPTH, at, at_mut, depth, ensure_object, object, set_default, str_at, strip_nulls};
pub use names::{
    config_map_key, dns_label, dns_subdomain, dns_subdomain_with_underscore, dns1035_label, env_var_name,
    generated_name, http_header_name, label_value, path_segment, port_name, qualified_name,
    validate_annotations, validate_domain_prefixed_path, validate_labels, wildcard_subdomain,
};
pub use quantity::{Quantity, QuantityError};
pub use schema::{DecodeErrors, Definitions, FieldSchema, ListType, Schema, SchemaId, Shape};
pub use selector::{FieldSelector, LabelSelector, Requirement, SelectorError};
pub use status::{Cause, Details, Reason, Status};
