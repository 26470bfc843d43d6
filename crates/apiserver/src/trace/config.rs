use http::Uri;
use http::uri::Authority;
use serde_json::Value;

/// What a TracingConfiguration says (kubernetes/kubernetes, `staging/src/k8s.io/apiserver/pkg/apis/apiserver/v1beta1`,
/// `component-base/tracing/api/v1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Where the collector listens for gRPC.
    pub endpoint: Authority,
    /// How many requests of a million are noted.
    pub per_million: u32,
}

/// A TracingConfiguration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceConfigError {
    /// It is something else.
    #[error("it is no TracingConfiguration of apiserver.config.k8s.io/v1 (or v1beta1, v1alpha1)")]
    Kind,
    /// A field that there is not.
    #[error("{0}: unknown field")]
    Unknown(String),
    /// A rate beyond its bounds.
    #[error("samplingRatePerMillion: {0} is no number from 0 to 1000000")]
    Rate(Value),
    /// A place that is none.
    #[error("endpoint: {0} is no host:port of a collector")]
    Endpoint(Value),
}

impl TraceConfig {
    /// Reads the file's content.
    pub fn read(file: &Value) -> Result<Self, TraceConfigError> {
        let version = file["apiVersion"].as_str().and_then(|v| v.strip_prefix("apiserver.config.k8s.io/"));
        if !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) || file["kind"] != "TracingConfiguration" {
            return Err(TraceConfigError::Kind);
        }
        for (field, value) in file.as_object().into_iter().flatten() {
            match field.as_str() {
                "apiVersion" | "kind" | "endpoint" | "samplingRatePerMillion" => {}
                _ if value.is_null() => {}
                _ => return Err(TraceConfigError::Unknown(field.clone())),
            }
        }
        let rate = &file["samplingRatePerMillion"];
        let per_million = match rate {
            Value::Null => Some(0),
            rate => rate.as_u64().filter(|rate| *rate <= 1_000_000),
        };
        let endpoint = &file["endpoint"];
        let place = match endpoint {
            Value::Null => Some(Authority::from_static("localhost:4317")),
            Value::String(text) => authority(text),
            _ => None,
        };
        Ok(Self {
            endpoint: place.ok_or_else(|| TraceConfigError::Endpoint(endpoint.clone()))?,
            per_million: per_million.ok_or_else(|| TraceConfigError::Rate(rate.clone()))? as u32,
        })
    }
}

/// A host and a port, with or without a scheme before them.
fn authority(text: &str) -> Option<Authority> {
    let uri: Uri = text.parse().ok()?;
    if !matches!(uri.scheme_str(), None | Some("http" | "dns")) {
        return None;
    }
    uri.authority().filter(|a| a.port_u16().is_some() && !a.host().is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_upstream_documents_and_refuses_the_rest() {
        let file = |more: Value| {
            let mut file =
                json!({"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "TracingConfiguration"});
            for (field, value) in more.as_object().into_iter().flatten() {
                file[field] = value.clone();
            }
            TraceConfig::read(&file)
        };
        let plain = file(json!({})).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.per_million), ("localhost:4317", 0));
        let whole = file(json!({"endpoint": "10.0.0.1:99", "samplingRatePerMillion": 100})).unwrap();
        assert_eq!((whole.endpoint.as_str(), whole.per_million), ("10.0.0.1:99", 100));
        for (bad, why) in [
            (json!({"kind": "X"}), "it is no TracingConfiguration"),
            (json!({"samplingRatePerMillion": -1}), "samplingRatePerMillion: -1 is no number"),
            (json!({"samplingRatePerMillion": 1_000_001}), "samplingRatePerMillion: 1000001 is no number"),
            (json!({"endpoint": "nowhere"}), "endpoint: \"nowhere\" is no host:port"),
            (json!({"endpoint": "https://a:1"}), "endpoint: \"https://a:1\" is no host:port"),
            (json!({"sampling": 1}), "sampling: unknown field"),
        ] {
            let error = file(bad).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
