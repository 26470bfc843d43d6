//! Questions about users and rights: resources that are asked, answered and never stored (kubernetes/kubernetes,
//! `pkg/registry/authorization` and `pkg/registry/authentication`).

use std::collections::BTreeMap;
use std::sync::Arc;

use admission::{Operation, Request};
use auth::{Attributes, Decision, FieldRequirement, Selectors, User};
use http::{Response, StatusCode};
use registry::ResourceDef;
use serde_json::{Value, json};
use types::{FieldErrors, FieldSelector, LabelSelector, Path, Reason, Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{admit, authenticate, body, encode, object, verbs};

/// Whether the resource is a question.
pub(crate) fn is_review(def: &ResourceDef) -> bool {
    matches!(&*def.gvk.group, "authorization.k8s.io" | "authentication.k8s.io")
}

/// Answers a question.
pub(crate) async fn create(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    if let encode::Form::Table(_) = encode::negotiate(&headers, &r)?.form {
        let name = format!("{}.{}", r.def.resource, r.def.gvk.group);
        let why = format!("the resource {name} does not support being converted to a Table");
        return Err(Status::new(Reason::NotAcceptable, why));
    }
    let mut review = body::parse(&r.registry, &headers, &bytes)?.object;
    body::check_kind(&mut review, &r.def.api_version(), &r.def.gvk.kind)?;
    body::conform(&r.registry, &r.def, &mut review, &[], r.query.field_validation)?;
    // A question that is asked of a namespace is of that namespace.
    if r.def.namespaced {
        verbs::set_namespace(&mut review, &r.def, &r.namespace)?;
    }
    let request = admit::subresource(&r, &user, Operation::Create);
    let name = object::name(&review).to_owned();
    let ask = Request { name: &name, ..request };
    server.admit(&ask, Some(&mut review), None).await?;
    let spec = review["spec"].clone();
    if &*r.def.gvk.group == "authorization.k8s.io" {
        check(&r.def, &review)?;
    }
    server.validate(&ask, Some(&review), None).await?;
    review["status"] = match &*r.def.resource {
        "selfsubjectaccessreviews" => access(server, &user, &spec).await,
        "subjectaccessreviews" => access(server, &asked_user(&spec), &spec).await,
        "localsubjectaccessreviews" => {
            if str_at(&spec, &["resourceAttributes", "namespace"]) != Some(r.namespace.as_str()) {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {}",
                    r.namespace
                )));
            }
            access(server, &asked_user(&spec), &spec).await
        }
        "selfsubjectrulesreviews" => {
            let namespace = str_at(&spec, &["namespace"]).filter(|n| !n.is_empty());
            rules(server, &user, namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?)
        }
        "selfsubjectreviews" => json!({"userInfo": user_info(&user)}),
        "tokenreviews" => token(server, &spec).await?,
        _ => return Err(Status::no_such_resource()),
    };
    Ok(respond::json(StatusCode::CREATED, review.to_string()))
}

/// What a Go client sends of a field that nobody set: in protobuf, numbers and texts are always there.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Upstream's rules (`pkg/apis/authorization/validation/validation.go`).
fn check(def: &ResourceDef, review: &Value) -> Result<(), Status> {
    let mut errors = FieldErrors::new();
    let spec = Path::new("spec");
    let set = |field: &str| review["spec"].get(field).is_some_and(Value::is_object);
    let (resource, path) = (set("resourceAttributes"), set("nonResourceAttributes"));
    let local = &*def.resource == "localsubjectaccessreviews";
    let metadata = review["metadata"].as_object().into_iter().flatten();
    let mut said = metadata.filter(|(field, value)| {
        !is_zero(value) && *field != "managedFields" && !(local && *field == "namespace")
    });
    if &*def.resource != "selfsubjectrulesreviews" && said.next().is_some() {
        errors.invalid(&Path::new("metadata"), review["metadata"].clone(), "must be empty");
    }
    if &*def.resource != "selfsubjectrulesreviews" {
        if resource && path {
            let why = "cannot be specified in combination with resourceAttributes";
            let value = review["spec"]["nonResourceAttributes"].clone();
            errors.invalid(&spec.child("nonResourceAttributes"), value, why);
        }
        if !resource && !path {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&spec.child("resourceAttributes"), Value::Null, why);
        }
        if &*def.resource == "localsubjectaccessreviews" && path {
            let why = "disallowed on this kind of request";
            let value = review["spec"]["nonResourceAttributes"].clone();
            errors.invalid(&spec.child("nonResourceAttributes"), value, why);
        }
        check_selectors(
            &review["spec"]["resourceAttributes"],
            &spec.child("resourceAttributes"),
            &mut errors,
        );
    }
    if matches!(&*def.resource, "subjectaccessreviews" | "localsubjectaccessreviews") {
        let groups = review["spec"]["groups"].as_array().is_some_and(|g| !g.is_empty());
        if str_at(&review["spec"], &["user"]).is_none_or(str::is_empty) && !groups {
            errors.invalid(&spec.child("user"), "", "at least one of user or group must be specified");
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&def.gvk.group, &def.gvk.kind, "", &errors))
}

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

fn check_selectors(attributes: &Value, path: &Path, errors: &mut FieldErrors) {
    for field in ["fieldSelector", "labelSelector"] {
        let Some(selector) = at(attributes, &[field]).filter(|s| s.is_object()) else { continue };
        let path = path.child(field);
        let raw = str_at(selector, &["rawSelector"]).unwrap_or_default();
        let requirements = selector["requirements"].as_array().cloned().unwrap_or_default();
        if !raw.is_empty() && !requirements.is_empty() {
            errors.invalid(
                &path.child("rawSelector"),
                raw,
                "may not specified at the same time as requirements",
            );
        }
        if raw.is_empty() && requirements.is_empty() {
            errors.required(
                &path.child("requirements"),
                &format!("when {path} is specified, requirements or rawSelector is required"),
            );
        }
        for (i, requirement) in requirements.iter().enumerate() {
            let list = path.child("requirements");
            let path = list.index(i);
            if str_at(requirement, &["key"]).is_none_or(str::is_empty) {
                errors.required(&path.child("key"), "must be specified");
            }
            let operator = str_at(requirement, &["operator"]).unwrap_or_default();
            let values = requirement["values"].as_array().is_some_and(|v| !v.is_empty());
            match operator {
                "In" | "NotIn" if !values => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.required(&path.child("values"), why);
                }
                "Exists" | "DoesNotExist" if values => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.forbidden(&path.child("values"), why);
                }
                operator if !OPERATORS.contains(&operator) => {
                    errors.invalid(&path.child("operator"), operator, "not a valid selector operator");
                }
                _ => {}
            }
        }
    }
}

fn asked_user(spec: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: str_at(spec, &["user"]).unwrap_or_default().to_owned(),
        uid: str_at(spec, &["uid"]).unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(k, v)| (k.to_lowercase(), texts(v))).collect::<BTreeMap<_, _>>(),
    }
}

/// What a review's lists are narrowed to. What cannot be understood is left out: the request is wider than that.
fn selectors(attributes: &Value) -> (Selectors, Vec<String>) {
    let mut out = Selectors::default();
    let mut errors = Vec::new();
    let raw = |field: &str| str_at(attributes, &[field, "rawSelector"]).filter(|r| !r.is_empty());
    match raw("fieldSelector").map(FieldSelector::parse) {
        Some(Ok(parsed)) => out.fields.extend(parsed.requirements().map(|(field, equals, value)| {
            FieldRequirement { field: field.to_owned(), equals, value: value.to_owned() }
        })),
        Some(Err(error)) => errors.push(error.to_string()),
        None => {}
    }
    match raw("labelSelector").map(LabelSelector::parse) {
        Some(Ok(parsed)) => out.labels.extend(parsed.requirements().iter().cloned()),
        Some(Err(error)) => errors.push(error.to_string()),
        None => {}
    }
    for requirement in attributes["fieldSelector"]["requirements"].as_array().into_iter().flatten() {
        let values: Vec<&str> =
            requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match (str_at(requirement, &["key"]), str_at(requirement, &["operator"]), values.as_slice()) {
            (Some(key), Some(operator @ ("In" | "NotIn")), [value]) => out.fields.push(FieldRequirement {
                field: key.to_owned(),
                equals: operator == "In",
                value: (*value).to_owned(),
            }),
            (_, Some(operator), values) => errors.push(format!(
                "fieldSelectors do not yet support operator {operator:?} with {} values",
                values.len()
            )),
            _ => {}
        }
    }
    if let Some(requirements) = at(attributes, &["labelSelector", "requirements"]) {
        match LabelSelector::from_object(Some(&json!({"matchExpressions": requirements}))) {
            Ok(parsed) => out.labels.extend(parsed.requirements().iter().cloned()),
            Err(error) => errors.push(error.to_string()),
        }
    }
    (out, errors)
}

async fn access(server: &Inner, user: &User, spec: &Value) -> Value {
    let text = |path: [&str; 2]| str_at(spec, &path).unwrap_or_default();
    let (narrowed, misread) = selectors(&spec["resourceAttributes"]);
    let attributes = if spec["resourceAttributes"].is_object() {
        let field = |name| text(["resourceAttributes", name]);
        Attributes {
            verb: field("verb"),
            group: field("group"),
            version: field("version"),
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
            path: "",
            selectors: Some(&narrowed),
        }
    } else {
        let field = |name| text(["nonResourceAttributes", name]);
        Attributes { verb: field("verb"), path: field("path"), ..Attributes::default() }
    };
    let answer = server.decide(user, &attributes).await;
    let mut status = json!({"allowed": answer.is_allowed()});
    if answer.decision == Decision::Deny {
        status["denied"] = true.into();
    }
    if !answer.reason.is_empty() {
        status["reason"] = answer.reason.into();
    }
    let mut errors: Vec<String> = answer.error.into_iter().collect();
    // An allowed request is allowed, however narrow it was meant to be.
    if answer.decision != Decision::Allow {
        errors.extend(misread);
    }
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    status
}

fn rules(server: &Inner, user: &User, namespace: &str) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let (mut held, lost) = server.rbac().rules_for(user, namespace);
    if server.always_allows() {
        held.extend([auth::Rule::every_resource(), auth::Rule::every_path()]);
    }
    for rule in held {
        if rule.paths.is_empty() {
            resources.push(rule.to_json());
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    let unlisted = server.incomplete_rules(user);
    let incomplete = unlisted.is_some() || !lost.is_empty();
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    let errors: Vec<String> = unlisted.map(str::to_owned).into_iter().chain(lost).collect();
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    status
}

/// A user as reviews and audit events show it.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

async fn token(server: &Inner, spec: &Value) -> Result<Value, Status> {
    let token = str_at(spec, &["token"]).filter(|t| !t.is_empty());
    let token =
        token.ok_or_else(|| Status::bad_request("token is required for TokenReview in authentication"))?;
    let audiences: Vec<&str> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(match authenticate::token_user(server, token, &audiences).await {
        Some(known) => {
            json!({"authenticated": true, "user": user_info(&known.user), "audiences": known.audiences})
        }
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    })
}
