//! System calls: the only crate with `unsafe` code.
#![allow(unsafe_code)]

mod error;

pub use error::{Error, Result};
