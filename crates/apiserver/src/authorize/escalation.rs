//! Who gives rights away must have them, or the right to give them (kubernetes/kubernetes,
//! `pkg/registry/rbac/*/policybased/storage.go` and `pkg/registry/rbac/escalation_check.go`).

use auth::{Attributes, Rule, User, escalation, missing_rules};
use serde_json::Value;
use types::{Status, str_at};

use crate::state::Inner;
use crate::verbs::Write;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a write to a role or binding that would give away more than the writer has.
pub(crate) async fn check(write: &Write<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let Write { server, def, user, namespace, .. } = *write;
    if *def.gvk.group != *GROUP || user.in_group(User::MASTERS) {
        return Ok(());
    }
    if old.is_some_and(|old| only_leaving(new, old)) {
        return Ok(());
    }
    let name = str_at(new, &["metadata", "name"]).unwrap_or_default();
    let forbidden = |why: &str| Status::forbidden(GROUP, &def.resource, name, why);
    let rbac = server.rbac();
    let (owned, lost) = rbac.rules_for(user, namespace);
    let said = |message: String| match lost.is_empty() {
        true => message,
        false => format!("{message}; resolution errors: [{}]", lost.join(" ")),
    };
    match &*def.resource {
        "roles" | "clusterroles" => {
            let name = if old.is_some() { name } else { "" };
            let attributes = Attributes {
                verb: "escalate",
                group: GROUP,
                version: "*",
                resource: &def.resource,
                namespace,
                name,
                ..Attributes::default()
            };
            if server.decide(user, &attributes).await.is_allowed() {
                return Ok(());
            }
            if let Some(message) = escalation(user, &owned, &Rule::read_all(new)) {
                return Err(forbidden(&said(message)));
            }
            let aggregates = |role: &Value| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
            let everything = [Rule::every_resource(), Rule::every_path()];
            if (aggregates(new) || old.is_some_and(aggregates))
                && !missing_rules(&owned, &everything).is_empty()
            {
                return Err(forbidden("must have cluster-admin privileges to use the aggregationRule"));
            }
        }
        "rolebindings" | "clusterrolebindings" => {
            let role = str_at(new, &["roleRef", "name"]).unwrap_or_default();
            let kind = str_at(new, &["roleRef", "kind"]).unwrap_or_default();
            let resource = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            let attributes = Attributes {
                verb: "bind",
                group: GROUP,
                version: "*",
                resource,
                namespace,
                name: role,
                ..Attributes::default()
            };
            if server.decide(user, &attributes).await.is_allowed() {
                return Ok(());
            }
            let rules = rbac
                .rules_of(kind, namespace, role)
                .ok_or_else(|| Status::not_found(GROUP, resource, role))?;
            if let Some(message) = escalation(user, &owned, rules) {
                return Err(forbidden(&said(message)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a write changes nothing but what the garbage collector needs to let an object go
/// (`pkg/registry/rbac/helpers.go`, `IsOnlyMutatingGCFields`).
fn only_leaving(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(new) == rest(old)
}

/// Refuses to approve or deny certificates of a signer that the user has no say in (kubernetes/kubernetes,
/// `plugin/pkg/admission/certificates/approval/admission.go`).
pub(crate) async fn certificate_approval(server: &Inner, user: &User, request: &Value) -> Result<(), Status> {
    let name = str_at(request, &["metadata", "name"]).unwrap_or_default();
    let signer = str_at(request, &["spec", "signerName"]).unwrap_or_default();
    let domain = signer.split('/').next().unwrap_or_default();
    let wildcard = format!("{domain}/*");
    for signer in [signer, &wildcard] {
        let attributes = Attributes {
            verb: "approve",
            group: "certificates.k8s.io",
            version: "*",
            resource: "signers",
            name: signer,
            ..Attributes::default()
        };
        if server.decide(user, &attributes).await.is_allowed() {
            return Ok(());
        }
    }
    let why = format!("user not permitted to approve requests with signerName {signer:?}");
    Err(Status::forbidden("certificates.k8s.io", "certificatesigningrequests", name, &why))
}
