//! More processes in containers, and commands that run once.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base::Ids;
use tokio::io::AsyncReadExt;

use crate::client::Line;
use crate::error::{Error, Result};
use crate::protocol::{CONTAINERS, LAUNCH_FILE, Request};
use crate::records::{self, At};
use crate::runtime::{Inner, Runtime, blocking};
use crate::session::{Session, Stdio};
use crate::spec::{ContainerSpec, ExecSpec, NetworkMode, OnceNetwork, OnceSpec, SandboxSpec};
use crate::status::{ContainerState, Output};

/// More than this of the output of a short command is not kept.
const MOST_OUTPUT: usize = 16 << 20;

/// Where a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Runtime {
    /// Runs one more process in a container.
    pub async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Session> {
        self.line(id, Request::Exec { id: id.to_owned(), spec: Box::new(spec) }).await
    }

    /// Runs a short command in a container and gathers what it says; it is killed when `timeout` is over.
    pub async fn exec_sync(&self, id: &str, argv: Vec<String>, timeout: Option<Duration>) -> Result<Output> {
        let what = || argv.join(" ");
        let limit = timeout.unwrap_or(Duration::from_secs(3600 * 24));
        let text = what();
        let session = self.exec(id, ExecSpec { argv, ..ExecSpec::default() }).await?;
        gather(session, limit).await?.ok_or(Error::Timeout { what: text, limit })
    }

    /// Joins the container's own input and output.
    pub async fn attach(&self, id: &str) -> Result<Session> {
        self.line(id, Request::Attach { id: id.to_owned() }).await
    }

    async fn line(&self, id: &str, request: Request) -> Result<Session> {
        let sandbox = self.inner.sandbox_of(id)?;
        if !sandbox.container(id).is_some_and(|c| matches!(c.state, ContainerState::Running { .. })) {
            return Err(Error::NotRunning(id.to_owned()));
        }
        let (line, reply, fds) = Line::open(sandbox.id(), &sandbox.dir, &request).await?;
        Session::new(line, &reply, fds)
    }

    /// Runs a command over given files and hands each piece of its output to `output`; gives the exit code.
    pub async fn run_once(
        &self,
        spec: OnceSpec,
        output: impl FnMut(OutputKind, &[u8]) + Send,
    ) -> Result<i32> {
        let id = format!("once-{:016x}", self.inner.ids.bits() as u64);
        let network = match spec.network {
            OnceNetwork::Host => NetworkMode::Host,
            OnceNetwork::None => NetworkMode::Own,
        };
        let sandbox =
            SandboxSpec { id: id.clone(), hostname: "build".into(), network, ..SandboxSpec::default() };
        self.run_sandbox(sandbox).await?;
        // If the caller stops waiting, the command ends too.
        let mut guard = Removal { runtime: self.clone(), id: Some(id.clone()) };
        let result = self.run_in(&id, spec, output).await;
        guard.id = None;
        self.remove_sandbox(&id).await?;
        result
    }

    async fn run_in(
        &self,
        sandbox: &str,
        spec: OnceSpec,
        mut output: impl FnMut(OutputKind, &[u8]) + Send,
    ) -> Result<i32> {
        let sandbox = self.inner.sandbox(sandbox)?;
        let spec = ContainerSpec {
            name: "once".into(),
            rootfs: spec.rootfs,
            args: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            user: spec.user,
            mounts: spec.mounts,
            ..ContainerSpec::default()
        };
        let (launch, mut start) = self.inner.describe(&sandbox, spec);
        start.direct = true;
        let id = launch.id.clone();
        let dir = sandbox.dir.join(CONTAINERS).join(&id);
        let run = async {
            blocking(move || {
                fs::create_dir_all(&dir).at("make directory", &dir)?;
                fs::create_dir_all(&launch.writable).at("make directory", &launch.writable)?;
                records::write(&dir.join(LAUNCH_FILE), &launch)
            })
            .await?;
            let request = Request::Start(Box::new(start));
            let (line, reply, fds) = Line::open(sandbox.id(), &sandbox.dir, &request).await?;
            follow(Session::new(line, &reply, fds)?, &mut output).await
        };
        let result = run.await;
        if result.is_ok() {
            self.inner.remove_files(&sandbox, &id).await?;
        } else {
            // Removed with the whole sandbox; its writable directory is outside of that.
            let _ = self.inner.clone().remove_layer(&id).await;
        }
        result
    }
}

impl Inner {
    async fn remove_layer(self: Arc<Self>, id: &str) -> Result<()> {
        let layer = self.places.container(id);
        blocking(move || records::remove_all(&layer)).await
    }
}

/// Removes a sandbox when whoever waits for it has stopped waiting.
struct Removal {
    runtime: Runtime,
    id: Option<String>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let runtime = self.runtime.clone();
            tokio::spawn(async move {
                if let Err(error) = runtime.remove_sandbox(&id).await {
                    tracing::warn!(sandbox = id, %error, "an abandoned command cannot be removed");
                }
            });
        }
    }
}

/// Hands on all output, then gives the exit code.
async fn follow(mut session: Session, output: &mut (impl FnMut(OutputKind, &[u8]) + Send)) -> Result<i32> {
    let (mut stdout, mut stderr) = (session.stdout.take(), session.stderr.take());
    let (mut one, mut two) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            len = read(&mut stdout, &mut one), if stdout.is_some() => match len {
                0 => stdout = None,
                len => output(OutputKind::Stdout, &one[..len]),
            },
            len = read(&mut stderr, &mut two), if stderr.is_some() => match len {
                0 => stderr = None,
                len => output(OutputKind::Stderr, &two[..len]),
            },
        }
    }
    session.wait().await
}

/// 0 at the end, however it came.
async fn read(from: &mut Option<Stdio>, buffer: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

/// Output and exit code; `None` (and the process is killed) if it takes longer than `limit`.
async fn gather(mut session: Session, limit: Duration) -> Result<Option<Output>> {
    let (mut stdout, mut stderr) = (session.stdout.take(), session.stderr.take());
    let mut output = Output::default();
    let (mut one, mut two) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let keep = |to: &mut Vec<u8>, data: &[u8]| {
        let room = MOST_OUTPUT.saturating_sub(to.len());
        to.extend_from_slice(&data[..data.len().min(room)]);
    };
    let (mut out_open, mut err_open) = (stdout.is_some(), stderr.is_some());
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    let ended = session.wait();
    tokio::pin!(ended);
    // Until the process ends, not until its pipes close: what it left in the background may keep them open.
    output.code = loop {
        tokio::select! {
            code = &mut ended => break code?,
            () = &mut deadline => {
                session.kill();
                return Ok(None);
            }
            len = read(&mut stdout, &mut one), if out_open => match len {
                0 => out_open = false,
                len => keep(&mut output.stdout, &one[..len]),
            },
            len = read(&mut stderr, &mut two), if err_open => match len {
                0 => err_open = false,
                len => keep(&mut output.stderr, &two[..len]),
            },
        }
    };
    if let Some(stdout) = &mut stdout {
        stdout.read_now(&mut output.stdout, MOST_OUTPUT);
    }
    if let Some(stderr) = &mut stderr {
        stderr.read_now(&mut output.stderr, MOST_OUTPUT);
    }
    Ok(Some(output))
}
