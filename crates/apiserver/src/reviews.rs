//! Questions about users and rights: resources that are asked, answered and never stored.

use std::sync::Arc;

use auth::{Attributes, RbacIndex, User};
use http::{Response, StatusCode};
use registry::ResourceDef;
use serde_json::{Value, json};
use types::{Status, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{authenticate, body};

/// Whether the resource is a question.
pub(crate) fn is_review(def: &ResourceDef) -> bool {
    matches!(&*def.gvk.group, "authorization.k8s.io" | "authentication.k8s.io")
}

/// Answers a question.
pub(crate) async fn create(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    let mut review = body::parse(&r.registry, &headers, &bytes)?.object;
    body::check_kind(&mut review, &r.def.api_version(), &r.def.gvk.kind)?;
    body::conform(&r.registry, &r.def, &mut review, &[], r.query.field_validation)?;
    let spec = review["spec"].clone();
    review["status"] = match &*r.def.resource {
        "selfsubjectaccessreviews" => access(&server.rbac(), &user, &spec),
        "subjectaccessreviews" => access(&server.rbac(), &asked_user(&spec), &spec),
        "localsubjectaccessreviews" => {
            if str_at(&spec, &["resourceAttributes", "namespace"]) != Some(r.namespace.as_str()) {
                return Err(Status::bad_request(format!(
                    "namespace on review's resourceAttributes must match the namespace of the request: {}",
                    r.namespace
                )));
            }
            access(&server.rbac(), &asked_user(&spec), &spec)
        }
        "selfsubjectrulesreviews" => {
            rules(&server.rbac(), &user, str_at(&spec, &["namespace"]).unwrap_or_default())
        }
        "selfsubjectreviews" => json!({"userInfo": user_info(&user)}),
        "tokenreviews" => token(server, &spec),
        _ => return Err(Status::no_such_resource()),
    };
    Ok(respond::json(StatusCode::CREATED, review.to_string()))
}

fn asked_user(spec: &Value) -> User {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    User {
        name: str_at(spec, &["user"]).unwrap_or_default().to_owned(),
        groups: groups.collect(),
        ..User::default()
    }
}

fn access(rbac: &RbacIndex, user: &User, spec: &Value) -> Value {
    let text = |path: [&str; 2]| str_at(spec, &path).unwrap_or_default();
    let attributes = if spec["resourceAttributes"].is_object() {
        let field = |name| text(["resourceAttributes", name]);
        Attributes {
            verb: field("verb"),
            group: field("group"),
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
            path: "",
        }
    } else {
        let field = |name| text(["nonResourceAttributes", name]);
        Attributes { verb: field("verb"), path: field("path"), ..Attributes::default() }
    };
    let decision = rbac.authorize(user, &attributes);
    // Upstream gives no reason for a refusal by RBAC here.
    let mut status = json!({"allowed": decision.allowed});
    if decision.allowed && !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    status
}

fn rules(rbac: &RbacIndex, user: &User, namespace: &str) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rbac.rules_for(user, namespace) {
        if rule.paths.is_empty() {
            let mut value =
                json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                value["resourceNames"] = json!(rule.names);
            }
            resources.push(value);
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token(server: &Inner, spec: &Value) -> Value {
    let audiences: Vec<&str> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match str_at(spec, &["token"]).and_then(|t| authenticate::token_user(server, t, &audiences)) {
        Some(user) => {
            let own = [server.config.tokens.issuer()];
            let audiences = if audiences.is_empty() { own.to_vec() } else { audiences };
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    }
}
