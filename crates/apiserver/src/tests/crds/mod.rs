//! Custom kinds through the whole pipeline.

mod conversion;
mod life;
mod many;
mod objects;
mod random;
mod schemas;

use http::Method;
use serde_json::{Value, json};

use super::TestServer;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// A definition of `things.example.com` with this schema for `spec`.
fn definition(spec: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": spec,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

fn open_definition() -> Value {
    definition(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
}

fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

impl TestServer {
    /// A server that serves a definition.
    async fn with(definition: Value) -> Self {
        let server = Self::start().await;
        server.define(definition).await;
        server
    }

    async fn define(&self, definition: Value) -> Value {
        let (code, made) = self.post(CRDS, definition).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    /// Changes a definition.
    async fn redefine(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = format!("{CRDS}/{name}");
        let (_, mut crd) = self.get(&path).await;
        change(&mut crd);
        let (code, answer) = self.call(Method::PUT, &path, crd).await;
        assert_eq!(code, 200, "{answer}");
    }

    async fn make(&self, path: &str, object: Value) -> Value {
        let (code, made) = self.post(path, object).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    /// Why an object is not taken.
    async fn refusal(&self, path: &str, object: Value) -> String {
        let (code, answer) = self.post(path, object).await;
        assert!(code >= 400, "{answer}");
        answer["message"].as_str().unwrap_or_default().to_owned()
    }
}
