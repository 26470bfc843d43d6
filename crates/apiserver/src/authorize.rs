//! May they do this?

use auth::{Attributes, User};
use registry::Verb;
use types::Status;

use crate::request::{ResourceRequest, Target};
use crate::state::Inner;

/// Refuses what no role allows.
pub(crate) fn authorize(
    server: &Inner,
    user: &User,
    method: &http::Method,
    target: &Target,
) -> Result<(), Status> {
    // Most requests of a cluster at rest come from its own components; they skip the index.
    if user.in_group(User::MASTERS) {
        return Ok(());
    }
    match target {
        Target::Resource(request) => authorize_resource(server, user, method, request),
        Target::Path(parts) => {
            let path = format!("/{}", parts.join("/"));
            let verb = method.as_str().to_lowercase();
            let attributes = Attributes { verb: &verb, path: &path, ..Attributes::default() };
            let decision = server.rbac().authorize(user, &attributes);
            decision.allowed.then_some(()).ok_or_else(|| Status::forbidden("", "", "", &decision.reason))
        }
    }
}

fn authorize_resource(
    server: &Inner,
    user: &User,
    method: &http::Method,
    r: &ResourceRequest,
) -> Result<(), Status> {
    // Upstream authorizes `connect` by the HTTP method. A WebSocket begins with a GET, but whoever runs something in a
    // pod with it needs the right to create, too (`AuthorizePodWebsocketUpgradeCreatePermission`).
    let verbs: &[&str] = match r.verb {
        Verb::Connect => match *method {
            http::Method::POST => &["create"],
            http::Method::PUT => &["update"],
            http::Method::PATCH => &["patch"],
            http::Method::DELETE => &["delete"],
            _ if matches!(r.subresource.as_str(), "exec" | "attach" | "portforward") => &["get", "create"],
            _ => &["get"],
        },
        verb => &[verb.as_str()],
    };
    // A list of one name is a request about that name.
    let name = match r.verb {
        Verb::List | Verb::Watch if r.name.is_empty() => {
            r.query.fields.required("metadata.name").unwrap_or_default()
        }
        _ => &r.name,
    };
    for verb in verbs {
        let attributes = Attributes {
            verb,
            group: &r.def.gvk.group,
            resource: &r.def.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
            name,
            path: "",
        };
        let decision = server.rbac().authorize(user, &attributes);
        if !decision.allowed {
            let resource = if r.subresource.is_empty() {
                r.def.resource.to_string()
            } else {
                format!("{}/{}", r.def.resource, r.subresource)
            };
            return Err(Status::forbidden(&r.def.gvk.group, &resource, &r.name, &decision.reason));
        }
    }
    Ok(())
}

/// Refuses a request that turns out to need another verb than its own, such as an apply that creates.
pub(crate) fn may(server: &Inner, user: &User, verb: Verb, r: &ResourceRequest) -> Result<(), Status> {
    if user.in_group(User::MASTERS) {
        return Ok(());
    }
    let attributes = Attributes {
        verb: verb.as_str(),
        group: &r.def.gvk.group,
        resource: &r.def.resource,
        subresource: &r.subresource,
        namespace: &r.namespace,
        name: &r.name,
        path: "",
    };
    let decision = server.rbac().authorize(user, &attributes);
    let refuse = || Status::forbidden(&r.def.gvk.group, &r.def.resource, &r.name, &decision.reason);
    decision.allowed.then_some(()).ok_or_else(refuse)
}
