//! The way of a Dockerfile: stage by stage, instruction by instruction.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Arch;

use super::cache::Cache;
use super::error::{BuildError, StepError};
use super::ignore::Ignore;
use super::parse::{Command, Dockerfile, Instruction, Step};
use super::settings::DEFAULT_PATH;
use super::stage::Stage;
use super::transfer::{Origin, Plan, copy_step, make_directory};
use super::words::expand;
use super::workspace::Workspace;
use super::{BuildEvent, BuildRequest, DockerfileSource, Progress, RunExecutor, RunRequest};
use crate::digest::Hasher;
use crate::image::Image;
use crate::pull::blocking;
use crate::reference::Reference;
use crate::store::{ImageStore, StoreError};

/// Arguments that need no `ARG` (Docker's predefined ones).
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Builds an image and gives it its tags.
pub async fn build<E: RunExecutor>(
    store: &ImageStore,
    request: BuildRequest,
    executor: &E,
    progress: Progress<'_>,
) -> Result<Image, BuildError> {
    let (text, ignore) = read_files(&request)?;
    let dockerfile = Dockerfile::parse(&text)?;
    let lease_store = store.clone();
    let _lease = blocking(move || lease_store.locks().ingest()).await.map_err(StoreError::from)?;

    for name in unused_args(&dockerfile, &request) {
        progress(BuildEvent::Note(&format!("the build argument {name} is not used by any ARG")));
    }
    let (globals, stages) = split(&dockerfile, &request)?;
    let target = target(&stages, request.target.as_deref())?;
    let needed = needed(&stages, target);
    let total =
        stages.iter().enumerate().filter(|(at, _)| needed.contains(at)).map(|(_, s)| s.steps.len()).sum();
    let mut builder = Builder {
        store,
        request: &request,
        ignore: Arc::new(ignore),
        escape: dockerfile.escape,
        globals,
        done: BTreeMap::new(),
        executor,
        progress,
        number: 0,
        total,
    };
    for (at, plan) in stages.iter().enumerate().filter(|(at, _)| needed.contains(at)) {
        let stage = builder.stage(&stages[..at], plan).await?;
        builder.done.insert(at, stage);
    }
    let Some(mut last) = builder.done.remove(&target) else {
        return Err(BuildError::Target(target.to_string()));
    };
    last.settings.labels.extend(request.labels.clone());

    let (store, tags, now) = (store.clone(), request.tags.clone(), request.created.to_string());
    blocking(move || {
        let manifest = last.store(&store, &now).map_err(|e| StoreError::Image(e.to_string()))?;
        let loaded = store.prepare(&manifest)?;
        store.snapshots().ensure(store.content(), &loaded.layers).map_err(StoreError::from)?;
        Ok(store.register(manifest, tags.iter().filter_map(Reference::tagged), [])?)
    })
    .await
}

/// A stage as the Dockerfile has it: `FROM` and what follows.
struct StagePlan<'a> {
    name: Option<&'a str>,
    /// The image after expansion.
    base: String,
    steps: &'a [Step],
}

struct Builder<'a, E> {
    store: &'a ImageStore,
    request: &'a BuildRequest,
    ignore: Arc<Ignore>,
    escape: char,
    globals: BTreeMap<String, String>,
    done: BTreeMap<usize, Stage>,
    executor: &'a E,
    progress: Progress<'a>,
    number: usize,
    total: usize,
}

fn read_files(request: &BuildRequest) -> Result<(String, Ignore), BuildError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
    };
    let mut ignore_paths = vec![request.context.join(".dockerignore")];
    let text = match &request.dockerfile {
        DockerfileSource::Text(text) => text.clone(),
        DockerfileSource::Path(path) => {
            let path = request.context.join(path);
            let mut own = path.clone().into_os_string();
            own.push(".dockerignore");
            ignore_paths.insert(0, own.into());
            read(&path)?
        }
    };
    let ignore = match ignore_paths.iter().find(|path| path.is_file()) {
        Some(path) => Ignore::parse(&read(path)?),
        None => Ignore::default(),
    };
    Ok((text, ignore))
}

fn unused_args<'a>(dockerfile: &Dockerfile, request: &'a BuildRequest) -> Vec<&'a str> {
    let declared: BTreeSet<&str> = dockerfile
        .steps
        .iter()
        .filter_map(|step| match &step.instruction {
            Instruction::Arg(args) => Some(args.iter().map(|(name, _)| name.as_str())),
            _ => None,
        })
        .flatten()
        .chain(PROXY_ARGS)
        .collect();
    request.args.keys().map(String::as_str).filter(|name| !declared.contains(name)).collect()
}

/// The arguments before the first `FROM`, and the stages.
fn split<'a>(
    dockerfile: &'a Dockerfile,
    request: &BuildRequest,
) -> Result<(BTreeMap<String, String>, Vec<StagePlan<'a>>), BuildError> {
    let architecture = Arch::default().to_string();
    let mut globals = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        globals.insert(format!("{side}PLATFORM"), format!("linux/{architecture}"));
        globals.insert(format!("{side}OS"), "linux".to_owned());
        globals.insert(format!("{side}ARCH"), architecture.clone());
        globals.insert(format!("{side}VARIANT"), String::new());
    }
    let mut stages: Vec<StagePlan> = Vec::new();
    for (at, step) in dockerfile.steps.iter().enumerate() {
        let expand = |text: &str, globals: &BTreeMap<String, String>| {
            expand(text, dockerfile.escape, &|name| globals.get(name).cloned()).map_err(|e| failed(step, e))
        };
        match &step.instruction {
            Instruction::Arg(args) if stages.is_empty() => {
                for (name, default) in args {
                    let value = match (request.args.get(name), default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => expand(default, &globals)?,
                        (None, None) => continue,
                    };
                    globals.insert(name.clone(), value);
                }
            }
            Instruction::From { image, name, .. } => stages.push(StagePlan {
                name: name.as_deref(),
                base: expand(image, &globals)?,
                steps: &dockerfile.steps[at..=at],
            }),
            _ => {
                if let Some(stage) = stages.last_mut() {
                    let first = at - stage.steps.len();
                    stage.steps = &dockerfile.steps[first..=at];
                }
            }
        }
    }
    Ok((globals, stages))
}

fn failed(step: &Step, e: impl Into<StepError>) -> BuildError {
    BuildError::Step { line: step.line, text: step.text.clone(), source: Box::new(e.into()) }
}

/// The stage that `name` means, by its name or its number.
fn stage_called(stages: &[StagePlan], name: &str) -> Option<usize> {
    let named = stages.iter().rposition(|stage| stage.name.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    named.or_else(|| name.parse().ok().filter(|at| *at < stages.len()))
}

fn target(stages: &[StagePlan], name: Option<&str>) -> Result<usize, BuildError> {
    match name {
        Some(name) => stage_called(stages, name).ok_or_else(|| BuildError::Target(name.to_owned())),
        None => Ok(stages.len().saturating_sub(1)),
    }
}

/// The stages without which the target cannot be built.
fn needed(stages: &[StagePlan], target: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if !needed.insert(at) {
            continue;
        }
        // A number means a stage in COPY only; after FROM it would be an image.
        open.extend(
            stages[..at]
                .iter()
                .rposition(|s| s.name.is_some_and(|n| n.eq_ignore_ascii_case(&stages[at].base))),
        );
        open.extend(stages[at].steps.iter().filter_map(|step| match &step.instruction {
            Instruction::Copy(copy) => stage_called(&stages[..at], copy.from.as_deref()?),
            _ => None,
        }));
    }
    needed
}

impl<E: RunExecutor> Builder<'_, E> {
    async fn stage(&mut self, earlier: &[StagePlan<'_>], plan: &StagePlan<'_>) -> Result<Stage, BuildError> {
        let mut stage = None;
        for step in plan.steps {
            self.number += 1;
            (self.progress)(BuildEvent::Step {
                number: self.number,
                total: self.total,
                stage: plan.name,
                text: &step.text,
            });
            let result = match &mut stage {
                None => self.base(earlier, plan, step).await.map(|base| stage = Some(base)),
                Some(stage) => self.step(earlier, stage, step).await,
            };
            result.map_err(|e| failed(step, e))?;
        }
        stage.ok_or_else(|| BuildError::Target(plan.base.clone()))
    }

    async fn base(
        &self,
        earlier: &[StagePlan<'_>],
        plan: &StagePlan<'_>,
        step: &Step,
    ) -> Result<Stage, StepError> {
        if let Instruction::From { platform: Some(_), .. } = &step.instruction {
            (self.progress)(BuildEvent::Note("--platform is ignored: images are built for this machine"));
        }
        if plan.base == "scratch" {
            return Ok(Stage::scratch(self.escape));
        }
        let named = earlier.iter().rposition(|s| s.name.is_some_and(|n| n.eq_ignore_ascii_case(&plan.base)));
        if let Some(stage) = named.and_then(|at| self.done.get(&at)) {
            return Ok(stage.continued());
        }
        Stage::from_image(self.store, &self.image(&plan.base).await?, self.escape)
    }

    /// An image that is here, or comes from its registry.
    async fn image(&self, name: &str) -> Result<Image, StepError> {
        if let Some(image) = self.store.resolve(name) {
            return Ok(image);
        }
        let reference: Reference = name.parse()?;
        (self.progress)(BuildEvent::Pull(&reference));
        let pulled = self.store.pull(&reference, self.request.auth.clone(), self.request.pull.clone()).await;
        Ok(pulled.map_err(Box::new)?)
    }

    async fn step(&self, earlier: &[StagePlan<'_>], stage: &mut Stage, step: &Step) -> Result<(), StepError> {
        match &step.instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let given = self.request.args.get(name).or_else(|| {
                        // Without a default of its own it is the one from before the first FROM.
                        default.is_none().then(|| self.globals.get(name)).flatten()
                    });
                    let value = match (given, default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => stage.expand(default)?,
                        (None, None) => continue,
                    };
                    stage.args.insert(name.clone(), value);
                }
                stage.record(&step.text, None)
            }
            Instruction::Run(command) => self.run(stage, step, command).await,
            Instruction::Workdir(path) => {
                let path = stage.expand(path)?;
                let path = stage.settings.absolute(&path);
                stage.settings.working_dir = match path.trim_end_matches('/') {
                    "" => "/".to_owned(),
                    path => path.to_owned(),
                };
                let mut key = self.key(stage, "WORKDIR");
                key.field(stage.settings.working_dir.as_bytes());
                let directory = stage.settings.working_dir.clone();
                self.layer(stage, step, key, move |root| make_directory(root, &directory)).await
            }
            Instruction::Copy(transfer) => {
                let origin = self.origin(earlier, stage, transfer.from.as_deref()).await?;
                let plan = Plan::new(stage, transfer, origin, false)?;
                self.transfer(stage, step, plan).await
            }
            Instruction::Add(transfer) => {
                let plan = Plan::new(stage, transfer, self.context(), true)?;
                self.transfer(stage, step, plan).await
            }
            Instruction::Ignored(note) => {
                (self.progress)(BuildEvent::Note(note));
                Ok(())
            }
            other => {
                stage.configure(other)?;
                stage.record(&step.text, None)
            }
        }
    }

    fn context(&self) -> Origin {
        Origin::Context { dir: self.request.context.clone(), ignore: self.ignore.clone() }
    }

    async fn origin(
        &self,
        earlier: &[StagePlan<'_>],
        stage: &Stage,
        from: Option<&str>,
    ) -> Result<Origin, StepError> {
        let Some(from) = from else { return Ok(self.context()) };
        if let Some(source) = stage_called(earlier, from).and_then(|at| self.done.get(&at)) {
            return Ok(Origin::Layers(source.layers.clone()));
        }
        let from = stage.expand(from)?;
        if let Some(source) = stage_called(earlier, &from).and_then(|at| self.done.get(&at)) {
            return Ok(Origin::Layers(source.layers.clone()));
        }
        match self.image(&from).await {
            Ok(image) => Ok(Origin::Layers(image.layers.to_vec())),
            Err(StepError::Reference(_)) => Err(StepError::Source(from)),
            Err(e) => Err(e),
        }
    }

    fn key(&self, stage: &Stage, instruction: &str) -> Hasher {
        let mut key = Hasher::default();
        key.field(b"1");
        key.field(stage.chain().as_bytes());
        key.field(instruction.as_bytes());
        key
    }

    async fn transfer(&self, stage: &mut Stage, step: &Step, plan: Plan) -> Result<(), StepError> {
        let (store, mut key) = (self.store.clone(), self.key(stage, "COPY"));
        let (plan, key) = blocking(move || {
            let found = plan.find(&store)?;
            found.hash(&mut key)?;
            Ok::<_, StepError>((found, key))
        })
        .await?;
        self.layer(stage, step, key, move |root| copy_step(root, &plan)).await
    }

    /// Takes the layer of this key from the cache, or makes it by `change`.
    async fn layer(
        &self,
        stage: &mut Stage,
        step: &Step,
        key: Hasher,
        change: impl FnOnce(&std::os::fd::OwnedFd) -> Result<(), StepError> + Send + 'static,
    ) -> Result<(), StepError> {
        let key = key.finish();
        if let Some(blob) = self.cached(&key) {
            return stage.record(&step.text, blob);
        }
        let (store, layers) = (self.store.clone(), stage.layers.clone());
        let blob = blocking(move || {
            let workspace = Workspace::new(&store, &layers)?;
            let root = workspace.root()?;
            change(&root)?;
            drop(root);
            let blob = workspace.finish()?;
            Cache::remember(&store, key, blob)?;
            Ok::<_, StepError>(blob)
        })
        .await?;
        stage.record(&step.text, blob)
    }

    fn cached(&self, key: &crate::Digest) -> Option<Option<super::cache::Blob>> {
        let found = Cache::find(self.store, key).filter(|_| !self.request.no_cache);
        if found.is_some() {
            (self.progress)(BuildEvent::Cached);
        }
        found
    }

    async fn run(&self, stage: &mut Stage, step: &Step, command: &Command) -> Result<(), StepError> {
        let settings = &stage.settings;
        let mut env: BTreeMap<String, String> = stage.args.clone();
        for name in PROXY_ARGS {
            if let Some(value) = self.request.args.get(name) {
                env.insert(name.to_owned(), value.clone());
            }
        }
        env.extend(settings.env.iter().cloned());
        env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        let cwd = if settings.working_dir.is_empty() { "/".into() } else { settings.working_dir.clone() };
        let argv = command.argv(&stage.shell);

        let mut key = self.key(stage, "RUN");
        for word in &argv {
            key.field(word.as_bytes());
        }
        for (name, value) in env.iter().filter(|(name, _)| !PROXY_ARGS.contains(&name.as_str())) {
            key.field(format!("{name}={value}").as_bytes());
        }
        key.field(cwd.as_bytes());
        key.field(settings.user.as_bytes());
        let key = key.finish();
        if let Some(blob) = self.cached(&key) {
            return stage.record(&step.text, blob);
        }
        let (store, layers) = (self.store.clone(), stage.layers.clone());
        let workspace = blocking(move || Workspace::new(&store, &layers)).await?;
        let request = RunRequest {
            rootfs: workspace.rootfs(),
            argv,
            env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
            cwd,
            user: settings.user.clone(),
        };
        let progress = self.progress;
        let output = move |stream, bytes: &[u8]| progress(BuildEvent::Output(stream, bytes));
        match self.executor.run(request, &output).await.map_err(StepError::Run)? {
            0 => {}
            code => return Err(StepError::Exit(code)),
        }
        let store = self.store.clone();
        let blob = blocking(move || {
            let blob = workspace.finish()?;
            Cache::remember(&store, key, blob)?;
            Ok::<_, StepError>(blob)
        })
        .await?;
        stage.record(&step.text, blob)
    }
}
