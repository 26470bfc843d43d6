//! One object as JSON, YAML and protobuf, whole and damaged.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use registry::{Registry, ResourceDef};
use serde_json::{Value, json};

use super::super::hammer::arbitrary::Dice;
use super::super::hammer::samples;
use super::protobuf;
use crate::body;
use crate::request::FieldValidation;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

thread_local! {
    /// Reading the schema takes long.
    static REGISTRY: Registry = Registry::builtin();
}

fn parse(registry: &Registry, media: &'static str, bytes: &[u8]) -> Result<Value, types::Status> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(media));
    body::parse(registry, &headers, bytes).map(|given| given.object)
}

/// An object that fits its schema, changed a little from a sample.
fn fitting(registry: &Registry, seed: u64) -> Option<(&ResourceDef, Value)> {
    let (mut dice, samples) = (Dice::new(seed), samples::samples());
    let (group, version, resource, sample) = dice.pick(&samples);
    let def = registry.find(group, version, resource)?;
    let (definitions, mut object) = (registry.definitions(), sample.clone());
    object["metadata"] =
        json!({"name": "n", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"});
    for _ in 0..dice.below(4) {
        dice.mutate(definitions, def.schema.map(|s| &definitions.get(s).field), &mut object);
    }
    body::check_kind(&mut object, &def.api_version(), &def.gvk.kind).ok()?;
    body::conform(registry, def, &mut object, &[], FieldValidation::Ignore).ok()?;
    Some((def, object))
}

/// Fields newer than the field numbers that we have: they are lost on their way through protobuf.
const UNNUMBERED: &[&str] = &[
    "schedulingGroup",
    "nodeAllocatableResourceClaimStatuses",
    "nodeAllocatableResourceMappings",
    "volumeStatus",
    "preventPodSchedulingIfMissing",
    "bools",
    "ints",
    "strings",
    "versions",
    "message",
];

#[test]
fn every_field_has_a_number() {
    REGISTRY.with(|registry| {
        let (definitions, mut seen) = (registry.definitions(), std::collections::BTreeSet::new());
        let mut types: Vec<_> = registry.resources().filter_map(|def| def.schema).collect();
        let mut missing = std::collections::BTreeSet::new();
        while let Some(id) = types.pop() {
            let schema = definitions.get(id);
            let types::Shape::Object(fields) = &schema.field.shape else { continue };
            if !seen.insert(schema.name.clone()) || schema.name.contains(".apiextensions.") {
                continue;
            }
            let known = protobuf::names(&schema.name);
            for (name, field) in fields {
                // A whole type without numbers is newer than they are; it is refused rather than half read.
                if !known.is_empty() && !known.contains(&**name) && !matches!(&**name, "apiVersion" | "kind")
                {
                    missing.insert(name.to_string());
                }
                let mut field = field;
                while let types::Shape::List(inner) | types::Shape::Map(inner) = &field.shape {
                    field = inner;
                }
                if let types::Shape::Ref(id) = field.shape {
                    types.push(id);
                }
            }
        }
        missing.retain(|name| !UNNUMBERED.contains(&name.as_str()));
        assert!(missing.is_empty(), "without a protobuf number: {missing:?}");
        assert!(seen.len() > 300);
    });
}

fn without_unnumbered(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Their type is known from where they are.
            for claim in
                map.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten()
            {
                claim.as_object_mut().unwrap().retain(|key, _| key != "apiVersion" && key != "kind");
            }
            for name in &UNNUMBERED[..5] {
                map.remove(*name);
            }
            map.values_mut().for_each(without_unnumbered);
        }
        Value::Array(list) => list.iter_mut().for_each(without_unnumbered),
        _ => {}
    }
}

/// Without what one encoding tells apart and another does not: nothing, and something empty.
fn lean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(lean);
            map.retain(|_, v| match v {
                Value::Null => false,
                Value::String(s) => !s.is_empty(),
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(lean),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)))]

    #[test]
    fn every_encoding_says_the_same(seed: u64) {
        REGISTRY.with(|registry| {
            let Some((def, object)) = fitting(registry, seed) else { return Ok(()) };
            prop_assert_eq!(&parse(registry, JSON, object.to_string().as_bytes()).unwrap(), &object);
            let yaml = serde_norway::to_string(&object).unwrap();
            prop_assert_eq!(&parse(registry, YAML, yaml.as_bytes()).unwrap(), &object, "{}", yaml);
            let bytes = protobuf::encode(registry, def, &object);
            let mut back = parse(registry, PROTOBUF, &bytes).unwrap();
            let conformed = body::conform(registry, def, &mut back, &[], FieldValidation::Strict);
            prop_assert!(conformed.is_ok(), "{:?} of {}", conformed, object);
            let mut object = object;
            without_unnumbered(&mut object);
            lean(&mut object);
            lean(&mut back);
            prop_assert_eq!(back, object);
            Ok(())
        })?;
    }

    #[test]
    fn damaged_bodies_are_refused_with_a_status(
        seed: u64,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        REGISTRY.with(|registry| {
            let Some((def, object)) = fitting(registry, seed) else { return Ok(()) };
            let whole = [
                (JSON, object.to_string().into_bytes()),
                (YAML, serde_norway::to_string(&object).unwrap().into_bytes()),
                (PROTOBUF, protobuf::encode(registry, def, &object)),
            ];
            for (media, mut bytes) in whole {
                for (at, byte) in &damage {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                match parse(registry, media, &bytes) {
                    Ok(mut object) => {
                        prop_assert!(types::depth(&object) <= types::MOST_DEPTH);
                        let _ = body::check_kind(&mut object, &def.api_version(), &def.gvk.kind)
                            .and_then(|()| body::conform(registry, def, &mut object, &[], FieldValidation::Warn));
                    }
                    Err(status) => prop_assert!(status.code == 400 && !status.message.is_empty(), "{:?}", status),
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn noise_is_refused_with_a_status(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[{\"&*!:a1 \n,\\]}-]{0,80}") {
        REGISTRY.with(|registry| {
            for media in [JSON, YAML, PROTOBUF] {
                let enveloped = [b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".as_slice(), &[bytes.len() as u8 & 0x7f], &bytes].concat();
                for bytes in [&bytes[..], text.as_bytes(), &enveloped] {
                    if let Err(status) = parse(registry, media, bytes) {
                        prop_assert_eq!(status.code, 400);
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn what_nobody_could_read_again_is_refused() {
    REGISTRY.with(|registry| {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        for media in [JSON, YAML] {
            assert!(parse(registry, media, deep(types::MOST_DEPTH).as_bytes()).is_ok());
            for n in [types::MOST_DEPTH + 1, 127, 129, 100_000] {
                let refused = parse(registry, media, deep(n).as_bytes()).unwrap_err();
                assert_eq!(refused.code, 400, "{media} {n}");
            }
        }
        // YAML's aliases may not blow up.
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let row = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [row.as_str(); 9].join(","));
        }
        assert_eq!(parse(registry, YAML, bomb.as_bytes()).unwrap_err().code, 400);
        let revision = registry.find("apps", "v1", "controllerrevisions").unwrap();
        let data = (0..125).fold(json!(1), |inner, _| json!({"a": inner}));
        let object =
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": data});
        let bytes = protobuf::encode(registry, revision, &object);
        assert_eq!(parse(registry, PROTOBUF, &bytes).unwrap_err().code, 400);
    });
}
