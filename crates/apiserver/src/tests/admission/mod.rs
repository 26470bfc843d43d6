//! Webhooks and policies, through the whole server.

pub(super) mod hook;
mod policies;
mod quota;
mod speed;
mod webhooks;

use http::Method;
use serde_json::{Value, json};

use super::{MAPS, TestServer};

const REG: &str = "/apis/admissionregistration.k8s.io/v1";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

impl TestServer {
    /// Makes an object that must come to be.
    async fn made(&self, path: &str, object: Value) -> Value {
        let (code, made) = self.post(path, object).await;
        assert_eq!(code, 201, "{made:#}");
        made
    }

    async fn gone(&self, path: &str) {
        let (code, said) = self.call(Method::DELETE, path, Value::Null).await;
        assert_eq!(code, 200, "{said:#}");
    }
}
