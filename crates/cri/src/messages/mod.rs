//! All messages, by what they are about.

// What each field means is said in upstream's `api.proto`, by the same names; no need to say it twice.
#![allow(missing_docs)]

mod container;
mod image;
mod linux;
mod runtime;
mod sandbox;
mod signal;
mod stats;

pub use container::*;
pub use image::*;
pub use linux::*;
pub use runtime::*;
pub use sandbox::*;
pub use signal::*;
pub use stats::*;
