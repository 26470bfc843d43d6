use crate::cri::CriError;

/// Why what runs pods could not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The runtime that is built in.
    #[error(transparent)]
    BuiltIn(#[from] runtime::Error),
    /// Another one.
    #[error(transparent)]
    Cri(#[from] CriError),
}

impl EngineError {
    /// Whether the sandbox or container is not known.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::BuiltIn(error) => error.is_not_found(),
            Self::Cri(error) => error.is_not_found(),
        }
    }

    /// Whether a container could not be started, and is kept as one that has ended.
    pub(crate) fn is_unstarted(&self) -> bool {
        matches!(self, Self::BuiltIn(runtime::Error::Start(_)))
    }

    /// Whether a command took longer than it may.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::BuiltIn(error) => matches!(error, runtime::Error::Timeout { .. }),
            Self::Cri(error) => error.is_timeout(),
        }
    }
}
