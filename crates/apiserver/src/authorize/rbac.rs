use std::collections::HashMap;
use std::sync::Arc;

use auth::{BindingObject, RbacIndex, RoleObject};
use parking_lot::Mutex;
use serde_json::Value;
use store::{Revision, Store};

const ROLES: [&str; 2] = ["clusterroles.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io"];
const BINDINGS: [&str; 2] =
    ["clusterrolebindings.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"];

/// An index of roles and bindings that is built anew when one of the four tables has changed. What has not changed
/// is not decoded again.
#[derive(Default)]
pub(super) struct RbacCache(Mutex<State>);

#[derive(Default)]
struct State {
    version: Option<[Revision; 4]>,
    index: Arc<RbacIndex>,
    roles: [Decoded<RoleObject>; 2],
    bindings: [Decoded<BindingObject>; 2],
}

type Decoded<T> = HashMap<Arc<str>, (Revision, Arc<T>)>;

impl RbacCache {
    pub(super) fn index(&self, store: &Store) -> Arc<RbacIndex> {
        let mut state = self.0.lock();
        let version = Some([
            store.last_change(ROLES[0]),
            store.last_change(ROLES[1]),
            store.last_change(BINDINGS[0]),
            store.last_change(BINDINGS[1]),
        ]);
        if state.version != version {
            let State { roles, bindings, .. } = &mut *state;
            let mut all_roles = Vec::new();
            for (table, known) in ROLES.iter().zip(roles) {
                refresh(store, table, known, RoleObject::read, &mut all_roles);
            }
            let mut all_bindings = Vec::new();
            for (table, known) in BINDINGS.iter().zip(bindings) {
                refresh(store, table, known, BindingObject::read, &mut all_bindings);
            }
            state.index = Arc::new(RbacIndex::build(&all_roles, &all_bindings));
            state.version = version;
        }
        state.index.clone()
    }
}

fn refresh<T>(
    store: &Store,
    table: &str,
    known: &mut Decoded<T>,
    read: impl Fn(&Value) -> T,
    all: &mut Vec<Arc<T>>,
) {
    let mut now = HashMap::new();
    for record in store.snapshot(table).records.values() {
        let object = match known.remove(&record.key) {
            Some((revision, object)) if revision == record.revision => object,
            _ => match serde_json::from_slice::<Value>(&record.value) {
                Ok(value) => Arc::new(read(&value)),
                Err(_) => continue,
            },
        };
        all.push(object.clone());
        now.insert(record.key.clone(), (record.revision, object));
    }
    *known = now;
}
