//! Asking what a user may do (apiserver, `pkg/cel/library/authz.go`). Whom to ask is given by the caller.

use std::fmt;
use std::sync::Arc;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Opaque, Value};

macro_rules! rows {
    ($($name:literal, $call:ident, $($overload:literal),+;)*) => {
        &[$(Function($name, Call::Plain($call), &[$($overload),+])),*]
    };
}

pub(super) const TABLE: &[Function] = rows! {
    "path", path, "authorizer_path kubernetes.authorization.Authorizer.(string) kubernetes.authorization.PathCheck";
    "group", group, "authorizer_group kubernetes.authorization.Authorizer.(string) kubernetes.authorization.GroupCheck";
    "serviceAccount", service_account, "authorizer_serviceaccount kubernetes.authorization.Authorizer.(string, string) kubernetes.authorization.Authorizer";
    "resource", resource, "groupcheck_resource kubernetes.authorization.GroupCheck.(string) kubernetes.authorization.ResourceCheck";
    "subresource", subresource, "resourcecheck_subresource kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck";
    "namespace", namespace, "resourcecheck_namespace kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck";
    "name", name, "resourcecheck_name kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck";
    "fieldSelector", field_selector, "resourcecheck_fieldselector kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck";
    "labelSelector", label_selector, "resourcecheck_labelselector kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck";
    "check", check,
        "pathcheck_check kubernetes.authorization.PathCheck.(string) kubernetes.authorization.Decision",
        "resourcecheck_check kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.Decision";
    "errored", errored, "decision_errored kubernetes.authorization.Decision.() bool";
    "error", error, "decision_error kubernetes.authorization.Decision.() string";
    "allowed", allowed, "decision_allowed kubernetes.authorization.Decision.() bool";
    "reason", reason, "decision_reason kubernetes.authorization.Decision.() string";
};

/// Answers what a user may do. It knows the user of the request; an expression may ask for a service account instead.
pub trait Authorizer: Send + Sync {
    /// Whether this is allowed.
    fn authorize(&self, request: &AuthzRequest) -> AuthzDecision;
}

/// What an expression asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzRequest {
    /// Namespace and name of the service account that is meant; without, the user of the request.
    pub service_account: Option<(String, String)>,
    /// The verb.
    pub verb: String,
    /// What it is about.
    pub target: AuthzTarget,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthzTarget {
    /// A path such as `/healthz`.
    Path(String),
    /// A resource.
    Resource(AuthzResource),
}

impl Default for AuthzTarget {
    fn default() -> Self {
        Self::Path(String::new())
    }
}

/// A resource; what is not given is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AuthzResource {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzDecision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

/// A question under way, or its answer.
#[derive(Clone)]
pub enum Authz<'a> {
    /// `authorizer`.
    User(Asker<'a>),
    /// `.path(…)`
    Path(Asker<'a>, String),
    /// `.group(…)`
    Group(Asker<'a>, String),
    /// `.resource(…)`
    Resource(Asker<'a>, AuthzResource),
    /// `.check(…)`
    Decision(AuthzDecision),
}

/// Whom to ask, and about whom.
#[derive(Clone)]
pub struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    service_account: Option<(String, String)>,
}

impl fmt::Debug for Authz<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

impl Authz<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::User(_) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl<'a> Value<'a> {
    /// The value of a variable `authorizer`; its type is `Type::Opaque("kubernetes.authorization.Authorizer")`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        made(Authz::User(Asker { authorizer, service_account: None }))
    }

    /// The value of a variable `authorizer.requestResource`: the resource of the request itself. Its type is
    /// `Type::Opaque("kubernetes.authorization.ResourceCheck")`.
    pub fn resource_check(authorizer: &'a dyn Authorizer, resource: AuthzResource) -> Self {
        made(Authz::Resource(Asker { authorizer, service_account: None }, resource))
    }
}

fn made(authz: Authz<'_>) -> Value<'_> {
    Value::Opaque(Opaque::Authz(Arc::new(authz)))
}

/// The receiver and its one text argument.
fn parts<'v, 'a>(args: &'v [Value<'a>]) -> Outcome<(&'v Authz<'a>, &'v str)> {
    match args {
        [Value::Opaque(Opaque::Authz(a)), Value::String(s)] => Ok((a, s)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn path<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match parts(args)? {
        (Authz::User(asker), path) if !path.trim().is_empty() => {
            Ok(made(Authz::Path(asker.clone(), path.into())))
        }
        (Authz::User(_), _) => fail("path must not be empty"),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn group<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match parts(args)? {
        (Authz::User(asker), group) => Ok(made(Authz::Group(asker.clone(), group.into()))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Opaque(Opaque::Authz(authz)), Value::String(namespace), Value::String(name)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let Authz::User(asker) = &**authz else { return Err(EvalError::no_such_overload()) };
    if types::dns_subdomain(name).is_some() {
        return fail("Invalid service account name");
    }
    if types::dns_label(namespace).is_some() {
        return fail("Invalid service account namespace");
    }
    let service_account = Some((namespace.to_string(), name.to_string()));
    Ok(made(Authz::User(Asker { authorizer: asker.authorizer, service_account })))
}

fn resource<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match parts(args)? {
        (Authz::Group(..), resource) if resource.trim().is_empty() => fail("resource must not be empty"),
        (Authz::Group(asker, group), resource) => {
            let resource =
                AuthzResource { group: group.clone(), resource: resource.into(), ..Default::default() };
            Ok(made(Authz::Resource(asker.clone(), resource)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn with<'a>(args: &[Value<'a>], set: fn(&mut AuthzResource, String)) -> Outcome<Value<'a>> {
    match parts(args)? {
        (Authz::Resource(asker, resource), text) => {
            let mut resource = resource.clone();
            set(&mut resource, text.into());
            Ok(made(Authz::Resource(asker.clone(), resource)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn subresource<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    with(args, |r, s| r.subresource = s)
}

fn namespace<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    with(args, |r, s| r.namespace = s)
}

fn name<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    with(args, |r, s| r.name = s)
}

fn field_selector<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    with(args, |r, s| r.field_selector = s)
}

fn label_selector<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    with(args, |r, s| r.label_selector = s)
}

fn check<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (authz, verb) = parts(args)?;
    let (asker, target) = match authz {
        Authz::Path(asker, path) => (asker, AuthzTarget::Path(path.clone())),
        Authz::Resource(asker, resource) => (asker, AuthzTarget::Resource(resource.clone())),
        _ => return Err(EvalError::no_such_overload()),
    };
    let request = AuthzRequest { service_account: asker.service_account.clone(), verb: verb.into(), target };
    Ok(made(Authz::Decision(asker.authorizer.authorize(&request))))
}

fn decision<'v>(args: &'v [Value<'_>]) -> Outcome<&'v AuthzDecision> {
    match args {
        [Value::Opaque(Opaque::Authz(authz))] => match &**authz {
            Authz::Decision(decision) => Ok(decision),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn errored<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(decision(args)?.error.is_some()))
}

fn error<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::text(decision(args)?.error.as_deref().unwrap_or_default()))
}

fn allowed<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::Bool(decision(args)?.allowed))
}

fn reason<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    Ok(Value::text(&*decision(args)?.reason))
}
