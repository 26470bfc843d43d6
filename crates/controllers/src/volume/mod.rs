//! Persistent volumes and their claims: who gets which, where they are attached, and that nothing goes while it is in use.

mod attach;
mod binder;
mod ephemeral;
mod expand;
mod protection;
#[cfg(test)]
pub(crate) mod testing;
mod users;

pub(crate) use attach::start as start_attach;
pub(crate) use binder::start as start_binder;
pub(crate) use ephemeral::start as start_ephemeral;
pub(crate) use expand::start as start_expand;
pub(crate) use protection::{start_attributes, start_claims, start_volumes};
