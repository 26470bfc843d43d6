//! `gantry image …` and `gantry build`.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base::{Clock, SystemClock};
use clap::{Args, Subcommand};
use image::build::{
    self, BuildEvent, BuildRequest, DockerfileSource, OutputSink, OutputStream, RunError, RunExecutor,
    RunRequest,
};
use image::{ArchiveFormat, Auth, ImageStore, PullOptions, Reference, Scheme};
use runtime::{OnceSpec, OutputKind, Rootfs, Runtime, RuntimeConfig, User};
use serde_json::json;

type Outcome = Result<(), Box<dyn Error>>;

/// Where images are.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where the cluster's state, images and volumes are kept
    #[arg(long, env = "GANTRY_DATA_DIR", value_name = "DIR", default_value = "/var/lib/gantry")]
    data_dir: PathBuf,
}

impl StoreArgs {
    fn open(&self) -> Result<ImageStore, Box<dyn Error>> {
        Ok(ImageStore::open(&self.data_dir)?)
    }
}

/// The `gantry image` commands.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        store: StoreArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Pull an image from a registry
    Pull {
        #[command(flatten)]
        store: StoreArgs,
        /// The image's name
        image: Reference,
        /// Use HTTP instead of HTTPS
        #[arg(long)]
        plain_http: bool,
        /// Log in as USER:PASSWORD
        #[arg(long, env = "GANTRY_REGISTRY_CREDS", value_name = "USER:PASSWORD")]
        creds: Option<String>,
    },
    /// Import a docker-archive, an OCI archive or an OCI layout directory
    #[command(alias = "load")]
    Import {
        #[command(flatten)]
        store: StoreArgs,
        /// The file or directory; - reads an archive from standard input
        path: PathBuf,
    },
    /// Export images to an archive
    #[command(alias = "save")]
    Export {
        #[command(flatten)]
        store: StoreArgs,
        /// Write an OCI layout instead of a docker-archive
        #[arg(long)]
        oci: bool,
        /// The file to write; - writes to standard output
        #[arg(short, long)]
        output: PathBuf,
        /// The images' names
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image another name
    Tag {
        #[command(flatten)]
        store: StoreArgs,
        /// The image
        source: String,
        /// The further name
        target: String,
    },
    /// Remove images by name or id
    Rm {
        #[command(flatten)]
        store: StoreArgs,
        /// The images
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove content that no image needs
    Prune {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Settings of a build.
#[derive(Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where sockets and network namespaces are kept
    #[arg(long, env = "GANTRY_RUN_DIR", value_name = "DIR", default_value = "/run/gantry")]
    run_dir: PathBuf,
    /// The parent of all cgroups that are made
    #[arg(long, env = "GANTRY_CGROUP_PARENT", value_name = "PATH", default_value = "gantry")]
    cgroup_parent: String,
    /// Name the image
    #[arg(short, long = "tag", value_name = "NAME", required = true)]
    tags: Vec<Reference>,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set a build argument
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// Add a label
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Build this stage
    #[arg(long)]
    target: Option<String>,
    /// Make every layer anew
    #[arg(long)]
    no_cache: bool,
    /// The directory that COPY and ADD read
    context: PathBuf,
}

/// Runs a `gantry image` command.
pub fn run(command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Ls { store, json } => list(&store.open()?, json),
        ImageCommand::Pull { store, image, plain_http, creds } => {
            pull(&store.open()?, &image, plain_http, creds)
        }
        ImageCommand::Import { store, path } => {
            let store = store.open()?;
            let images = if path == Path::new("-") {
                store.import(std::io::stdin().lock())?
            } else {
                store.import_path(&path)?
            };
            for image in images {
                println!("Imported {}", image.names.first().cloned().unwrap_or_else(|| image.id.to_string()));
            }
            Ok(())
        }
        ImageCommand::Export { store, oci, output, images } => {
            let names: Vec<&str> = images.iter().map(String::as_str).collect();
            let format = if oci { ArchiveFormat::Oci } else { ArchiveFormat::Docker };
            let store = store.open()?;
            if output == Path::new("-") {
                store.export(&names, format, std::io::stdout().lock())?;
            } else {
                let file =
                    File::create(&output).map_err(|e| format!("cannot write {}: {e}", output.display()))?;
                store.export(&names, format, file)?;
            }
            Ok(())
        }
        ImageCommand::Tag { store, source, target } => {
            store.open()?.tag(&source, &target).map(drop).map_err(Into::into)
        }
        ImageCommand::Rm { store, images } => {
            let store = store.open()?;
            for name in images {
                store.remove(&name)?;
                println!("Removed {name}");
            }
            Ok(())
        }
        ImageCommand::Prune { store } => {
            let report = store.open()?.gc()?;
            println!("{report:?}");
            Ok(())
        }
    }
}

fn list(store: &ImageStore, as_json: bool) -> Outcome {
    let images = store.list();
    if as_json {
        let rows: Vec<_> = images
            .iter()
            .map(|i| json!({"id": i.id.to_string(), "names": i.names, "digests": i.digests, "size": i.size}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("{:<60} {:<14} SIZE", "NAME", "ID");
    for image in images {
        let id = image.id.to_string();
        let short: String = id.split(':').next_back().unwrap_or_default().chars().take(12).collect();
        let names = if image.names.is_empty() { vec!["<none>".to_owned()] } else { image.names.clone() };
        for name in names {
            println!("{name:<60} {short:<14} {:.1} MB", image.size as f64 / 1e6);
        }
    }
    Ok(())
}

fn pull(store: &ImageStore, name: &Reference, plain_http: bool, creds: Option<String>) -> Outcome {
    let auth = match creds {
        None => None,
        Some(text) => {
            let (username, password) = text.split_once(':').ok_or("--creds is USER:PASSWORD")?;
            Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() })
        }
    };
    let scheme = if plain_http { Scheme::Http } else { Scheme::Auto };
    let options = PullOptions { scheme, ..PullOptions::default() };
    let image = async_runtime()?.block_on(store.pull(name, auth, options))?;
    println!("Pulled {} ({})", name.familiar(), image.id);
    Ok(())
}

fn async_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Builds an image.
pub fn build(args: BuildArgs) -> Outcome {
    let store = args.store.open()?;
    let mut request = BuildRequest::new(&args.context, args.tags[0].clone(), SystemClock.now());
    request.tags = args.tags.clone();
    if let Some(file) = &args.file {
        let text =
            std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        request.dockerfile = DockerfileSource::Text(text);
    }
    request.args = pairs(&args.args, "--build-arg")?.into_iter().collect();
    request.labels = pairs(&args.labels, "--label")?.into_iter().collect();
    request.target = args.target.clone();
    request.no_cache = args.no_cache;
    async_runtime()?.block_on(async {
        // Apart from the cluster's containers, so that a build and a server do not mind each other.
        let config = RuntimeConfig {
            data_dir: args.store.data_dir.join("build"),
            run_dir: args.run_dir.join(format!("build-{}", std::process::id())),
            cgroup_parent: format!("{}-build-{}", args.cgroup_parent, std::process::id()),
            // A build makes no pods, and its layers may lie anywhere.
            pod_mounts: Vec::new(),
            shim: vec!["/proc/self/exe".into(), "shim".into()],
        };
        let run_dir = config.run_dir.clone();
        let executor = Steps(Runtime::open(config).await?);
        let built = build::build(&store, request, &executor, &progress).await;
        executor.0.close_down().await?;
        let _ = std::fs::remove_dir_all(run_dir);
        let image = built?;
        println!("Built {} ({})", args.tags[0].familiar(), image.id);
        Ok(())
    })
}

fn pairs(texts: &[String], flag: &str) -> Result<Vec<(String, String)>, String> {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // As with docker, a bare name takes its value from the environment.
        None => match std::env::var(text) {
            Ok(value) => Ok((text.clone(), value)),
            Err(_) => Err(format!("{flag} {text} has no value, and the environment has none either")),
        },
    };
    texts.iter().map(split).collect()
}

pub(crate) fn progress(event: BuildEvent<'_>) {
    match event {
        BuildEvent::Step { number, total, stage, text } => {
            let stage = stage.map(|s| format!(" [{s}]")).unwrap_or_default();
            println!("Step {number}/{total}{stage}: {text}");
        }
        BuildEvent::Cached => println!(" (cached)"),
        BuildEvent::Pull(reference) => println!(" pulling {}", reference.familiar()),
        BuildEvent::Note(note) => println!(" note: {note}"),
        BuildEvent::Output(stream, bytes) => {
            let _ = match stream {
                OutputStream::Stdout => std::io::stdout().write_all(bytes),
                OutputStream::Stderr => std::io::stderr().write_all(bytes),
            };
        }
    }
}

/// Runs a build's `RUN` steps in containers.
struct Steps(Runtime);

impl RunExecutor for Steps {
    async fn run(&self, request: RunRequest, output: OutputSink<'_>) -> Result<i32, RunError> {
        let spec = OnceSpec {
            rootfs: Rootfs {
                layers: request.rootfs.lower,
                upper: Some(request.rootfs.upper),
                work: Some(request.rootfs.work),
            },
            argv: request.argv,
            env: request.env,
            cwd: request.cwd,
            user: User { spec: Some(request.user).filter(|u| !u.is_empty()), ..User::default() },
            ..OnceSpec::default()
        };
        // The sink is shared, the runtime's callback is not.
        let output = Mutex::new(output);
        let result = self.0.run_once(spec, |kind, bytes| {
            let stream = match kind {
                OutputKind::Stdout => OutputStream::Stdout,
                OutputKind::Stderr => OutputStream::Stderr,
            };
            if let Ok(output) = output.lock() {
                output(stream, bytes);
            }
        });
        result.await.map_err(|e| RunError(Box::new(e)))
    }
}
