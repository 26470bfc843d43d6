/// A look that failed. It will be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("cannot {attempt}: {}", client::message(.source))]
    Api {
        /// What was tried.
        attempt: String,
        /// Why it failed.
        source: kube::Error,
    },
    /// A selector that cannot be understood.
    #[error("cannot use the selector of {object}: {source}")]
    Selector {
        /// Whose selector.
        object: String,
        /// Why.
        source: types::SelectorError,
    },
    /// An object that the server should have filled in.
    #[error("{object} has no {field}")]
    Incomplete {
        /// Which object.
        object: String,
        /// Which field.
        field: &'static str,
    },
}

/// Names what was tried.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { attempt: what(), source })
    }
}
