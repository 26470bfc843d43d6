use registry::ResourceDef;
use serde_json::{Value, json};

use crate::state::Inner;

/// Objects as the rows of a `meta.k8s.io/v1` Table; each row brings its object's metadata along.
pub(super) fn table(
    server: &Inner,
    def: &ResourceDef,
    objects: &[Value],
    meta: Value,
    with_columns: bool,
) -> Value {
    let now = server.config.clock.now();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let partial = super::partial::object(object);
            json!({"cells": def.strategy.cells(object, now), "object": partial})
        })
        .collect();
    let columns: Vec<Value> = if with_columns {
        let definition = |c: &registry::Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": "", "priority": c.priority});
        def.strategy.columns().iter().map(definition).collect()
    } else {
        Vec::new()
    };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": columns, "rows": rows})
}
