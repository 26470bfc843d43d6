//! What callers ask of a failed request.

use kube::Error;
use kube::core::Status;

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::Api(status) => Some(status),
        _ => None,
    }
}

/// The object is not there.
pub fn is_not_found(error: &Error) -> bool {
    status(error).is_some_and(Status::is_not_found)
}

/// Somebody else wrote first.
pub fn is_conflict(error: &Error) -> bool {
    status(error).is_some_and(Status::is_conflict)
}

/// An object of this name is there already.
pub fn is_already_exists(error: &Error) -> bool {
    status(error).is_some_and(Status::is_already_exists)
}

/// The caller may not do this.
pub fn is_forbidden(error: &Error) -> bool {
    status(error).is_some_and(Status::is_forbidden)
}

/// The object breaks a rule; trying again will not help.
pub fn is_invalid(error: &Error) -> bool {
    status(error).is_some_and(Status::is_invalid)
}

/// The revision asked for is too old.
pub fn is_expired(error: &Error) -> bool {
    status(error).is_some_and(|s| s.code == 410)
}

/// Nothing new can be made in this namespace: it is going.
pub fn is_namespace_terminating(error: &Error) -> bool {
    let causes = status(error).and_then(|s| s.details.as_ref()).map(|d| d.causes.as_slice());
    causes.unwrap_or_default().iter().any(|c| c.reason == "NamespaceTerminating")
}

/// The server understood and refused, for a reason that lies in the request.
pub fn is_server_refusal(error: &Error) -> bool {
    status(error).is_some_and(|s| (400..500).contains(&s.code) && s.code != 429)
}

/// What went wrong, as the server put it.
pub fn message(error: &Error) -> String {
    match status(error) {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => error.to_string(),
    }
}
