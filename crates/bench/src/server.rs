//! A server under test.

use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub struct Server {
    child: Child,
    pub port: u16,
    pub tls: Arc<ClientConfig>,
    /// From the start of the process to the word that the API is ready.
    pub started_in: Duration,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a control plane without a node.
    pub async fn start(gantry: &Path) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = |name: &str| folder.path().join(name);
        let begun = Instant::now();
        let mut child = Command::new(gantry)
            .arg("server")
            .arg("--disable-agent")
            .arg(format!("--https-port={port}"))
            .arg("--bind-address=127.0.0.1")
            .arg("--node-ip=127.0.0.1")
            .arg(format!("--data-dir={}", path("data").display()))
            .arg(format!("--run-dir={}", path("run").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let started_in = loop {
            match lines.next_line().await? {
                Some(line) if line == "the API is ready" => break begun.elapsed(),
                Some(_) => {}
                None => return Err("the server ended".into()),
            }
        };
        let config: Value = serde_norway::from_str(&std::fs::read_to_string(path("data/admin.kubeconfig"))?)?;
        let tls = client_config(&config)?;
        Ok(Self { child, port, tls, started_in, _folder: folder })
    }

    pub fn resident_megabytes(&self) -> f64 {
        let status = self.child.id().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")));
        let status = status.and_then(Result::ok).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

fn client_config(kubeconfig: &Value) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let data = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default());
    let user = &kubeconfig["users"][0]["user"];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&data(
        &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"],
    )?)?)?;
    let chain = vec![CertificateDer::from_pem_slice(&data(&user["client-certificate-data"])?)?];
    let key = PrivateKeyDer::from_pem_slice(&data(&user["client-key-data"])?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}
