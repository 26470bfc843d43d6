//! The patch formats that PATCH accepts, on JSON.

mod json;
mod merge;
mod strategic;

pub use json::{JsonPatch, JsonPatchError};
pub use merge::merge_patch;
pub use strategic::{StrategicError, strategic_merge};
