//! Expressions over requests: the values of their variables, and conditions under which webhooks and policies apply
//! (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/cel`, `plugin/webhook/matchconditions/matcher.go`).

use auth::User;
use cel::{
    Activation, Authorizer, AuthzDecision, AuthzRequest, AuthzResource, Budget, MATCH_CONDITIONS_BUDGET,
    Program, Value as CelValue,
};
use registry::{Gvk, Wanted, compile_expression};
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::request::{Operation, Request, kind_of};

/// Asks the cluster about the user of a request.
pub(crate) struct Asking<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) user: &'a User,
}

impl Authorizer for Asking<'_> {
    fn authorize(&self, request: &AuthzRequest) -> AuthzDecision {
        self.cluster.authorize(self.user, request)
    }
}

/// The data that expressions see in one call.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) object: &'a Value,
    pub(crate) old: &'a Value,
    pub(crate) request: &'a Value,
    pub(crate) namespace: &'a Value,
    pub(crate) params: Option<&'a Value>,
    pub(crate) asking: &'a Asking<'a>,
    pub(crate) resource: &'a AuthzResource,
}

impl<'a> Input<'a> {
    pub(crate) fn activation(&self) -> Activation<'a> {
        let activation = Activation::new()
            .json("object", self.object)
            .json("oldObject", self.old)
            .json("request", self.request)
            .json("namespaceObject", self.namespace)
            .value("authorizer", CelValue::authorizer(self.asking))
            .value(
                "authorizer.requestResource",
                CelValue::resource_check(self.asking, self.resource.clone()),
            );
        match self.params {
            Some(params) => activation.json("params", params),
            None => activation.json("params", &Value::Null),
        }
    }
}

/// The resource of a request, as `authorizer.requestResource` begins with.
pub(crate) fn request_resource(request: &Request<'_>) -> AuthzResource {
    AuthzResource {
        group: request.def.gvk.group.to_string(),
        resource: request.def.resource.to_string(),
        subresource: request.subresource.to_owned(),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        ..AuthzResource::default()
    }
}

pub(crate) fn gvk_json(gvk: &Gvk) -> Value {
    json!({"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind})
}

pub(crate) fn user_json(user: &User) -> Value {
    let mut info = Map::new();
    for (key, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(key.into(), text.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// An `AdmissionRequest` without its objects (`CreateAdmissionRequest`). `def` is the version that matched.
pub(crate) fn request_json(request: &Request<'_>, def: &registry::ResourceDef) -> Map<String, Value> {
    let resource = |def: &registry::ResourceDef| json!({"group": &*def.gvk.group, "version": &*def.gvk.version, "resource": &*def.resource});
    let mut map = Map::new();
    map.insert("kind".into(), gvk_json(kind_of(def, request.subresource)));
    map.insert("resource".into(), resource(def));
    map.insert("requestKind".into(), gvk_json(request.kind()));
    map.insert("requestResource".into(), resource(request.def));
    for (key, text) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", request.own_namespace()),
    ] {
        if !text.is_empty() {
            map.insert(key.into(), text.into());
        }
    }
    map.insert("operation".into(), request.operation.as_str().into());
    map.insert("userInfo".into(), user_json(request.user));
    map.insert("dryRun".into(), request.dry_run.into());
    if request.operation != Operation::Connect {
        map.insert("options".into(), request.options_json());
    }
    map
}

/// The part of a Namespace that expressions see (`CreateNamespaceObject`).
pub(crate) fn namespace_json(namespace: Option<&Value>) -> Value {
    let Some(namespace) = namespace else { return Value::Null };
    let mut metadata = Map::new();
    for (key, value) in namespace["metadata"].as_object().into_iter().flatten() {
        match key.as_str() {
            "uid" => drop(metadata.insert("UID".into(), value.clone())),
            "managedFields" | "ownerReferences" | "selfLink" => {}
            _ => drop(metadata.insert(key.clone(), value.clone())),
        }
    }
    json!({"metadata": metadata, "spec": namespace.get("spec").cloned().unwrap_or_else(|| json!({})),
        "status": namespace.get("status").cloned().unwrap_or_else(|| json!({}))})
}

/// A list of `matchConditions`, readied.
pub(crate) struct Conditions {
    list: Vec<(String, Result<Program, String>)>,
    ignore: bool,
}

impl Conditions {
    /// Reads the list; with `ignore`, what fails does not match.
    pub(crate) fn read(list: &Value, env: &cel::Env, ignore: bool) -> Self {
        let list = list.as_array().into_iter().flatten();
        let compile = |condition: &Value| {
            let source = condition["expression"].as_str().unwrap_or_default();
            let program = compile_expression(env, source, Wanted::Bool);
            (source.to_owned(), program.map_err(|why| format!("compilation error: {why}")))
        };
        Self { list: list.map(compile).collect(), ignore }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all hold. One that does not hold decides, whatever fails beside it.
    pub(crate) fn hold(&self, input: &Input<'_>) -> Result<bool, String> {
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut faults = Vec::new();
        for (source, program) in &self.list {
            let outcome = match program {
                Err(why) => Err(why.clone()),
                Ok(program) => {
                    let activation = input.activation();
                    let value = program.evaluate(&activation, &mut budget).map(|v| v.as_bool());
                    if budget.left().is_none() {
                        return if self.ignore { Ok(false) } else { Err(cel::EvalError::Budget.to_string()) };
                    }
                    value.map_err(|e| format!("expression '{source}' resulted in error: {e}"))
                }
            };
            match outcome {
                Ok(Some(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => faults.push(why),
            }
        }
        match faults.as_slice() {
            [] => Ok(true),
            _ if self.ignore => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
