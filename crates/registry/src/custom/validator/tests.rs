use serde_json::{Value, json};
use types::FieldErrors;

use super::narrow::go_float;
use super::*;

fn check(schema: &Value, value: &Value, old: Option<&Value>) -> String {
    let mut errors = FieldErrors::new();
    Validator::new(schema).check(value, old, "", &mut errors);
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

#[test]
fn says_what_upstream_says() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
        "ratio": {"type": "number", "exclusiveMinimum": true, "minimum": 0, "multipleOf": 0.25},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "when": {"type": "string", "format": "date-time"},
        "list": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
        "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
        "port": {"x-kubernetes-int-or-string": true},
    }}}});
    for (spec, want) in [
        (json!({}), "spec.name: Required value"),
        (
            json!({"name": "ab", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({"name": "ab", "replicas": "3"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            json!({"name": "ab", "replicas": null}),
            "spec.replicas: Invalid value: \"null\": spec.replicas in body must be of type integer: \"null\"",
        ),
        (json!({"name": "ab", "replicas": 2.0, "ratio": 0.75, "port": "http"}), ""),
        (
            json!({"name": "ab", "ratio": 0}),
            "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0",
        ),
        (
            json!({"name": "ab", "ratio": 0.3}),
            "spec.ratio: Invalid value: 0.3: spec.ratio in body should be a multiple of 0.25",
        ),
        (json!({"name": "abcde"}), "spec.name: Too long: may not be more than 4 bytes"),
        (
            json!({"name": "a"}),
            "spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long",
        ),
        (
            json!({"name": "A1"}),
            "spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
        ),
        (
            json!({"name": "ab", "mode": "c"}),
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"name": "ab", "when": "soon"}),
            "spec.when: Invalid value: \"soon\": spec.when in body must be of type date-time: \"soon\"",
        ),
        (json!({"name": "ab", "list": ["a", "b", "c"]}), "spec.list: Too many: 3: must have at most 2 items"),
        (
            json!({"name": "ab", "list": [1]}),
            "spec.list[0]: Invalid value: \"integer\": spec.list[0] in body must be of type string: \"integer\"",
        ),
        (
            json!({"name": "ab", "map": {"x": "y"}}),
            "spec.map.x: Invalid value: \"string\": spec.map.x in body must be of type integer: \"string\"",
        ),
        (
            json!({"name": "ab", "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
    ] {
        assert_eq!(check(&schema, &json!({"spec": spec}), None), want, "{spec}");
    }
}

#[test]
fn alternatives() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}}});
    assert_eq!(check(&schema, &json!({"spec": {"a": 1}}), None), "");
    assert_eq!(
        check(&schema, &json!({"spec": {"a": 1, "b": 1}}), None),
        "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
    );
    assert!(check(&schema, &json!({"spec": {}}), None).starts_with(
        "[<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid, spec."
    ));
    assert_eq!(
        check(&schema, &json!({"spec": {"a": 1, "c": 1}}), None),
        "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"
    );
}

#[test]
fn what_has_not_changed_may_stay() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer", "maximum": 3}, "b": {"type": "string"},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 3}}}},
    }});
    let old = json!({"a": 5, "b": "x", "list": [{"k": "x", "v": 9}]});
    assert_eq!(
        check(
            &schema,
            &json!({"a": 5, "b": "y", "list": [{"k": "w", "v": 1}, {"k": "x", "v": 9}]}),
            Some(&old)
        ),
        ""
    );
    assert!(check(&schema, &json!({"a": 6, "b": "x"}), Some(&old)).starts_with("a: Invalid value: 6"));
    assert!(
        check(&schema, &json!({"list": [{"k": "y", "v": 9}]}), Some(&old)).starts_with("list[0].v: Invalid")
    );
}

#[test]
fn numbers_look_as_in_go() {
    for (n, want) in
        [(10.0, "10"), (0.25, "0.25"), (-1.5, "-1.5"), (1234567.0, "1.234567e+06"), (1e-7, "1e-07")]
    {
        assert_eq!(go_float(n), want);
    }
}

pub(in crate::custom) mod random {
    use proptest::prelude::*;

    use super::*;

    /// Values that look like schemas, and schemas.
    pub(in crate::custom) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from),
            prop::sample::select(vec!["string", "object", "array", "integer", "date", "map", "[a", "^a$"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            let keys = prop::sample::select(vec![
                "type",
                "format",
                "properties",
                "items",
                "additionalProperties",
                "required",
                "enum",
                "pattern",
                "minimum",
                "maximum",
                "multipleOf",
                "minLength",
                "maxItems",
                "anyOf",
                "oneOf",
                "allOf",
                "not",
                "nullable",
                "default",
                "x-kubernetes-list-type",
                "x-kubernetes-list-map-keys",
                "x-kubernetes-int-or-string",
                "x-kubernetes-preserve-unknown-fields",
                "a",
                "b",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys.prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_schema_and_no_value_panic(schema in values(), value in values(), old in values()) {
            let _ = check(&schema, &value, None);
            prop_assert_eq!(check(&schema, &value, Some(&value)), "", "what has not changed is not complained of");
            let _ = check(&schema, &value, Some(&old));
        }
    }
}
