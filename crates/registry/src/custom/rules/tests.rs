use proptest::prelude::*;
use serde_json::{Value, json};
use types::FieldErrors;

use super::{check_schema, compile};

fn broken(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut errors = FieldErrors::new();
    if let Some(rules) = compile(schema) {
        rules.check(new, old, &mut errors);
    }
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

fn faults(schema: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    check_schema(schema, None, "spec.validation.openAPIV3Schema", &mut errors);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

fn spec(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

#[test]
fn objects_are_held_against_rules() {
    let schema = spec(json!({
        "type": "object",
        "properties": {
            "replicas": {"type": "integer"},
            "max": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "name is immutable"}]},
            "tags": {"type": "object", "maxProperties": 9, "additionalProperties": {"type": "string",
                "x-kubernetes-validations": [{"rule": "size(self) < 4"}]}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.port >= oldSelf.port", "reason": "FieldValueForbidden",
                        "messageExpression": "'port ' + self.name + ' may not shrink'", "fieldPath": ".port"}]}},
        },
        "x-kubernetes-validations": [
            {"rule": "self.replicas <= self.max", "messageExpression": "'at most ' + string(self.max)"},
            {"rule": "oldSelf.hasValue() || self.replicas == 1", "optionalOldSelf": true, "message": "begin with one"}
        ]
    }));
    let with = |replicas: i64, max: i64| json!({"spec": {"replicas": replicas, "max": max, "name": "a"}});
    assert!(broken(&schema, &with(1, 2), None).is_empty());
    assert_eq!(
        broken(&schema, &with(3, 2), None),
        ["spec: Invalid value: \"object\": at most 2", "spec: Invalid value: \"object\": begin with one"]
    );
    assert!(broken(&schema, &with(3, 4), Some(&with(1, 2))).is_empty());
    // What did not change may stay as it is.
    assert!(broken(&schema, &with(3, 2), Some(&with(3, 2))).is_empty());
    let (mut new, old) = (with(1, 2), with(1, 2));
    new["spec"]["name"] = "b".into();
    assert_eq!(
        broken(&schema, &new, Some(&old)),
        ["spec.name: Invalid value: \"string\": name is immutable"]
    );
    let ports = |a: i64, b: i64| json!({"spec": {"replicas": 1, "max": 1, "ports": [{"name": "a", "port": a}, {"name": "b", "port": b}]}});
    assert_eq!(
        broken(&schema, &ports(5, 1), Some(&ports(4, 2))),
        ["spec.ports[1].port: Forbidden: port b may not shrink"]
    );
    let tags = json!({"spec": {"replicas": 1, "max": 1, "tags": {"x": "long one"}}});
    assert_eq!(
        broken(&schema, &tags, None),
        ["spec.tags[x]: Invalid value: \"string\": failed rule: size(self) < 4"]
    );
    let missing = json!({"spec": {"replicas": 1}});
    assert_eq!(
        broken(&schema, &missing, None)[0],
        "spec: Invalid value: \"object\": no such key: max evaluating rule: self.replicas <= self.max"
    );
}

#[test]
fn rules_are_checked_when_they_are_written() {
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    let one = |rule: Value| {
        faults(&spec(json!({"type": "object", "properties": {"a": {"type": "integer"}},
            "x-kubernetes-validations": [rule]})))
    };
    assert!(one(json!({"rule": "self.a > 0", "fieldPath": ".a"})).is_empty());
    assert_eq!(one(json!({"rule": " "})), [format!("{place}.rule: Required value: rule is not specified")]);
    assert_eq!(
        one(json!({"rule": "self.a > 0", "fieldPath": ".b"})),
        [format!("{place}.fieldPath: Invalid value: \".b\": fieldPath must be a valid path")]
    );
    assert_eq!(
        one(json!({"rule": "self.a > 0", "optionalOldSelf": true})),
        [format!(
            "{place}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
        )]
    );
    let fault = one(json!({"rule": "self.a + 1"}));
    assert!(fault[0].ends_with("cel expression must evaluate to a bool"), "{fault:?}");
    let fault = one(json!({"rule": "self.b == 1"}));
    assert!(fault[0].contains("compilation failed: ERROR: <input>:1:5: undefined field 'b'"), "{fault:?}");
    let fault = one(json!({"rule": "true", "messageExpression": "1"}));
    assert!(fault[0].ends_with("messageExpression must evaluate to a string"), "{fault:?}");
    let fault = faults(&spec(json!({"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}})));
    assert!(
        fault.iter().any(|f| f.ends_with(
            "oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec]"
        )),
        "{fault:?}"
    );
    let dear = json!({"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b))"}]});
    let fault = faults(&spec(dear));
    assert_eq!(
        fault[0],
        format!(
            "{place}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
        )
    );
    assert!(fault[1].ends_with(
        "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    ));
    assert!(fault[2].starts_with(
        "spec.validation.openAPIV3Schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"
    ));
}

proptest! {
    #[test]
    fn no_rule_panics(rule in "[a-z.()'+<>=&|! 0-9\\[\\]?:,{}]{0,40}", path in "[.\\['a-z\\]\\\\]{0,12}") {
        let schema = spec(json!({"type": "object", "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": rule, "messageExpression": rule, "fieldPath": path}]}));
        let _ = faults(&schema);
        let _ = broken(&schema, &json!({"spec": {"a": "x"}}), Some(&json!({"spec": {"a": null}})));
    }
}
