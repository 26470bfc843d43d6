//! The Container Runtime Interface, version 1: its messages and calls (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`).
//!
//! It serves both ends: whoever asks a runtime and whoever is one. Fields have upstream's names, in snake case; a message
//! that may be missing is an `Option`. What is for Windows only is left out, and skipped where it comes.

mod calls;
mod messages;
mod wire;

pub use calls::{Call, IMAGE_SERVICE, RUNTIME_SERVICE, images, runtime};
pub use messages::*;
pub use wire::{DecodeError, Message};
