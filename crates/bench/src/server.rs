//! A server under test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::connection::Connection;
use crate::processes::Memory;
use crate::watch::Watch;
use crate::{Outcome, netns};

/// What a server consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    ControlPlane,
    WithNode,
}

pub struct Server {
    gantry: PathBuf,
    shape: Shape,
    child: Child,
    _says: Lines<BufReader<ChildStdout>>,
    pub port: u16,
    pub tls: Arc<ClientConfig>,
    begun: Instant,
    /// From the start of the process to the word that the API is ready.
    pub started_in: Duration,
    /// None once another server has it.
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a new cluster and waits for its API.
    pub async fn start(gantry: &Path, shape: Shape) -> Outcome<Self> {
        Self::start_in(tempfile::tempdir()?, gantry.to_owned(), shape).await
    }

    /// Ends the server in order and starts it again over what it has stored.
    pub async fn restart(mut self) -> Outcome<Self> {
        let pid = self.child.id().ok_or("the server ended")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGTERM)?;
        self.child.wait().await?;
        let folder = self.folder.take().ok_or("the server has no folder")?;
        Self::start_in(folder, self.gantry.clone(), self.shape).await
    }

    async fn start_in(folder: tempfile::TempDir, gantry: PathBuf, shape: Shape) -> Outcome<Self> {
        let log =
            std::fs::File::options().create(true).append(true).open(folder.path().join("server.log"))?;
        let begun = Instant::now();
        let mut command = Command::new(&gantry);
        command.arg("server").args(flags(folder.path())).stdin(Stdio::null()).stdout(Stdio::piped());
        if shape == Shape::ControlPlane {
            command.arg("--disable-agent");
        }
        let mut child = command.stderr(log).kill_on_drop(true).spawn()?;
        let mut says = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let started_in = loop {
            match says.next_line().await? {
                Some(line) if line == "the API is ready" => break begun.elapsed(),
                Some(line) if line.starts_with("error") => return Err(line.into()),
                Some(_) => {}
                None => return Err("the server ended".into()),
            }
        };
        let config = std::fs::read_to_string(folder.path().join("data/admin.kubeconfig"))?;
        let tls = client_config(&serde_norway::from_str(&config)?)?;
        Ok(Self {
            gantry,
            shape,
            child,
            _says: says,
            port: 6443,
            tls,
            begun,
            started_in,
            folder: Some(folder),
        })
    }

    fn folder(&self) -> Outcome<&Path> {
        Ok(self.folder.as_ref().ok_or("the server has no folder")?.path())
    }

    /// From the start of the process to a node that the API shows as Ready.
    pub async fn node_ready(&self) -> Outcome<Duration> {
        let mut nodes = Watch::open(self, "/api/v1/nodes").await?;
        let ready = |conditions: &[crate::watch::Condition]| {
            conditions.iter().any(|c| c.kind == "Ready" && c.status == "True")
        };
        nodes.until(1, |event| ready(&event.object.status.conditions)).await?;
        Ok(self.begun.elapsed())
    }

    /// Waits until pods can be made.
    pub async fn default_account(&self) -> Outcome<()> {
        let mut accounts = Watch::open(self, "/api/v1/namespaces/default/serviceaccounts").await?;
        accounts.until(1, |event| event.object.metadata.name == "default").await?;
        let mut connection = Connection::open(self).await?;
        connection.call(Method::GET, "/readyz", Default::default(), StatusCode::OK).await?;
        Ok(())
    }

    /// Builds an image with nothing in it but the demo's program.
    pub async fn build_image(&self, name: &str) -> Outcome<()> {
        let context = self.folder()?.join("context");
        std::fs::create_dir(&context)?;
        let program = self.gantry.with_file_name("gantry-demo");
        std::fs::copy(&program, context.join("program"))
            .map_err(|e| format!("cannot copy {}: {e}", program.display()))?;
        let text = "FROM scratch\nCOPY program /program\nENTRYPOINT [\"/program\"]\n";
        std::fs::write(context.join("Dockerfile"), text)?;
        let folder = self.folder()?;
        let path = |name: &str| format!("--{name}-dir={}", folder.join(name).display());
        let mut command = Command::new(&self.gantry);
        command.args(["build", "--tag", name, &path("data"), &path("run")]).arg(context);
        let output = command.output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr).into()) }
    }

    pub fn memory(&self) -> Outcome<Memory> {
        Memory::of(&self.gantry, self.folder()?)
    }
}

impl Drop for Server {
    /// Leaves no pod, no rule, and the port free.
    fn drop(&mut self) {
        let Ok(folder) = self.folder() else { return };
        let mut down = std::process::Command::new(&self.gantry);
        down.args(["down", "--purge"]).args(flags(folder));
        match down.stdout(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("bench: {down:?}: {other:?}"),
        }
    }
}

fn flags(folder: &Path) -> Vec<String> {
    let path = |name: &str| format!("--{name}-dir={}", folder.join(name).display());
    vec![
        path("data"),
        path("run"),
        path("log"),
        format!("--cgroup-parent={}", netns::name()),
        "--node-name=node-1".into(),
        "--node-ip=127.0.0.1".into(),
        // Room for a thousand pods, and addresses for them.
        "--max-pods=1100".into(),
        "--node-cidr-mask-size=20".into(),
    ]
}

fn client_config(kubeconfig: &Value) -> Outcome<Arc<ClientConfig>> {
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
