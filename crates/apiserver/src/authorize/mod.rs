//! May they do this?

mod aggregation;
mod bootstrap;
mod escalation;
mod file;
mod nodes;
mod rbac;
mod webhook;

use std::sync::Arc;

use auth::{Answer, Attributes, Decision, FieldRequirement, RbacIndex, Selectors, User};
use parking_lot::RwLock;
use registry::Verb;
use types::Status;

use crate::request::{ResourceRequest, Target, Unserved};
use crate::state::Inner;

pub use webhook::{AuthorizationWebhook, AuthorizationWebhookOptions};

pub(crate) use aggregation::start as start_aggregation;
pub(crate) use bootstrap::ensure as ensure_policy;
pub(crate) use escalation::{certificate_approval, check as check_escalation};
pub(crate) use file::{apply as apply_file, read as read_file};

/// Who is asked, in this order, whether a request may go on (upstream: `--authorization-mode`).
#[derive(Clone, Debug)]
pub enum AuthorizerConfig {
    /// Nodes, by what their pods need.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is.
    AlwaysDeny,
    /// Somebody else says.
    Webhook(Arc<AuthorizationWebhook>),
}

/// A list of modes that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// There is no such mode.
    #[error("authorization mode {0:?} is unknown; use Node, RBAC, AlwaysAllow, AlwaysDeny or Webhook")]
    Unknown(String),
    /// Once is enough.
    #[error("authorization mode {0:?} is given twice")]
    Twice(String),
    /// Nobody knows whom to ask.
    #[error("authorization mode Webhook needs --authorization-webhook-config-file")]
    NoWebhook,
    /// Without any, nothing could be done.
    #[error("at least one authorization mode must be given")]
    None,
}

impl AuthorizerConfig {
    /// What upstream's clusters have.
    pub fn defaults() -> Vec<Self> {
        vec![Self::Node, Self::Rbac]
    }

    /// Reads upstream's names.
    pub fn parse(
        names: &[String],
        webhook: Option<Arc<AuthorizationWebhook>>,
    ) -> Result<Vec<Self>, ModeError> {
        let mut modes = Vec::new();
        for name in names {
            let mode = match name.as_str() {
                "Node" => Self::Node,
                "RBAC" => Self::Rbac,
                "AlwaysAllow" => Self::AlwaysAllow,
                "AlwaysDeny" => Self::AlwaysDeny,
                "Webhook" => Self::Webhook(webhook.clone().ok_or(ModeError::NoWebhook)?),
                _ => return Err(ModeError::Unknown(name.clone())),
            };
            if modes.iter().any(|other| std::mem::discriminant(other) == std::mem::discriminant(&mode)) {
                return Err(ModeError::Twice(name.clone()));
            }
            modes.push(mode);
        }
        if modes.is_empty() { Err(ModeError::None) } else { Ok(modes) }
    }
}

/// Everybody who is asked, and what they know.
pub(crate) struct Authorization {
    chain: RwLock<Arc<[AuthorizerConfig]>>,
    rbac: rbac::RbacCache,
    nodes: nodes::Nodes,
}

impl Authorization {
    pub(crate) fn new(config: &[AuthorizerConfig]) -> Self {
        Self {
            chain: RwLock::new(config.into()),
            rbac: rbac::RbacCache::default(),
            nodes: nodes::Nodes::default(),
        }
    }

    fn chain(&self) -> Arc<[AuthorizerConfig]> {
        self.chain.read().clone()
    }

    /// Asks others from now on.
    pub(crate) fn change(&self, config: &[AuthorizerConfig]) {
        *self.chain.write() = config.into();
    }
}

/// What those said who had no opinion.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Undecided {
    fn add(&mut self, answer: Answer) {
        self.reasons.extend(Some(answer.reason).filter(|r| !r.is_empty()));
        self.errors.extend(answer.error);
    }

    fn answer(self) -> Answer {
        let error = match self.errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        };
        Answer { decision: Decision::NoOpinion, reason: self.reasons.join("\n"), error }
    }
}

impl Inner {
    /// Roles and bindings as they are now.
    pub(crate) fn rbac(&self) -> Arc<RbacIndex> {
        self.authorization.rbac.index(&self.store)
    }

    /// Asks everybody in turn; the first one with an opinion decides (kubernetes/kubernetes,
    /// `apiserver/pkg/authorization/union/union.go`).
    pub(crate) async fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Answer {
        if user.in_group(User::MASTERS) {
            return Answer::allow("");
        }
        let mut undecided = Undecided::default();
        for authorizer in self.authorization.chain().iter() {
            let answer = match authorizer {
                // Boxed, because it is rare and its future is large: every request would carry the room for it.
                AuthorizerConfig::Webhook(webhook) => Box::pin(webhook.authorize(user, attributes)).await,
                other => self.ask(other, user, attributes),
            };
            if answer.decision != Decision::NoOpinion {
                return answer;
            }
            undecided.add(answer);
        }
        undecided.answer()
    }

    /// The same without waiting for anybody; nothing if somebody has to be asked first.
    pub(crate) fn decide_now(&self, user: &User, attributes: &Attributes<'_>) -> Option<Answer> {
        if user.in_group(User::MASTERS) {
            return Some(Answer::allow(""));
        }
        let mut undecided = Undecided::default();
        for authorizer in self.authorization.chain().iter() {
            let answer = match authorizer {
                AuthorizerConfig::Webhook(webhook) => webhook.known(user, attributes)?,
                other => self.ask(other, user, attributes),
            };
            if answer.decision != Decision::NoOpinion {
                return Some(answer);
            }
            undecided.add(answer);
        }
        Some(undecided.answer())
    }

    /// Asks one who knows by itself.
    fn ask(&self, authorizer: &AuthorizerConfig, user: &User, attributes: &Attributes<'_>) -> Answer {
        match authorizer {
            AuthorizerConfig::Node => self.authorization.nodes.authorize(&self.store, user, attributes),
            AuthorizerConfig::Rbac => self.rbac().authorize(user, attributes),
            AuthorizerConfig::AlwaysAllow => Answer::allow(""),
            AuthorizerConfig::AlwaysDeny => Answer::no_opinion("Everything is forbidden."),
            AuthorizerConfig::Webhook(_) => Answer::no_opinion(""),
        }
    }

    /// Whether everybody who is asked can list the rules they go by for this user.
    pub(crate) fn incomplete_rules(&self, user: &User) -> Option<&'static str> {
        let node = auth::node_of(user).is_some();
        self.authorization.chain().iter().find_map(|authorizer| match authorizer {
            AuthorizerConfig::Webhook(_) => Some("webhook authorizer does not support user rule resolution"),
            AuthorizerConfig::Node if node => Some("node authorizer does not support user rule resolution"),
            _ => None,
        })
    }

    /// Whether everything is allowed to everybody.
    pub(crate) fn always_allows(&self) -> bool {
        self.authorization.chain().iter().any(|a| matches!(a, AuthorizerConfig::AlwaysAllow))
    }
}

/// Refuses, in upstream's words, what nobody allows. Gives the reason of those who do.
pub(crate) async fn demand(
    server: &Inner,
    user: &User,
    attributes: &Attributes<'_>,
) -> Result<String, Status> {
    let answer = server.decide(user, attributes).await;
    if answer.is_allowed() {
        return Ok(answer.reason);
    }
    if let Some(error) = answer.error {
        return Err(Status::internal(error));
    }
    Err(refuse(user, attributes, &answer.reason))
}

/// The refusal.
pub(crate) fn refuse(user: &User, a: &Attributes<'_>, reason: &str) -> Status {
    Status::forbidden(a.group, a.resource, a.name, &a.refusal(user, reason))
}

/// Refuses what nobody allows. Gives the reason of those who do.
pub(crate) async fn authorize(
    server: &Inner,
    user: &User,
    method: &http::Method,
    target: &Target,
) -> Result<String, Status> {
    // Most requests of a cluster at rest come from its own components.
    if user.in_group(User::MASTERS) {
        return Ok(String::new());
    }
    match target {
        Target::Resource(request) => authorize_resource(server, user, method, request).await,
        Target::Unserved(unserved) => demand(server, user, &attributes_of_unserved(unserved)).await,
        Target::Path(parts) => {
            let path = path_of(parts);
            let verb = method.as_str().to_lowercase();
            let attributes = Attributes { verb: &verb, path: &path, ..Attributes::default() };
            demand(server, user, &attributes).await
        }
    }
}

/// A path out of its parts.
pub(crate) fn path_of(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

/// The verbs that a request takes.
///
/// Upstream authorizes `connect` by the HTTP method. A WebSocket begins with a GET, but whoever runs something in a pod
/// with it needs the right to create, too (`AuthorizePodWebsocketUpgradeCreatePermission`).
pub(crate) fn verbs_of(r: &ResourceRequest, method: &http::Method) -> &'static [&'static str] {
    match r.verb {
        Verb::Connect => match *method {
            http::Method::POST => &["create"],
            http::Method::PUT => &["update"],
            http::Method::PATCH => &["patch"],
            http::Method::DELETE => &["delete"],
            _ if r.elsewhere.is_none()
                && matches!(r.subresource.as_str(), "exec" | "attach" | "portforward") =>
            {
                &["get", "create"]
            }
            _ => &["get"],
        },
        Verb::Get => &["get"],
        Verb::List => &["list"],
        Verb::Watch => &["watch"],
        Verb::Create => &["create"],
        Verb::Update => &["update"],
        Verb::Patch => &["patch"],
        Verb::Delete => &["delete"],
        Verb::DeleteCollection => &["deletecollection"],
    }
}

/// What a request asks for, but for the verb.
pub(crate) fn attributes_of<'a>(r: &'a ResourceRequest, selectors: Option<&'a Selectors>) -> Attributes<'a> {
    // A list of one name is a request about that name.
    let name = match r.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection if r.name.is_empty() => {
            r.query.fields.required("metadata.name").unwrap_or_default()
        }
        _ => &r.name,
    };
    Attributes {
        verb: "",
        group: &r.def.gvk.group,
        version: &r.def.gvk.version,
        resource: &r.def.resource,
        subresource: &r.subresource,
        // A namespace is within itself (`requestinfo.go`).
        namespace: if &*r.def.table == "namespaces" { &r.name } else { &r.namespace },
        name,
        path: "",
        selectors,
    }
}

/// The same of what cannot be served.
pub(crate) fn attributes_of_unserved(u: &Unserved) -> Attributes<'_> {
    Attributes {
        verb: u.verb,
        group: &u.group,
        version: &u.version,
        resource: &u.resource,
        subresource: &u.subresource,
        namespace: &u.namespace,
        name: &u.name,
        ..Attributes::default()
    }
}

fn selectors_of(r: &ResourceRequest) -> Option<Selectors> {
    let narrowed = !r.query.fields.is_everything() || !r.query.labels.is_everything();
    let many = matches!(r.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    (narrowed && many).then(|| Selectors {
        fields: r
            .query
            .fields
            .requirements()
            .map(|(field, equals, value)| FieldRequirement {
                field: field.to_owned(),
                equals,
                value: value.to_owned(),
            })
            .collect(),
        labels: r.query.labels.requirements().to_vec(),
    })
}

async fn authorize_resource(
    server: &Inner,
    user: &User,
    method: &http::Method,
    r: &ResourceRequest,
) -> Result<String, Status> {
    let selectors = selectors_of(r);
    let attributes = attributes_of(r, selectors.as_ref());
    let mut reason = String::new();
    for verb in verbs_of(r, method) {
        reason = demand(server, user, &Attributes { verb, ..attributes }).await?;
    }
    Ok(reason)
}

/// Refuses a request that turns out to need another verb than its own, such as an apply that creates.
pub(crate) async fn may(server: &Inner, user: &User, verb: Verb, r: &ResourceRequest) -> Result<(), Status> {
    let attributes = Attributes { verb: verb.as_str(), ..attributes_of(r, None) };
    demand(server, user, &attributes).await.map(drop)
}
