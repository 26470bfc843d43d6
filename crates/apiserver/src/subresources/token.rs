use std::sync::Arc;

use admission::{Objects, Operation};
use auth::{BoundObject, TokenOrder};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use types::{Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{admit, body, object};

/// Upstream's bounds (`pkg/apis/authentication/validation/validation.go`).
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

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
    let (pod, node) = bound(server, &r.namespace, &r.name, spec)?;
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
    let order = TokenOrder {
        namespace: r.namespace.clone(),
        account: own,
        pod,
        node,
        audiences,
        seconds,
        id: server.config.ids.uid(),
    };
    let (token, expires) = server.config.tokens.issue(order).map_err(Status::internal)?;
    let expires = base::Timestamp::from_second(expires).map(|t| t.to_string()).unwrap_or_default();
    review["metadata"] =
        json!({"name": r.name, "namespace": r.namespace, "creationTimestamp": server.timestamp()});
    types::set_default(&mut review["spec"], "expirationSeconds", seconds);
    types::set_default(&mut review["spec"], "audiences", json!([server.config.tokens.issuer()]));
    review["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(respond::json(StatusCode::CREATED, review.to_string()))
}

type Bound = (Option<BoundObject>, Option<BoundObject>);

/// The pod a token is for, and its node.
fn bound(server: &Inner, namespace: &str, account: &str, spec: &Value) -> Result<Bound, Status> {
    let Some(reference) = at(spec, &["boundObjectRef"]) else { return Ok((None, None)) };
    let name = str_at(reference, &["name"]).unwrap_or_default();
    match str_at(reference, &["kind"]) {
        Some("Pod") => {}
        other => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {}",
                other.unwrap_or_default()
            )));
        }
    }
    let pod = server.get("pods", namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if let Some(wanted) = str_at(reference, &["uid"]).filter(|w| *w != uid) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", "pods", name, &why));
    }
    if str_at(&pod, &["spec", "serviceAccountName"]) != Some(account) {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let node = str_at(&pod, &["spec", "nodeName"]).map(|name| {
        let node = server.get("nodes", "", name).unwrap_or_default();
        BoundObject {
            name: name.to_owned(),
            uid: node["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        }
    });
    Ok((Some(BoundObject { name: name.to_owned(), uid: uid.to_owned() }), node))
}
