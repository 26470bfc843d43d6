use std::sync::Arc;

use admission::{Objects, Operation};
use auth::{BoundObject, TokenOrder};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use types::{Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{admit, audit, body, object};

/// Upstream's bounds (`pkg/apis/authentication/validation/validation.go`).
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
/// What the kubelet asks for (`pkg/serviceaccount/claims.go`, `WarnOnlyBoundTokenExpirationPeriod`), and what it gets
/// (`ExpirationExtensionSeconds`).
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 24 * 365 * 60 * 60;

/// Signs a token for a service account (kubernetes/kubernetes,
/// `pkg/registry/core/serviceaccount/storage/token.go`).
pub(super) async fn issue(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let sub = r.def.subresources.get("token").ok_or_else(Status::no_such_resource)?;
    let mut review = body::read_as(&r.registry, http, &sub.kind).await?;
    let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
    let account = object::decode(&r.def, &record.value)?;
    let request = admit::subresource(&r, &user, Operation::Create);
    server.pass(&request, Some(&mut review), None).await?;
    let spec = &review["spec"];
    let seconds = at(spec, &["expirationSeconds"]).and_then(Value::as_i64).unwrap_or(3600);
    if !(LEAST_SECONDS..=MOST_SECONDS).contains(&seconds) {
        let mut errors = types::FieldErrors::new();
        let path = types::Path::new("spec");
        let why = if seconds < LEAST_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &r.name, &errors));
    }
    let mut bound = bound(server, &r.namespace, &r.name, spec)?;
    let audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let own = BoundObject {
        name: r.name.clone(),
        uid: account["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
    };
    let tokens = &server.config.tokens;
    // Pods' tokens outlive what was asked for, for clients that read them once. Their use is noted from then on.
    let for_api = audiences.is_empty() || audiences == tokens.audiences();
    let extended = seconds == WARN_ONLY_SECONDS && bound.pod.is_some() && for_api;
    let id = server.config.ids.uid();
    audit::annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={id}"));
    let order = TokenOrder {
        namespace: r.namespace.clone(),
        account: own,
        pod: bound.pod.take(),
        node: bound.node.take(),
        secret: bound.secret.take(),
        audiences,
        seconds: if extended { EXTENDED_SECONDS } else { seconds },
        warn_after: extended.then_some(seconds),
        id,
    };
    let (token, _) = tokens.issue(order).map_err(Status::internal)?;
    let expires = server.config.clock.now().as_second().saturating_add(seconds);
    let expires = base::Timestamp::from_second(expires).map(|t| t.to_string()).unwrap_or_default();
    review["metadata"] =
        json!({"name": r.name, "namespace": r.namespace, "creationTimestamp": server.timestamp()});
    types::set_default(&mut review["spec"], "expirationSeconds", seconds);
    types::set_default(&mut review["spec"], "audiences", json!(tokens.audiences()));
    review["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(respond::json(StatusCode::CREATED, review.to_string()))
}

/// What a token is bound to.
#[derive(Default)]
struct Bound {
    pod: Option<BoundObject>,
    node: Option<BoundObject>,
    secret: Option<BoundObject>,
}

fn bound(server: &Inner, namespace: &str, account: &str, spec: &Value) -> Result<Bound, Status> {
    let Some(reference) = at(spec, &["boundObjectRef"]).filter(|r| r.is_object()) else {
        return Ok(Bound::default());
    };
    let text = |field: &str| str_at(reference, &[field]).unwrap_or_default();
    let name = text("name");
    let (table, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1" | "", "Pod") => ("pods", namespace),
        ("v1" | "", "Secret") => ("secrets", namespace),
        ("v1" | "", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to object of type {}",
                gvk(version, kind)
            )));
        }
    };
    let object = server.get(table, namespace, name).ok_or_else(|| Status::not_found("", table, name))?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    if let Some(wanted) = str_at(reference, &["uid"]).filter(|w| !w.is_empty() && *w != uid) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", table, name, &why));
    }
    let itself = Some(BoundObject { name: name.to_owned(), uid: uid.to_owned() });
    match table {
        "secrets" => return Ok(Bound { secret: itself, ..Bound::default() }),
        "nodes" => return Ok(Bound { node: itself, ..Bound::default() }),
        _ => {}
    }
    if str_at(&object, &["spec", "serviceAccountName"]) != Some(account) {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let node = str_at(&object, &["spec", "nodeName"]).filter(|n| !n.is_empty()).map(|name| {
        let node = server.get("nodes", "", name).unwrap_or_default();
        BoundObject {
            name: name.to_owned(),
            uid: node["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        }
    });
    Ok(Bound { pod: itself, node, secret: None })
}

/// As Go shows it.
fn gvk(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("{group}/{version}, Kind={kind}")
}
