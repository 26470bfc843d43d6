//! Objects in the version that is asked for. What was stored in that version, and fits its schema as it is now, stays
//! the bytes it is.

use std::sync::Arc;

use registry::{Conversion, Custom, ResourceDef};
use serde_json::Value;
use store::Record;
use types::Status;

use super::webhook;
use crate::object;
use crate::state::Inner;

impl Inner {
    /// A stored object as `def` shows it. Only custom kinds change here; see also [`object::decode`].
    pub(crate) async fn shown(&self, def: &ResourceDef, record: &Arc<Record>) -> Result<Arc<Record>, Status> {
        match &def.custom {
            Some(custom) if !is_ready(custom, record) => {
                let shown = self.show(def, custom, vec![record.clone()]).await?;
                Ok(shown.into_iter().next().unwrap_or_else(|| record.clone()))
            }
            _ => Ok(record.clone()),
        }
    }

    /// The same for many, which go to a webhook together.
    pub(crate) async fn all_shown(
        &self,
        def: &ResourceDef,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<Arc<Record>>, Status> {
        match &def.custom {
            Some(custom) if !records.iter().all(|record| is_ready(custom, record)) => {
                self.show(def, custom, records).await
            }
            _ => Ok(records),
        }
    }

    async fn show(
        &self,
        def: &ResourceDef,
        custom: &Custom,
        mut records: Vec<Arc<Record>>,
    ) -> Result<Vec<Arc<Record>>, Status> {
        let mut work: Vec<(usize, Value)> = Vec::new();
        for (i, record) in records.iter().enumerate().filter(|(_, record)| !is_ready(custom, record)) {
            let object = serde_json::from_slice(&record.value).map_err(|e| {
                Status::internal(format_args!("stored {} cannot be decoded: {e}", def.resource))
            })?;
            work.push((i, object));
        }
        let wanted = def.api_version();
        let mut same = vec![false; work.len()];
        for (same, (_, object)) in same.iter_mut().zip(&work) {
            *same = object["apiVersion"] == *wanted;
        }
        convert(self, def, custom, &wanted, work.iter_mut().map(|(_, object)| object).collect()).await?;
        for (same, (i, mut object)) in same.into_iter().zip(work) {
            let changed = custom.refresh(&mut object);
            if same && !changed {
                custom.vintage.note(records[i].revision);
                continue;
            }
            let mut shown = (*records[i]).clone();
            shown.value = object.to_string().into();
            records[i] = Arc::new(shown);
        }
        Ok(records)
    }

    /// Brings an object into the version it is stored in.
    pub(crate) async fn to_storage(&self, def: &ResourceDef, object: &mut Value) -> Result<(), Status> {
        match &def.custom {
            Some(custom) if def.gvk.version != def.storage.version => {
                convert(self, def, custom, &def.storage.api_version(), vec![object]).await
            }
            Some(_) => Ok(()),
            None => {
                object::to_storage(def, object);
                Ok(())
            }
        }
    }
}

/// Brings one object of a custom kind into a version.
pub(crate) async fn convert_to(
    server: &Inner,
    def: &ResourceDef,
    wanted: &str,
    object: &mut Value,
) -> Result<(), Status> {
    match &def.custom {
        Some(custom) => convert(server, def, custom, wanted, vec![object]).await,
        None => Ok(()),
    }
}

/// Brings objects into a version; those that are in it already stay as they are.
async fn convert(
    server: &Inner,
    def: &ResourceDef,
    custom: &Custom,
    wanted: &str,
    objects: Vec<&mut Value>,
) -> Result<(), Status> {
    let others: Vec<&mut Value> =
        objects.into_iter().filter(|object| object["apiVersion"] != *wanted).collect();
    if others.is_empty() {
        return Ok(());
    }
    match &custom.conversion {
        Conversion::None => {
            for object in others {
                object["apiVersion"] = wanted.into();
            }
            Ok(())
        }
        Conversion::Webhook(config) => webhook::convert(server, def, config, wanted, others).await,
    }
}

/// Whether a record's bytes can be shown as they are.
fn is_ready(custom: &Custom, record: &Record) -> bool {
    record.value.starts_with(custom.head.as_bytes()) && custom.vintage.fits(record.revision)
}

/// Tells the schema that is in force now of an object that was written under an older one.
pub(crate) fn note_write(server: &Inner, def: &ResourceDef, record: &Record) {
    let Some(custom) = &def.custom else { return };
    let registry = server.registry();
    let now = registry.custom(&custom.crd);
    if !now.iter().any(|other| std::ptr::eq(&**other, def)) {
        now.iter().filter_map(|other| other.custom.as_ref()).for_each(|c| c.vintage.doubt(record.revision));
    }
}

/// Whether an object is stored in the version that it would be written in now.
pub(crate) fn is_current(def: &ResourceDef, record: &Record) -> bool {
    def.custom.is_none() || record.value.starts_with(registry::head(&def.storage.api_version()).as_bytes())
}
