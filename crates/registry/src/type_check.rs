//! What an admission policy's expressions have against the types they are about (kubernetes/kubernetes,
//! `apiserver/pkg/admission/plugin/policy/validating/typechecking.go`). It is a word to the policy's author; it changes
//! nothing of what the policy does.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::{Decl, Env, StructType, Type};
use serde_json::{Value, json};
use types::{Definitions, FieldSchema, Shape};

use crate::def::ResourceDef;
use crate::expressions::{ExpressionScope, Variables, Wanted, compile_expression};
use crate::registry::Registry;

/// Of each rule, so many types are looked at.
const MOST_TYPES: usize = 10;

/// The warnings of a `ValidatingAdmissionPolicy`, as its status has them.
pub fn type_warnings(policy: &Value, registry: &Registry) -> Vec<Value> {
    let spec = &policy["spec"];
    let params = params_of(spec, registry);
    let envs: Vec<(String, Env)> = types_of(spec, registry)
        .into_iter()
        .filter_map(|def| {
            let scope = ExpressionScope { params: params.is_some(), authorizer: true, mutation: false };
            let env = scope.over(decl_of(def, registry)?, params.clone().unwrap_or(Type::Dyn.into()));
            let gvk = format!("{}/{}, Kind={}", def.gvk.group, def.gvk.version, def.gvk.kind);
            Some((gvk, Variables::compile(&spec["variables"], &env).env))
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = validation[field].as_str().unwrap_or_default();
            if source.is_empty() && field == "messageExpression" {
                continue;
            }
            let said = envs.iter().filter_map(|(gvk, env)| {
                let fault = compile_expression(env, source, Wanted::Anything).err()?;
                let fault = fault.strip_prefix("compilation failed: ").unwrap_or(&fault).to_owned();
                Some(format!("{gvk}: {fault}\n"))
            });
            let said: Vec<String> = said.collect();
            if !said.is_empty() {
                let place = format!("spec.validations[{i}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": said.join("\n")}));
            }
        }
    }
    warnings
}

/// The parameters' type; nothing if there are none, or nobody knows them.
fn params_of(spec: &Value, registry: &Registry) -> Option<Decl> {
    let version = spec["paramKind"]["apiVersion"].as_str()?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    decl_of(registry.find_kind(group, Some(version), spec["paramKind"]["kind"].as_str()?)?, registry)
}

/// The types that a policy's rules name, in order. A rule for any group or version names none.
fn types_of<'a>(spec: &Value, registry: &'a Registry) -> Vec<&'a Arc<ResourceDef>> {
    let mut found: Vec<&Arc<ResourceDef>> = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let texts = |field: &str| -> BTreeSet<&str> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let (groups, versions, resources) = (texts("apiGroups"), texts("apiVersions"), texts("resources"));
        if groups.iter().chain(&versions).any(|t| t.contains('*')) {
            continue;
        }
        let mut count = 0;
        for (group, version) in groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v))) {
            for resource in resources.iter().filter(|r| !r.contains(['*', '/'])) {
                let Some(def) = registry.find(group, version, resource) else { continue };
                if !found.iter().any(|d| d.gvk == def.gvk) {
                    found.push(def);
                }
                count += 1;
                if count == MOST_TYPES {
                    return sorted(found);
                }
            }
        }
    }
    sorted(found)
}

fn sorted(mut found: Vec<&Arc<ResourceDef>>) -> Vec<&Arc<ResourceDef>> {
    found.sort_by(|a, b| {
        (&a.gvk.group, &a.gvk.version, &a.gvk.kind).cmp(&(&b.gvk.group, &b.gvk.version, &b.gvk.kind))
    });
    found
}

/// The type of a resource's objects.
fn decl_of(def: &ResourceDef, registry: &Registry) -> Option<Decl> {
    let (_, root) = def.shape(registry)?;
    Some(decl(def.definitions(registry), root, &def.gvk.kind))
}

/// A field's type. Parts are worked out when an expression gets to them, as some contain themselves.
fn decl(definitions: &Arc<Definitions>, field: &FieldSchema, name: &str) -> Decl {
    let field = definitions.resolve(field);
    match &field.shape {
        Shape::Any | Shape::IntOrString | Shape::Quantity => Type::Dyn,
        Shape::String => Type::String,
        Shape::Bytes => Type::Bytes,
        Shape::Integer32 | Shape::Integer64 => Type::Int,
        Shape::Number => Type::Double,
        Shape::Boolean => Type::Bool,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::Map(values) => Type::map(Type::String, decl(definitions, values, &format!("{name}.@elem"))),
        Shape::List(items) => Type::list(decl(definitions, items, &format!("{name}.@idx"))),
        // An object of which nothing is known, or that another kind of object may be.
        Shape::Object(fields) if fields.is_empty() => Type::Dyn,
        Shape::Object(_) => {
            let (definitions, field, place) = (definitions.clone(), field.clone(), name.to_owned());
            let fields = move || match field.shape {
                Shape::Object(fields) => fields
                    .iter()
                    .map(|(name, field)| {
                        (name.to_string(), decl(&definitions, field, &format!("{place}.{name}")))
                    })
                    .collect(),
                _ => Vec::new(),
            };
            Type::Struct(Arc::new(StructType::lazy(name, fields)))
        }
        Shape::Ref(_) => Type::Dyn,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: Value, expressions: &[&str]) -> Value {
        let validations: Vec<Value> = expressions.iter().map(|e| json!({"expression": e})).collect();
        json!({"spec": {"matchConstraints": {"resourceRules": rules}, "validations": validations}})
    }

    #[test]
    fn wrong_fields_and_types_are_told() {
        let registry = Registry::serving(&Default::default()).unwrap();
        let rule = |group: &str, resources: &[&str]| json!([{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["*"], "resources": resources}]);
        let warnings =
            |rules: Value, expressions: &[&str]| type_warnings(&policy(rules, expressions), &registry);
        let good = [
            "object.spec.replicas > 1 && object.metadata.name.startsWith('x')",
            "object.spec.template.spec.containers.all(c, c.image != '' && c.ports.all(p, p.containerPort > 1))",
            "object.metadata.labels['a'] == 'b' && request.namespace == 'c' && oldObject.spec.paused",
            "authorizer.group('').resource('pods').check('get').allowed() && has(object.metadata.creationTimestamp)",
        ];
        assert_eq!(warnings(rule("apps", &["deployments"]), &good), [] as [Value; 0]);
        let told = warnings(
            rule("apps", &["deployments", "daemonsets", "deployments/scale"]),
            &["object.spec.replicas > 1", "object.foo == 1"],
        );
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0]["fieldRef"], "spec.validations[0].expression");
        let said = told[0]["warning"].as_str().unwrap();
        assert_eq!(
            said,
            "apps/v1, Kind=DaemonSet: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n"
        );
        assert_eq!(told[1]["warning"].as_str().unwrap().matches("undefined field 'foo'").count(), 2);
        let types = warnings(rule("", &["pods"]), &["object.spec.nodeName == 1"]);
        assert!(types[0]["warning"].as_str().unwrap().starts_with("/v1, Kind=Pod: ERROR"), "{types:?}");
        // Nothing is said where nothing can be known.
        assert!(warnings(rule("*", &["pods"]), &["object.foo"]).is_empty());
        assert!(warnings(rule("", &["*", "nothings"]), &["object.foo"]).is_empty());
    }

    #[test]
    fn variables_and_parameters_have_types() {
        let registry = Registry::serving(&Default::default()).unwrap();
        let rules =
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]);
        let mut policy = policy(
            rules,
            &["variables.n > 1 && params.data['a'] == 'b'", "variables.n == 'x'", "params.nothing"],
        );
        policy["spec"]["variables"] = json!([{"name": "n", "expression": "object.spec.containers.size()"}]);
        policy["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        let told = type_warnings(&policy, &registry);
        let places: Vec<&str> = told.iter().map(|w| w["fieldRef"].as_str().unwrap()).collect();
        assert_eq!(places, ["spec.validations[1].expression", "spec.validations[2].expression"], "{told:?}");
    }

    #[test]
    fn types_may_contain_themselves() {
        let registry = Registry::serving(&Default::default()).unwrap();
        let rules = json!([{"apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["customresourcedefinitions"]}]);
        let deep = "object.spec.versions.all(v, v.schema.openAPIV3Schema.properties['a'].properties['b'].type == 'x')";
        assert_eq!(type_warnings(&policy(rules, &[deep]), &registry), [] as [Value; 0]);
    }
}
