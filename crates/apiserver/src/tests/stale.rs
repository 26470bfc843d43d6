//! Records that would be encrypted otherwise today.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{Opened, Seal, SealError};

use super::{MAPS, TestServer};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Encrypts nothing, and remembers which secrets were written since the key was changed.
#[derive(Debug, Default)]
struct Rotated {
    changed: Mutex<bool>,
    fresh: Mutex<HashSet<String>>,
}

impl Seal for Rotated {
    fn covers(&self, table: &str) -> bool {
        table == "secrets"
    }

    fn seal(&self, _table: &str, key: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.fresh.lock().insert(key.to_owned());
        Ok(plain.to_vec())
    }

    fn passed(&self, _table: &str, _key: &str) {}

    fn is_stale(&self, table: &str, key: &str) -> bool {
        self.covers(table) && *self.changed.lock() && !self.fresh.lock().contains(key)
    }

    fn open(&self, _table: &str, _key: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        Ok(Opened { plain: sealed.to_vec(), stale: false })
    }
}

#[tokio::test]
async fn what_would_be_encrypted_otherwise_is_written_though_nothing_changes() {
    let seal = Arc::new(Rotated::default());
    let server = TestServer::with_seal(seal.clone()).await;
    let object = |name: &str| json!({"metadata": {"name": name}});
    for name in ["a", "b"] {
        assert_eq!(server.post(SECRETS, object(name)).await.0, 201);
    }
    assert_eq!(server.post(MAPS, object("m")).await.0, 201);
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let written = |path: String, apply: bool| {
        let server = &server;
        async move {
            let (_, before) = server.get(&path).await;
            let (code, after) = match apply {
                false => server.call(Method::PUT, &path, before.clone()).await,
                true => {
                    let meta = &before["metadata"];
                    let nothing = json!({"apiVersion": "v1", "kind": before["kind"],
                        "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}});
                    let path = format!("{path}?fieldManager=migrator");
                    server.patch(&path, "application/apply-patch+yaml", nothing).await
                }
            };
            assert_eq!(code, 200, "{after}");
            assert_eq!(
                (&after["data"], &after["metadata"]["uid"]),
                (&before["data"], &before["metadata"]["uid"])
            );
            assert_eq!(after["metadata"]["managedFields"], before["metadata"]["managedFields"]);
            version(&after) != version(&before)
        }
    };
    for apply in [false, true] {
        assert!(!written(format!("{SECRETS}/a"), apply).await);
    }
    *seal.changed.lock() = true;
    seal.fresh.lock().clear();
    for (name, apply) in [("a", false), ("b", true)] {
        assert!(written(format!("{SECRETS}/{name}"), apply).await, "{name} is under the old key");
        assert!(!written(format!("{SECRETS}/{name}"), apply).await, "{name} is under the new one");
    }
    assert!(!written(format!("{MAPS}/m"), true).await, "nobody encrypts it");
}
