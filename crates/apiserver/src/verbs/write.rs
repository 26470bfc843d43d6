use std::sync::Arc;

use registry::ResourceDef;
use serde_json::Value;
use store::{Committed, Expect, Op, Record, Txn};

use crate::state::Inner;
use crate::{crds, object};

/// The outcome of a write.
pub(crate) struct Written {
    /// The state that was written, or would have been.
    pub(crate) record: Arc<Record>,
    /// Things the user should know.
    pub(crate) warnings: Vec<String>,
}

impl Inner {
    /// Writes an object in its stored version. A definition of custom kinds is served when this returns.
    pub(crate) async fn put(
        &self,
        def: &ResourceDef,
        namespace: &str,
        object: &Value,
        expect: Expect,
    ) -> Result<Arc<Record>, store::CommitError> {
        let record = self.put_quietly(def, namespace, object, expect).await?;
        if &*def.table == crds::TABLE {
            self.crds.follow(record.revision).await;
        }
        Ok(record)
    }

    /// The same without waiting for anything that follows from it.
    pub(crate) async fn put_quietly(
        &self,
        def: &ResourceDef,
        namespace: &str,
        object: &Value,
        expect: Expect,
    ) -> Result<Arc<Record>, store::CommitError> {
        let op = Op::Put {
            table: def.table.clone(),
            key: object::key(namespace, object::name(object)),
            value: object::template(object),
            terms: object::terms(def, object),
            expect,
        };
        let record = first(self.store.commit(Txn::from(op)).await)?;
        crds::note_write(self, def, &record);
        Ok(record)
    }

    /// Removes an object; watchers see `last`. The kinds of a definition are gone when this returns.
    pub(crate) async fn remove(
        &self,
        def: &ResourceDef,
        namespace: &str,
        last: &Value,
        expect: Expect,
    ) -> Result<Arc<Record>, store::CommitError> {
        let record = self.remove_quietly(def, namespace, last, expect).await?;
        if &*def.table == crds::TABLE {
            self.crds.follow(record.revision).await;
        }
        Ok(record)
    }

    /// The same without waiting for anything that follows from it.
    pub(crate) async fn remove_quietly(
        &self,
        def: &ResourceDef,
        namespace: &str,
        last: &Value,
        expect: Expect,
    ) -> Result<Arc<Record>, store::CommitError> {
        let op = Op::Delete {
            table: def.table.clone(),
            key: object::key(namespace, object::name(last)),
            value: Some(object::template(last)),
            expect,
        };
        let record = first(self.store.commit(Txn::from(op)).await)?;
        self.services.release_of(def, last);
        Ok(record)
    }

    /// The present moment as objects show it: UTC, whole seconds.
    pub(crate) fn timestamp(&self) -> String {
        seconds_text(self.config.clock.now())
    }
}

/// A time as Kubernetes writes it.
pub(crate) fn seconds_text(time: base::Timestamp) -> String {
    base::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn first(committed: Result<Committed, store::CommitError>) -> Result<Arc<Record>, store::CommitError> {
    // A transaction of one operation gives one record.
    committed.and_then(|mut c| c.records.pop().ok_or(store::CommitError::Closed))
}
