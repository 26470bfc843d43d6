//! Requests for `metrics.k8s.io` (kubernetes-sigs/metrics-server, `pkg/api`).

use http::{Method, StatusCode, Uri};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use types::{Reason, Status};

use crate::list::{self, Include, Kind};
use crate::scrape::Metrics;
use crate::{GROUP, VERSION};

/// An answer: a JSON text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub code: StatusCode,
    /// The object, or a `Status`.
    pub body: Vec<u8>,
}

impl Answer {
    fn of(value: &Value) -> Self {
        Self { code: StatusCode::OK, body: value.to_string().into_bytes() }
    }

    fn failure(status: &Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code, body: status.to_json() }
    }
}

/// What a query asks for.
#[derive(Debug, Default)]
struct Query {
    labels: Option<String>,
    fields: Option<String>,
    watch: bool,
    include: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
            match name {
                "labelSelector" => query.labels = Some(value).filter(|v| !v.is_empty()),
                "fieldSelector" => query.fields = Some(value).filter(|v| !v.is_empty()),
                "watch" => query.watch = matches!(value.as_str(), "" | "1" | "true" | "True"),
                "includeObject" => query.include = Some(value),
                _ => {}
            }
        }
        query
    }

    fn list(&self) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..ListParams::default()
        }
    }

    fn include(&self) -> Include {
        match self.include.as_deref() {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

fn not_found(kind: Kind, name: &str) -> Status {
    Status::not_found(GROUP, &kind.name().to_lowercase(), name)
}

/// What the API server said instead.
fn passed_on(error: &kube::Error) -> Status {
    let message = client::message(error);
    match error {
        kube::Error::Api(status) if status.code == 400 => Status::bad_request(message),
        _ => Status::new(Reason::ServiceUnavailable, format!("pods and nodes cannot be read: {message}")),
    }
}

fn is_table(accept: &str) -> bool {
    // The first form that is known counts.
    let mut forms = accept.split(',').map(|form| form.replace(' ', ""));
    forms.find_map(|form| match form.split(';').next() {
        Some("application/json") if form.contains(";as=Table") => {
            form.contains("g=meta.k8s.io").then_some(true)
        }
        Some("application/json" | "*/*" | "application/*") if !form.contains(";as=") => Some(false),
        _ => None,
    }) == Some(true)
}

impl Metrics {
    /// Answers a request that has been authenticated and authorized. `accept` is what the client reads.
    pub async fn answer(&self, method: &Method, uri: &Uri, accept: &str) -> Answer {
        match self.find(method, uri, is_table(accept)).await {
            Ok(value) => Answer::of(&value),
            Err(status) => Answer::failure(&status),
        }
    }

    async fn find(&self, method: &Method, uri: &Uri, table: bool) -> Result<Value, Status> {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = uri.path().split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let ["apis", GROUP, VERSION, rest @ ..] = parts.as_slice() else {
            return Err(Status::no_such_resource());
        };
        let query = Query::parse(uri.query().unwrap_or_default());
        if !matches!(*method, Method::GET | Method::HEAD) || query.watch {
            return Err(Status::method_not_allowed());
        }
        let (kind, items, single) = match rest {
            [] => return Ok(list::resources()),
            ["nodes"] => (Kind::Nodes, self.nodes(&query).await?, false),
            ["nodes", name] => (Kind::Nodes, vec![self.node(name).await?], true),
            ["pods"] => (Kind::Pods, self.pods(Api::all(self.client.clone()), &query).await?, false),
            ["namespaces", namespace, "pods"] => {
                (Kind::Pods, self.pods(Api::namespaced(self.client.clone(), namespace), &query).await?, false)
            }
            ["namespaces", namespace, "pods", name] => {
                (Kind::Pods, vec![self.pod(namespace, name).await?], true)
            }
            _ => return Err(Status::no_such_resource()),
        };
        if table {
            return Ok(list::table(items, query.include()));
        }
        match (single, items) {
            (true, mut items) => items.pop().ok_or_else(|| not_found(kind, "")),
            (false, items) => Ok(list::list(kind, items)),
        }
    }

    async fn nodes(&self, query: &Query) -> Result<Vec<Value>, Status> {
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = api.list_metadata(&query.list()).await.map_err(|e| passed_on(&e))?;
        let mut nodes: Vec<ObjectMeta> = nodes.items.into_iter().map(|n| n.metadata).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let (samples, now) = (self.samples.read(), self.clock.now());
        let measured = nodes.iter().filter_map(|meta| {
            let used = samples.node(meta.name.as_deref()?)?;
            Some(list::node(meta, &used, now))
        });
        Ok(measured.collect())
    }

    async fn node(&self, name: &str) -> Result<Value, Status> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get_metadata_opt(name).await.map_err(|e| passed_on(&e))?;
        let used = self.samples.read().node(name);
        match (node, used) {
            (Some(node), Some(used)) => Ok(list::node(&node.metadata, &used, self.clock.now())),
            _ => Err(not_found(Kind::Nodes, name)),
        }
    }

    async fn pods(&self, api: Api<Pod>, query: &Query) -> Result<Vec<Value>, Status> {
        let pods = api.list_metadata(&query.list()).await.map_err(|e| passed_on(&e))?;
        let mut pods: Vec<ObjectMeta> = pods.items.into_iter().map(|p| p.metadata).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let (samples, now) = (self.samples.read(), self.clock.now());
        let measured = pods.iter().filter_map(|meta| {
            let used = samples.pod(meta.namespace.as_deref()?, meta.name.as_deref()?)?;
            list::pod(meta, &used, now)
        });
        Ok(measured.collect())
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Value, Status> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = api.get_metadata_opt(name).await.map_err(|e| passed_on(&e))?;
        let pod = pod.ok_or_else(|| not_found(Kind::Pods, name))?;
        let used = self.samples.read().pod(namespace, name);
        let told = used.and_then(|used| list::pod(&pod.metadata, &used, self.clock.now()));
        told.ok_or_else(|| not_found(Kind::Pods, &format!("{namespace}/{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert!(is_table("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"));
        assert!(!is_table("application/json, */*"));
        assert!(!is_table("application/json,application/json;as=Table;v=v1;g=meta.k8s.io"));
        assert!(!is_table(""));
    }

    #[test]
    fn queries() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&fieldSelector=metadata.name%3Dx&watch=0&x");
        assert_eq!(
            (query.labels.as_deref(), query.fields.as_deref()),
            (Some("a=b,c"), Some("metadata.name=x"))
        );
        assert!(!query.watch && Query::parse("watch=true").watch);
    }
}
