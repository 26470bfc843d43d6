use serde_json::{Value, json};
use types::FieldErrors;

use super::*;

fn crd(schema: Value) -> Value {
    json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

fn ready(mut crd: Value) -> Value {
    Definition.default(&mut crd);
    Definition.prepare_create(&mut crd);
    crd
}

fn faults(crd: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    Definition.validate_create(crd, &mut errors);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[test]
fn a_plain_definition_is_taken_and_filled_in() {
    let crd = ready(crd(json!({"type": "object"})));
    assert_eq!(faults(&crd), Vec::<String>::new());
    assert_eq!(
        (&crd["spec"]["names"]["singular"], &crd["spec"]["names"]["listKind"]),
        (&json!("thing"), &json!("ThingList"))
    );
    assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn schemas_must_be_structural() {
    let root = "spec.validation.openAPIV3Schema";
    for (schema, want) in [
        (json!({}), vec![format!("{root}.type: Required value: must not be empty at the root")]),
        (
            json!({"type": "string"}),
            vec![format!("{root}.type: Invalid value: \"string\": must be object at the root")],
        ),
        (
            json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"}}}),
            vec![
                format!(
                    "{root}.properties[a].type: Required value: must not be empty for specified object fields"
                ),
                format!("{root}.properties[b].items: Required value: must be specified"),
            ],
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"x": {"type": "string"}}}]}),
            vec![
                format!("{root}.anyOf[0].properties[x].type: Forbidden: must be empty to be structural"),
                format!(
                    "{root}.properties[x]: Required value: because it is defined in {root}.anyOf[0].properties[x]"
                ),
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            vec![format!(
                "{root}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            )],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            vec![format!("{root}.additionalProperties: Forbidden: must not be used at the root")],
        ),
        (
            json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true,
                "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            vec![],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
            vec![format!(
                "{root}.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}),
            vec![format!(
                "{root}.properties[a].default: Invalid value: {{\"x\":1}}: must not have unknown fields"
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "strin"}}}),
            vec![format!(
                "{root}.properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}),
            vec![format!(
                "{root}.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )],
        ),
    ] {
        assert_eq!(faults(&ready(crd(schema.clone()))), want, "{schema}");
    }
}

#[test]
fn names_and_versions() {
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut crd = ready(crd(json!({"type": "object"})));
        change(&mut crd);
        faults(&crd).join("\n")
    };
    assert!(edit(&|c| c["metadata"]["name"] = "x.example.com".into()).contains(
        "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group"
    ));
    assert!(edit(&|c| c["spec"]["scope"] = "Global".into()).contains(
        "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\""
    ));
    assert!(
        edit(&|c| c["spec"]["versions"][0]["storage"] = false.into())
            .contains("must have exactly one version marked as storage version")
    );
    assert!(
        edit(&|c| c["spec"]["versions"][0]["name"] = "V1".into())
            .contains("spec.versions[0].name: Invalid value: \"V1\"")
    );
    assert!(
        edit(&|c| c["spec"]["versions"][0]["schema"] = Value::Null)
            .contains("spec.versions[0].schema.openAPIV3Schema: Required value")
    );
    assert!(
        edit(&|c| c["spec"]["group"] = "sample.k8s.io".into())
            .contains("protected groups must have approval annotation")
    );
    assert!(
        edit(&|c| c["spec"]["preserveUnknownFields"] = true.into())
            .contains("spec.preserveUnknownFields: Invalid value: true: cannot set to true")
    );
    assert!(edit(&|c| c["spec"]["conversion"] = json!({"strategy": "Webhook"})).contains(
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"
    ));
    assert!(edit(&|c| c["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.r"}}))
        .contains("spec.subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec"));
    assert!(edit(&|c| c["spec"]["versions"][0]["additionalPrinterColumns"] = json!([{"name": "A", "type": "text", "jsonPath": "x"}]))
        .contains("spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string"));
    assert!(
        edit(&|c| c["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.x"}]))
            .contains("spec.selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path")
    );
}

#[test]
fn what_cannot_change() {
    let old = {
        let mut crd = ready(crd(json!({"type": "object"})));
        set_condition(&mut crd, "Established", true, "InitialNamesAccepted", "", "2026-01-01T00:00:00Z");
        crd
    };
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["names"]["kind"] = "Other".into();
    new["spec"]["versions"][0]["name"] = "v2".into();
    Definition.prepare_update(&mut new, &old);
    let mut errors = FieldErrors::new();
    Definition.validate_update(&new, &old, &mut errors);
    let text = errors.to_string();
    assert!(text.contains("spec.scope: Invalid value: \"Cluster\": field is immutable"), "{text}");
    assert!(text.contains("spec.names.kind: Invalid value: \"Other\": field is immutable"), "{text}");
    assert!(text.contains("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version"), "{text}");
}

proptest::proptest! {
    /// Whatever a definition says, looking at it does not end in a panic, and what is taken can be used.
    #[test]
    fn no_definition_panics(
        schema in crate::custom::validator::tests::random::values(),
        other in crate::custom::validator::tests::random::values(),
        object in crate::custom::validator::tests::random::values(),
    ) {
        let mut one = crd(schema);
        one["spec"]["versions"][0]["additionalPrinterColumns"] = other.clone();
        one["spec"]["versions"][0]["selectableFields"] = other.clone();
        let old = ready(one.clone());
        one["spec"]["conversion"] = other.clone();
        one["spec"]["versions"][0]["subresources"] = other;
        let one = ready(one);
        let _ = faults(&one);
        let mut errors = FieldErrors::new();
        Definition.validate_update(&one, &old, &mut errors);
        let _ = Definition.warnings(&one);
        let base = std::sync::Arc::new(types::Definitions::default());
        for def in crate::custom::custom_resources(&one, &base, 0, 0) {
            let mut object = object.clone();
            let custom = def.custom.as_ref().unwrap();
            custom.conform(&mut object);
            let mut again = object.clone();
            proptest::prop_assert!(!custom.refresh(&mut again), "{object} became {again}");
            def.strategy.validate_create(&object, &mut FieldErrors::new());
            def.strategy.validate_update(&object, &again, &mut FieldErrors::new());
            let _ = def.strategy.selectable_values(&object);
        }
    }
}
