//! Protobuf as a client would write it, straight from the same facts that the server reads it by.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use registry::{Registry, ResourceDef};
use serde_json::Value;

static FACTS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../registry/schema/protobuf-v1.36.json")).unwrap()
});

/// An object in its envelope.
pub(super) fn encode(registry: &Registry, def: &ResourceDef, object: &Value) -> Vec<u8> {
    let name = &registry.definitions().get(def.schema.unwrap()).name;
    let mut meta = Vec::new();
    bytes(&mut meta, 1, def.api_version().as_bytes());
    bytes(&mut meta, 2, def.gvk.kind.as_bytes());
    let mut out = b"k8s\0".to_vec();
    bytes(&mut out, 1, &meta);
    bytes(&mut out, 2, &message(name, object));
    out
}

/// The JSON names of a type's fields.
pub(super) fn names(name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in FACTS[name].as_array().into_iter().flatten() {
        match row[1].as_str() {
            Some("") => names.extend(self::names(row[4].as_str().unwrap())),
            Some(name) => drop(names.insert(name.to_owned())),
            None => {}
        }
    }
    names
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, field: u64, n: i64) {
    varint(out, field << 3);
    varint(out, n as u64);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn message(name: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let text = || value.as_str().unwrap_or_default();
    match name.rsplit('.').next().unwrap_or_default() {
        "Time" | "MicroTime" => {
            let moment: jiff::Timestamp = text().parse().unwrap();
            number(&mut out, 1, moment.as_second());
            number(&mut out, 2, moment.subsec_nanosecond().into());
        }
        "Quantity" => bytes(&mut out, 1, text().as_bytes()),
        "IntOrString" => match value.as_i64() {
            Some(n) => number(&mut out, 2, n),
            None => {
                number(&mut out, 1, 1);
                bytes(&mut out, 3, text().as_bytes());
            }
        },
        "FieldsV1" | "RawExtension" | "JSON" => bytes(&mut out, 1, value.to_string().as_bytes()),
        _ => fields(name, value, &mut out),
    }
    out
}

fn fields(name: &str, value: &Value, out: &mut Vec<u8>) {
    // A type newer than the numbers has none.
    for row in FACTS[name].as_array().into_iter().flatten() {
        let (tag, key) = (row[0].as_u64().unwrap(), row[1].as_str().unwrap());
        let target = row[4].as_str().unwrap_or_default();
        if key.is_empty() {
            let mut inner = Vec::new();
            fields(target, value, &mut inner);
            bytes(out, tag, &inner);
            continue;
        }
        // A named list type is a message around its list.
        let Some(child) = (if value.is_array() { Some(value) } else { value.get(key) }) else { continue };
        let kind = row[2].as_str().unwrap();
        match row[3].as_str().unwrap() {
            "list" => child.as_array().unwrap().iter().for_each(|item| one(out, tag, kind, target, item)),
            "map" => {
                for (key, item) in child.as_object().unwrap() {
                    let mut entry = Vec::new();
                    bytes(&mut entry, 1, key.as_bytes());
                    one(&mut entry, 2, kind, target, item);
                    bytes(out, tag, &entry);
                }
            }
            _ => one(out, tag, kind, target, child),
        }
    }
}

fn one(out: &mut Vec<u8>, tag: u64, kind: &str, target: &str, value: &Value) {
    match kind {
        "string" => bytes(out, tag, value.as_str().unwrap().as_bytes()),
        "bytes" => bytes(out, tag, &unbase64(value.as_str().unwrap())),
        "bool" => number(out, tag, i64::from(value.as_bool().unwrap())),
        "int32" | "int64" => number(out, tag, value.as_i64().unwrap()),
        "double" => {
            varint(out, tag << 3 | 1);
            out.extend(value.as_f64().unwrap().to_le_bytes());
        }
        _ => bytes(out, tag, &message(target, value)),
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter(|b| *b != b'=').map(|b| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    });
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in digits {
        (bits, held) = (bits << 6 | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}
