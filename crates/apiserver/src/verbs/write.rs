use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use auth::User;
use http::HeaderMap;
use registry::{Registry, ResourceDef};
use serde_json::Value;
use store::{Committed, Expect, Op, Record, Txn};
use types::apply::{Manager, Operation, Shapes};

use crate::admit;
use crate::request::ResourceRequest;
use crate::state::Inner;
use crate::trace::{self, Kind};
use crate::{crds, object, services};

/// A write on its way: who writes what, and how.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) def: &'a ResourceDef,
    pub(crate) user: &'a User,
    /// Empty for cluster-wide kinds.
    pub(crate) namespace: &'a str,
    /// Empty for the resource itself.
    pub(crate) subresource: &'a str,
    /// Whether everything happens but the writing.
    pub(crate) dry_run: bool,
    /// Whom the changed fields are put down to.
    pub(crate) manager: &'a str,
    /// The options, as admission sees them.
    pub(crate) options: admission::Options<'a>,
    /// Whether admission has passed the write already, in another form.
    pub(crate) passed: bool,
}

impl<'a> Write<'a> {
    /// What a request asks for.
    pub(crate) fn of(
        server: &'a Inner,
        user: &'a User,
        r: &'a ResourceRequest,
        headers: &'a HeaderMap,
    ) -> Self {
        Self {
            server,
            registry: &r.registry,
            def: &r.def,
            user,
            namespace: &r.namespace,
            subresource: &r.subresource,
            dry_run: r.query.dry_run,
            manager: r.query.manager(headers),
            options: admit::options(&r.query, admit::options_kind(headers, r)),
            passed: false,
        }
    }

    /// The writer as an owner of fields.
    pub(crate) fn manager(&self, operation: Operation) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            operation,
            api_version: self.def.api_version(),
            subresource: self.subresource.to_owned(),
            time: self.server.timestamp(),
            fields: Default::default(),
        }
    }

    /// The kind's shape, as far as it is known.
    pub(crate) fn shapes(&self) -> Option<Shapes<'a>> {
        let (definitions, root) = self.def.shape(self.registry)?;
        Some(Shapes { definitions, root })
    }
}

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
        let key = object::key(namespace, object::name(object));
        let mut ops = services::claims(self, def, &key, Some(object));
        let (value, terms) = (object::template(object), object::terms(def, object));
        ops.insert(0, Op::Put { table: def.table.clone(), key, value, terms, expect });
        let operation = if expect == Expect::Absent { "create" } else { "update" };
        let record = self.commit(operation, &def.table, ops).await?;
        crds::note_write(self, def, &record);
        Ok(record)
    }

    /// Commits a write of one object with what belongs to it, and gives the object.
    async fn commit(
        &self,
        operation: &'static str,
        table: &Arc<str>,
        ops: Vec<Op>,
    ) -> Result<Arc<Record>, store::CommitError> {
        let begun = Instant::now();
        let attributes = || {
            vec![
                ("operation", trace::Value::Text(operation.into())),
                ("table", trace::Value::Text(table.to_string())),
            ]
        };
        let commit = pin!(self.store.commit(Txn { ops }));
        let written = first(trace::timed("Commit to the store", Kind::Client, attributes, commit).await);
        self.metrics.committed(operation, table, begun.elapsed());
        written
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
        let key = object::key(namespace, object::name(last));
        let template = object::template(last);
        loop {
            let (table, key, value) = (def.table.clone(), key.clone(), Some(template.clone()));
            let mut ops = services::claims(self, def, &key, None);
            ops.insert(0, Op::Delete { table, key, value, expect });
            match self.commit("delete", &def.table, ops).await {
                Err(error) if services::is_lost_race(def, &error) => {}
                removed => return removed,
            }
        }
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
    // What belongs to an object's write comes after it.
    committed.and_then(|c| c.records.into_iter().next().ok_or(store::CommitError::Closed))
}
