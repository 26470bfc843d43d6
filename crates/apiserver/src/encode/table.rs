use registry::ResourceDef;
use serde_json::{Value, json};

use super::RowObject;
use crate::state::Inner;

/// Objects as the rows of a `meta.k8s.io/v1` Table.
pub(super) fn table(
    server: &Inner,
    def: &ResourceDef,
    objects: Vec<Value>,
    row: RowObject,
    meta: Value,
    with_columns: bool,
) -> Value {
    let now = server.config.clock.now();
    let rows = objects.into_iter().map(|object| {
        let cells = def.strategy.cells(&object, now);
        match row {
            RowObject::Nothing => json!({"cells": cells}),
            RowObject::Metadata => json!({"cells": cells, "object": super::partial::object(&object)}),
            RowObject::Whole => json!({"cells": cells, "object": object}),
        }
    });
    let rows: Vec<Value> = rows.collect();
    let columns: Vec<Value> = if with_columns { def.strategy.column_definitions() } else { Vec::new() };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": columns, "rows": rows})
}
