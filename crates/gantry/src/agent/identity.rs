//! As whom an agent speaks to its cluster: with a certificate that it has asked for, and that others follow in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::KeyPairPem;
use base::{Drain, Ids, RandomIds, SystemClock};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use client::kube::Client;
use client::{Identity, Server, Transport};
use node::{CertificateStore, CertificateUse, Rotation, Switch};
use serde_json::Value;

/// Which cluster an agent belongs to, and as whom it comes there first.
#[derive(Clone, Debug, Args)]
pub struct IdentityArgs {
    /// The API of the cluster to belong to: https://host:port
    #[arg(long, env = "GANTRY_SERVER", value_name = "URL", requires = "token", requires = "ca_file")]
    pub server: Option<String>,
    /// A bootstrap token, to ask for a certificate with
    #[arg(long, env = "GANTRY_TOKEN", value_name = "TOKEN", requires = "server")]
    pub token: Option<String>,
    /// The authority of the cluster, PEM
    #[arg(long, env = "GANTRY_CA_FILE", value_name = "FILE", requires = "server")]
    pub ca_file: Option<PathBuf>,
    /// A kubeconfig to ask for a certificate with
    #[arg(long, env = "GANTRY_BOOTSTRAP_KUBECONFIG", value_name = "FILE", conflicts_with = "server")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// A kubeconfig to speak to the API with, as it is
    #[arg(
        long = "agent-kubeconfig",
        env = "GANTRY_AGENT_KUBECONFIG",
        value_name = "FILE",
        conflicts_with = "server",
        conflicts_with = "bootstrap_kubeconfig"
    )]
    pub kubeconfig: Option<PathBuf>,
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the kubeconfig {path} cannot be used: {why}")]
    Kubeconfig { path: PathBuf, why: String },
    #[error(transparent)]
    Transport(#[from] client::TransportError),
}

/// A cluster, and a first way to it.
pub struct Cluster {
    /// The flag that named it.
    pub named_by: &'static str,
    /// Its authority, PEM.
    pub ca: String,
    url: String,
    identity: Identity,
    /// Whether the identity is only good for asking for a better one.
    bootstrap: bool,
}

impl IdentityArgs {
    /// The cluster that is named, if one is.
    pub fn cluster(&self) -> Result<Option<Cluster>, IdentityError> {
        if let Some(url) = &self.server {
            let ca = self.ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
            let identity = Identity::Token(self.token.clone().unwrap_or_default());
            let cluster = Cluster { named_by: "--server", ca, url: url.clone(), identity, bootstrap: true };
            return Ok(Some(cluster));
        }
        if let Some(path) = &self.bootstrap_kubeconfig {
            return of_kubeconfig(path, "--bootstrap-kubeconfig", true).map(Some);
        }
        self.kubeconfig.as_deref().map(|path| of_kubeconfig(path, "--agent-kubeconfig", false)).transpose()
    }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

/// The cluster and the user of a kubeconfig's current context.
fn of_kubeconfig(path: &Path, named_by: &'static str, bootstrap: bool) -> Result<Cluster, IdentityError> {
    let wrong = |why: &str| IdentityError::Kubeconfig { path: path.to_owned(), why: why.to_owned() };
    let config: Value = serde_norway::from_str(&read(path)?).map_err(|e| wrong(&e.to_string()))?;
    let named = |list: &str, name: &Value, inner: &str| -> Option<Value> {
        let entry = config[list].as_array()?.iter().find(|entry| entry["name"] == *name)?;
        Some(entry[inner].clone())
    };
    let context = named("contexts", &config["current-context"], "context");
    let context = context.ok_or_else(|| wrong("it has no current context"))?;
    let cluster = named("clusters", &context["cluster"], "cluster");
    let cluster = cluster.ok_or_else(|| wrong("its current context names no cluster"))?;
    let user = named("users", &context["user"], "user").unwrap_or_default();
    // In the file itself, or in one beside it that it names.
    let part = |of: &Value, data: &str, file: &str| -> Result<Option<String>, IdentityError> {
        if let Some(text) = of[data].as_str() {
            let bytes = STANDARD.decode(text).map_err(|e| wrong(&format!("{data}: {e}")))?;
            return String::from_utf8(bytes).map(Some).map_err(|e| wrong(&format!("{data}: {e}")));
        }
        let beside = path.parent().unwrap_or(Path::new(""));
        of[file].as_str().map(|name| read(&beside.join(name))).transpose()
    };
    let url = cluster["server"].as_str().ok_or_else(|| wrong("its cluster has no server"))?.to_owned();
    let ca = part(&cluster, "certificate-authority-data", "certificate-authority")?;
    let ca = ca.ok_or_else(|| wrong("its cluster has no certificate authority"))?;
    let certificate = part(&user, "client-certificate-data", "client-certificate")?;
    let key = part(&user, "client-key-data", "client-key")?;
    let token = match user["token"].as_str() {
        Some(token) => Some(token.to_owned()),
        None => part(&user, "", "tokenFile")?.map(|token| token.trim().to_owned()),
    };
    let identity = match (certificate, key, token) {
        (Some(certificate), Some(key), _) => Identity::Certificate { certificate, key },
        (.., Some(token)) => Identity::Token(token),
        _ => return Err(wrong("its user has neither a certificate and a key nor a token")),
    };
    Ok(Cluster { named_by, ca, url, identity, bootstrap })
}

impl Cluster {
    fn client_as(&self, identity: Identity) -> Result<Client, client::TransportError> {
        let (url, ca_pem) = (self.url.clone(), self.ca.clone());
        Ok(Transport::tls(&Server { url, ca_pem, identity })?.client())
    }

    /// A client that speaks as the node. Without a certificate it waits until there is one.
    pub fn join(
        self,
        node: &str,
        store: CertificateStore,
        rotate: bool,
        drain: &Drain,
    ) -> Result<Client, IdentityError> {
        let first = self.client_as(self.identity.clone())?;
        if !self.bootstrap {
            return Ok(first);
        }
        let switch = Switch::new();
        let client = switch.client();
        let rotation = Rotation {
            usage: CertificateUse::Client,
            node: node.to_owned(),
            names: Vec::new(),
            store,
            client: client.clone(),
            bootstrap: Some(first),
            rotate,
            apply: Box::new(move |KeyPairPem { certificate, key }| {
                let identity = Identity::Certificate { certificate: certificate.clone(), key: key.clone() };
                let next = self.client_as(identity).map_err(|e| auth::TlsError::Credentials(Box::new(e)))?;
                switch.to(next);
                Ok(())
            }),
            clock: Arc::new(SystemClock),
            jitter: Box::new(jitter),
        };
        rotation.start(drain);
        Ok(client)
    }
}

/// Something between 0 and 1.
pub fn jitter() -> f64 {
    let [a, b, c, d, ..] = RandomIds.bits().to_le_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// A client of nobody: a node alone has no API.
pub fn nobody() -> Client {
    let service = tower::service_fn(|_: http::Request<client::kube::client::Body>| async {
        Err::<http::Response<http_body_util::Empty<bytes::Bytes>>, _>(Alone)
    });
    Transport::service(service).client()
}

#[derive(Debug, thiserror::Error)]
#[error("this node belongs to no cluster")]
struct Alone;

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Result<Cluster, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), "authority").unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        of_kubeconfig(&path, "x", true).map_err(|e| e.to_string())
    }

    #[test]
    fn kubeconfigs_name_clusters_and_users() {
        let text = "{current-context: b, contexts: [{name: a, context: {}}, {name: b, context: {cluster: c, user: u}}],
            clusters: [{name: c, cluster: {server: 'https://h:1', certificate-authority: ca.crt}}],
            users: [{name: u, user: {token: t}}]}";
        let found = cluster(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((found.url.as_str(), found.ca.as_str()), ("https://h:1", "authority"));
        assert!(matches!(found.identity, Identity::Token(token) if token == "t"));
        let fault = |from: &str, to: &str| cluster(&text.replace(from, to)).err().unwrap();
        assert!(fault("current-context: b", "x: y").contains("no current context"));
        assert!(fault("token: t", "x: y").contains("neither a certificate and a key nor a token"));
        assert!(fault("ca.crt", "other").contains("other"));
    }

    #[test]
    fn jitter_is_a_share() {
        assert!((0..50).all(|_| (0.0..=1.0).contains(&jitter())));
    }
}
