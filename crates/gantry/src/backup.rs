//! `gantry backup`, `restore`, `migrate` and `secrets-encrypt`: the cluster's state as a whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use sealing::{Audit, Sealer};
use store::{Backup, Options, Store};

use crate::config::ServerArgs;
use crate::datastore::{DatastoreArgs, DatastoreError};
use crate::{admin, daemon};

/// A state that cannot be saved or moved; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum BackupCommandError {
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error("cannot {attempt} {path}: {source}")]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Backup { path: PathBuf, source: store::BackupError },
    #[error("{0} is there already; choose another file or overwrite it with --force")]
    Exists(PathBuf),
    #[error("{place} holds {count} objects already; replace them with --force")]
    NotEmpty { place: String, count: usize },
    #[error("{place}: {source}")]
    Place { place: String, source: store::BackupError },
    #[error("the server (process {0}) is running; stop it first")]
    Running(i32),
    #[error("the server does not give a backup: {0}")]
    Server(String),
    #[error("set --encryption-provider-config; without it nothing is encrypted")]
    NoSealer,
    #[error(
        "a cluster can be moved between its data directory and etcd; set --datastore-endpoint to the etcd it is in, or --to to the one it shall go to"
    )]
    NoMove,
    #[error("cannot start the runtime's threads: {0}")]
    Threads(std::io::Error),
}

/// Settings of `backup` and `restore`.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
}

/// Settings of `migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where to: the URLs of an etcd, or "embedded" for the data directory
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub to: Vec<String>,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
}

/// What to do about encryption at rest.
#[derive(Clone, Debug, Subcommand)]
pub enum SecretsCommand {
    /// Encrypt all objects anew, each as the configuration says today
    Rewrite(Box<ServerArgs>),
    /// Tell which keys stored objects are encrypted with
    Status(Box<ServerArgs>),
}

type Outcome = Result<(), BackupCommandError>;

fn block_on<F: Future<Output = Outcome>>(work: F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(BackupCommandError::Threads)?.block_on(work)
}

fn options(args: &DatastoreArgs) -> Result<Options, BackupCommandError> {
    Ok(args.options()?)
}

/// Writes the cluster's state to a file.
pub fn backup(args: &FileArgs) -> Outcome {
    let path = &args.file;
    if path.exists() && !args.force {
        return Err(BackupCommandError::Exists(path.clone()));
    }
    block_on(async {
        let server = &args.server;
        let options = options(&server.datastore)?;
        let running = daemon::running(server).is_some() && server.datastore.datastore_endpoint.is_empty();
        let bytes = if running { from_server(server).await? } else { from_store(server, &options).await? };
        // What came over the wire is looked at before it is called a backup.
        let read = Backup::read(&bytes, options.seal.as_deref());
        let backup = read.map_err(|source| BackupCommandError::Backup { path: path.clone(), source })?;
        write_whole(path, &bytes)?;
        println!(
            "Wrote {} objects at revision {} to {}.",
            backup.records.len(),
            backup.revision,
            path.display()
        );
        Ok(())
    })
}

async fn from_store(args: &ServerArgs, options: &Options) -> Result<Vec<u8>, BackupCommandError> {
    let store = args.datastore.open(&args.data_dir, options.clone()).await?;
    let mut bytes = Vec::new();
    let written = store.backup(&mut bytes);
    store.close().await;
    written.map_err(|source| BackupCommandError::Place { place: place_name(args), source })?;
    Ok(bytes)
}

async fn from_server(args: &ServerArgs) -> Result<Vec<u8>, BackupCommandError> {
    let refused = |why: String| BackupCommandError::Server(why);
    let client = admin::client(args)?;
    let request = http::Request::get("/gantry/backup").body(client::kube::client::Body::empty());
    let response = client.send(request.map_err(|e| refused(e.to_string()))?).await;
    let response = response.map_err(|e| refused(e.to_string()))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| refused(e.to_string()))?.to_bytes();
    if !status.is_success() {
        return Err(refused(String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(body.into())
}

/// Makes the file appear whole or not at all, for its owner's eyes only.
fn write_whole(path: &Path, bytes: &[u8]) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |attempt| move |source| BackupCommandError::File { attempt, path: path.to_owned(), source };
    let draft = path.with_extension("partial");
    let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let mut file = file.map_err(failed("create"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    std::fs::rename(&draft, path).map_err(failed("write"))
}

fn place_name(args: &ServerArgs) -> String {
    match args.datastore.datastore_endpoint.as_slice() {
        [] => args.data_dir.join("store").display().to_string(),
        [first, ..] => first.to_string(),
    }
}

/// Puts the state that a file holds into the data directory or etcd.
pub fn restore(args: &FileArgs) -> Outcome {
    let path = &args.file;
    let bytes = std::fs::read(path).map_err(|source| BackupCommandError::File {
        attempt: "read",
        path: path.clone(),
        source,
    })?;
    let options = options(&args.server.datastore)?;
    let backup = Backup::read(&bytes, options.seal.as_deref())
        .map_err(|source| BackupCommandError::Backup { path: path.clone(), source })?;
    block_on(async {
        put(&args.server, &backup, &options, args.force).await?;
        println!("Restored {} objects of revision {}.", backup.records.len(), backup.revision);
        Ok(())
    })
}

async fn put(args: &ServerArgs, backup: &Backup, options: &Options, force: bool) -> Outcome {
    if let Some(running) = daemon::running(args) {
        return Err(BackupCommandError::Running(running.pid));
    }
    let fault = |source| match source {
        store::BackupError::NotEmpty(count) => {
            BackupCommandError::NotEmpty { place: place_name(args), count }
        }
        source => BackupCommandError::Place { place: place_name(args), source },
    };
    if args.datastore.datastore_endpoint.is_empty() {
        let _ = std::fs::create_dir_all(&args.data_dir);
        return backup.place(&args.data_dir.join("store"), options, force).map_err(fault);
    }
    let store = args.datastore.open(&args.data_dir, options.clone()).await?;
    let work = async {
        if force {
            store.clear().await?;
        }
        store.import(backup).await
    };
    let done = work.await;
    store.close().await;
    done.map_err(fault)
}

/// Moves the state between the data directory and etcd. What is left behind stays as it is.
pub fn migrate(args: &MigrateArgs) -> Outcome {
    let server = &args.server;
    let mut target = server.clone();
    let embedded = args.to == ["embedded"];
    let parsed = args.to.iter().map(|url| url.parse()).collect::<Result<Vec<_>, _>>();
    match (embedded, server.datastore.datastore_endpoint.is_empty(), parsed) {
        (true, false, _) => target.datastore.datastore_endpoint = Vec::new(),
        (false, true, Ok(endpoints)) if !endpoints.is_empty() => {
            target.datastore.datastore_endpoint = endpoints
        }
        _ => return Err(BackupCommandError::NoMove),
    }
    if let Some(running) = daemon::running(server) {
        return Err(BackupCommandError::Running(running.pid));
    }
    let options = options(&server.datastore)?;
    block_on(async {
        let source = server.datastore.open(&server.data_dir, options.clone()).await?;
        let backup = source.export();
        source.close().await;
        drop(source);
        put(&target, &backup, &options, args.force).await?;
        println!("Moved {} objects to {}.", backup.records.len(), place_name(&target));
        Ok(())
    })
}

/// Does what the command says about encryption at rest.
pub fn secrets(command: &SecretsCommand) -> Outcome {
    let (SecretsCommand::Rewrite(args) | SecretsCommand::Status(args)) = command;
    let path = args.datastore.encryption_provider_config.as_ref().ok_or(BackupCommandError::NoSealer)?;
    let sealer = Sealer::open(path).map_err(DatastoreError::from)?;
    let audit = Audit::new(sealer.clone());
    let options = Options { seal: Some(audit.clone()), ..Options::default() };
    let fault = |source| BackupCommandError::Place { place: place_name(args), source };
    block_on(async {
        let store = args.datastore.open(&args.data_dir, options).await?;
        let tables: Vec<_> = store.tables().into_iter().filter(|table| sealer.names(table)).collect();
        let done = match command {
            SecretsCommand::Status(_) => {
                report(&store, &sealer, &audit.seen());
                Ok(())
            }
            SecretsCommand::Rewrite(_) => async {
                for table in &tables {
                    let count = store.rewrite(table).await?;
                    println!("{table}: {count} rewritten");
                }
                // The old states go, too.
                store.compact(store.revision()).await.map_err(store::BackupError::from)
            }
            .await
            .map_err(fault),
        };
        store.close().await;
        done
    })
}

fn report(store: &Store, sealer: &Sealer, seen: &BTreeMap<(String, String), usize>) {
    for table in store.tables().iter().filter(|table| sealer.names(table)) {
        let now = sealer.prefix(table).unwrap_or_else(|| "not encrypted".to_owned());
        println!("{table}: {} objects; new ones: {now}", store.snapshot(table).records.len());
        for ((_, prefix), count) in seen.iter().filter(|((name, _), _)| **name == **table) {
            println!("  {count} stored states begin with {prefix}");
        }
    }
}
