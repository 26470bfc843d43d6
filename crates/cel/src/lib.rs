//! Google's Common Expression Language as Kubernetes uses it.

mod error;
mod syntax;

pub use error::{CompileErrors, EvalError, Issue};
