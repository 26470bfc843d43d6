use std::fmt;

use serde::{Deserialize, Serialize};

use crate::field::FieldErrors;

/// The machine-readable reason of a failed request (kubernetes/kubernetes,
/// `apimachinery/pkg/apis/meta/v1/types.go`, `StatusReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::BadRequest => 400,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// One of several causes of a failure, with the field it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine-readable, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field, as in `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (plural) or, for invalid objects, the kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before another attempt.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The outcome of a request that has no object to show: Kubernetes' `v1.Status`.
///
/// Wording follows kubernetes/kubernetes, `apimachinery/pkg/api/errors/errors.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `None` for success, and for the refusals of webhooks that give no reason or one of their own.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// HTTP status code.
    pub code: u16,
}

impl Status {
    /// A failure with a message and nothing else.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: Some(reason), message: message.into(), details: None, code: reason.code() }
    }

    /// The same with its causes.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// Whether single causes are told.
    pub fn has_causes(&self) -> bool {
        self.details.as_ref().is_some_and(|details| !details.causes.is_empty())
    }

    /// A configuration to apply that does not fit its type; `what` as in `default/web; apps/v1, Kind=Deployment`.
    ///
    /// Upstream gives it no reason of its own (`managedfields/internal/structuredmerge.go`).
    pub fn not_typed(what: &str, faults: &[String]) -> Self {
        let faults = match faults {
            [one] => one.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        let message = format!("failed to create typed patch object ({what}): {faults}");
        Self { reason: None, message, details: None, code: 500 }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        (details.group, details.kind, details.name) = (group.into(), kind.into(), name.into());
        self
    }

    /// A success about an object (the answer to a delete).
    pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Self {
        let mut status = Self { reason: None, message: String::new(), details: None, code: 200 }
            .about(group, resource, name);
        status.details.get_or_insert_default().uid = uid.into();
        status
    }

    /// No such object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// No such path or resource type.
    pub fn no_such_resource() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(Reason::NotFound, "the server could not find the requested resource")
        }
    }

    /// An object of that name exists.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// The object changed since it was read, or a precondition does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(Reason::Conflict, message).about(group, resource, name)
    }

    /// The conflict of a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The object breaks the rules of its kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Self {
        let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status = Self::new(Reason::Invalid, format!("{full} \"{name}\" is invalid: {errors}"))
            .about(group, kind, name);
        status.details.get_or_insert_default().causes = errors.causes();
        status
    }

    /// The user may not do this.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(group, resource))
        };
        Self::new(Reason::Forbidden, message).about(group, resource, name)
    }

    /// Nobody known is asking.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// The verb does not exist for this resource.
    pub fn method_not_allowed() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// The resourceVersion or continue token is older than what history keeps.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// A watch from a revision that history no longer holds.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// A resourceVersion from the future.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let mut status =
            Self::new(Reason::Timeout, format!("Too large resource version: {asked}, current: {current}"));
        let details = status.details.get_or_insert_default();
        details.retry_after_seconds = 1;
        details.causes = vec![Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }];
        status
    }

    /// The server's own fault.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut status = Self::new(Reason::InternalError, format!("Internal error occurred: {why}"));
        status.details.get_or_insert_default().causes =
            vec![Cause { message: why.to_string(), ..Cause::default() }];
        status
    }

    /// Whether it is a success.
    pub fn is_success(&self) -> bool {
        self.reason.is_none() && self.code < 400
    }

    /// Its JSON form, as sent to clients.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: serde_json::Map<String, serde_json::Value>,
            status: &'static str,
            #[serde(skip_serializing_if = "str::is_empty")]
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<Reason>,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Details>,
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<u16>,
        }
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: serde_json::Map::new(),
            status: if self.is_success() { "Success" } else { "Failure" },
            message: &self.message,
            reason: self.reason,
            details: self.details.as_deref(),
            code: (!self.is_success()).then_some(self.code),
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

/// `deployments.apps`, or `pods` for the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_errors_as_upstream_does() {
        assert_eq!(Status::not_found("", "pods", "a").message, "pods \"a\" not found");
        assert_eq!(Status::not_found("apps", "deployments", "a").message, "deployments.apps \"a\" not found");
        let json: serde_json::Value =
            serde_json::from_slice(&Status::already_exists("apps", "deployments", "web").to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" already exists", "reason": "AlreadyExists",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 409
            })
        );
    }
}
