//! One file for each verb; every resource goes through the same code.

mod apply;
mod create;
mod delete;
mod get;
mod list;
mod owners;
mod patch;
mod update;
mod watch;
mod write;

pub(crate) use apply::{edit as apply_edit, is_apply, no_field_manager};
pub(crate) use create::{create, create_object, set_namespace};
pub(crate) use delete::{Deletion, delete, delete_collection, delete_object};
pub(crate) use get::get;
pub(crate) use list::{list, wait_for};
pub(crate) use owners::{ignore_times, settle as settle_owners};
pub(crate) use patch::{patch, patch_value};
pub(crate) use update::{Edited, Part, rewrite, update};
pub(crate) use watch::watch;
pub(crate) use write::{Write, Written, seconds_text};
