//! Images from Dockerfiles.
//!
//! [`build`] reads a Dockerfile and its context, runs what must be run through a [`RunExecutor`] and registers the
//! image. Layers are cached by what they are made from: the layers below, the instruction with its variables replaced,
//! and the content of the files it reads.

mod builder;
mod cache;
mod copy;
mod error;
mod ignore;
mod parse;
mod settings;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod transfer;
mod users;
mod words;
mod workspace;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

pub use builder::build;
pub use error::{BuildError, StepError};
pub use parse::ParseError;
pub use words::WordError;

use crate::pull::{Auth, PullOptions};
use crate::reference::Reference;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The directory that COPY and ADD read.
    pub context: PathBuf,
    /// The instructions.
    pub dockerfile: DockerfileSource,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// Values for `ARG`s.
    pub args: BTreeMap<String, String>,
    /// Further labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The stage to build, by name or number; the last one if not given.
    pub target: Option<String>,
    /// Make every layer anew.
    pub no_cache: bool,
    /// Credentials for base images that are not here yet.
    pub auth: Option<Auth>,
    /// How to reach the registries of base images.
    pub pull: PullOptions,
    /// The time that a new image states as its own.
    pub created: base::Timestamp,
}

impl BuildRequest {
    /// Builds the `Dockerfile` in `context` under the name `tag`, with nothing special.
    pub fn new(context: impl Into<PathBuf>, tag: Reference, created: base::Timestamp) -> Self {
        Self {
            context: context.into(),
            dockerfile: DockerfileSource::Path("Dockerfile".into()),
            tags: vec![tag],
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            no_cache: false,
            auth: None,
            pull: PullOptions::default(),
            created,
        }
    }

    /// For an image that is nothing but the directory `root` and a program in it: what tests and demos need.
    pub fn from_root(
        root: impl Into<PathBuf>,
        tag: Reference,
        entrypoint: &[&str],
        created: base::Timestamp,
    ) -> Self {
        let entrypoint = serde_json::Value::from(entrypoint.to_vec());
        Self::new(root, tag, created)
            .with_dockerfile(format!("FROM scratch\nCOPY . /\nENTRYPOINT {entrypoint}\n"))
    }

    /// The same with these instructions instead of a file.
    pub fn with_dockerfile(self, text: impl Into<String>) -> Self {
        Self { dockerfile: DockerfileSource::Text(text.into()), ..self }
    }
}

/// Where the instructions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A file, relative to the context or absolute.
    Path(PathBuf),
    /// The text itself.
    Text(String),
}

/// What happens during a build.
#[derive(Clone, Copy, Debug)]
pub enum BuildEvent<'a> {
    /// An instruction begins.
    Step {
        /// Counted from 1, over all stages that are built.
        number: usize,
        /// How many there are.
        total: usize,
        /// The name of the stage.
        stage: Option<&'a str>,
        /// The instruction.
        text: &'a str,
    },
    /// Its layer comes from the cache.
    Cached,
    /// A base image is pulled.
    Pull(&'a Reference),
    /// A command wrote something.
    Output(OutputStream, &'a [u8]),
    /// Something that the author should know.
    Note(&'a str),
}

/// Hears what happens.
pub type Progress<'a> = &'a (dyn Fn(BuildEvent<'_>) + Send + Sync);

/// For builds that run nothing: every `RUN` fails and says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRun;

impl RunExecutor for NoRun {
    async fn run(&self, _: RunRequest, _: OutputSink<'_>) -> Result<i32, RunError> {
        Err(RunError("this build cannot run commands".into()))
    }
}

/// The directories of an overlay mount in which a command of a build runs.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// Read-only layers, the TOP one first, as overlayfs wants its `lowerdir`s; never empty.
    pub lower: Vec<PathBuf>,
    /// Takes what the command changes, and becomes the layer. On one file system with `work`.
    pub upper: PathBuf,
    /// For the kernel.
    pub work: PathBuf,
}

/// One `RUN` instruction, ready to be run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// What to mount as the root of the container.
    pub rootfs: Rootfs,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `NAME=value` pairs: the stage's `ENV` and the `ARG`s that are in scope.
    pub env: Vec<String>,
    /// Working directory in the container.
    pub cwd: String,
    /// `user[:group]` as in an image configuration; root if empty.
    pub user: String,
}

/// Which stream of a command wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where the output of a command goes, piece by piece as it comes.
pub type OutputSink<'a> = &'a (dyn Fn(OutputStream, &[u8]) + Send + Sync);

/// Why a command could not be run at all.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RunError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// Runs the `RUN` instructions of a build in containers; what runs containers implements it.
pub trait RunExecutor: Send + Sync {
    /// Runs the command to its end and gives its exit code (128 plus the signal that killed it).
    ///
    /// What the container needs mounted (`/proc`, `/dev`, `/etc/resolv.conf` and so on) must not stay in
    /// `rootfs.upper`, save for empty directories `/dev`, `/proc` and `/sys`; all mounts must be gone on return.
    fn run(
        &self,
        request: RunRequest,
        output: OutputSink<'_>,
    ) -> impl Future<Output = Result<i32, RunError>> + Send;
}
