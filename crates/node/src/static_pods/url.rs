//! Manifests that are asked for (kubernetes/kubernetes, `pkg/kubelet/config/http.go`).

use std::time::Duration;

use kube::Client;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for the manifests.
pub(super) struct Asker {
    client: Client,
    path: String,
    headers: Vec<(String, String)>,
}

impl Asker {
    /// # Errors
    /// When the URL cannot be used.
    pub(super) fn new(url: &str, headers: Vec<(String, String)>) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("the URL {url:?} cannot be read: {e}"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("the URL {url:?} does not begin with http:// or https:// and a host"));
        };
        // Whoever was first has installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = format!("{scheme}://{authority}").parse().map_err(|e| format!("{url:?}: {e}"))?;
        let mut config = kube::Config::new(base);
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        let client = Client::try_from(config).map_err(|e| format!("cannot ask {url}: {e}"))?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Ok(Self { client, path, headers })
    }

    /// What the server says.
    pub(super) async fn ask(&self) -> Result<String, String> {
        let mut request = http::Request::get(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Vec::new()).map_err(|e| e.to_string())?;
        let answer = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        let text = answer.map_err(|_| "no answer within 10 s".to_owned())?.map_err(|e| e.to_string())?;
        if text.is_empty() {
            return Err("zero-length data received".to_owned());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_urls_of_servers_will_do() {
        for bad in ["ftp://h/x", "/x", "h", "http://"] {
            assert!(Asker::new(bad, Vec::new()).is_err(), "{bad}");
        }
        assert_eq!(Asker::new("http://127.0.0.1:1/pods?x=y", Vec::new()).unwrap().path, "/pods?x=y");
    }
}
