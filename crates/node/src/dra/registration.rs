//! Plugins make themselves known by a socket in a folder (kubernetes/kubernetes,
//! `pkg/kubelet/pluginmanager/pluginwatcher`, `pkg/kubelet/pluginmanager/operationexecutor`).

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use grpc::{Channel, Target};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use parking_lot::Mutex;
use sys::WatchedFd;
use tokio::task::AbortHandle;

use super::Dra;
use super::messages::{PluginInfo, registration_status};
use super::plugin::Plugin;

/// The sort of plugin that this is about.
const KIND: &str = "DRAPlugin";
/// How long a plugin may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to hear that.
const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(30);

/// The driver and the endpoint of a plugin, once it has registered.
type Known = Arc<Mutex<Option<(String, PathBuf)>>>;

/// Inode and time of change: inodes are used again.
type FileId = (u64, i64, i64);

struct Socket {
    /// Another file of the same name is another plugin.
    file: FileId,
    task: AbortHandle,
    known: Known,
}

/// Follows the folder for as long as it is polled.
pub(super) async fn follow(dra: &Dra) {
    let folder = dra.0.registry.clone();
    let mut sockets = HashMap::new();
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        let Err(error) = watch(dra, &folder, &mut sockets).await;
        tracing::warn!(folder = %folder.display(), %error, "cannot watch for plugins; will try again");
        tokio::time::sleep(backoff.fail()).await;
    }
}

async fn watch(
    dra: &Dra,
    folder: &Path,
    sockets: &mut HashMap<PathBuf, Socket>,
) -> io::Result<std::convert::Infallible> {
    std::fs::create_dir_all(folder)?;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
    inotify.add_watch(folder, flags)?;
    let changes = WatchedFd::new(OwnedFd::from(inotify))?;
    loop {
        scan(dra, folder, sockets)?;
        let mut events = [0; 4096];
        poll_fn(|cx| changes.poll_read(cx, &mut events)).await?;
    }
}

/// Compares what is there with what is known.
fn scan(dra: &Dra, folder: &Path, sockets: &mut HashMap<PathBuf, Socket>) -> io::Result<()> {
    let mut there = HashMap::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        // It may be gone by now.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if meta.file_type().is_socket() && !hidden {
            there.insert(path, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    sockets.retain(|path, socket| {
        let stays = there.get(path) == Some(&socket.file);
        if !stays {
            socket.task.abort();
            if let Some((driver, endpoint)) = socket.known.lock().take() {
                tracing::info!(driver, "DRA plugin is gone");
                dra.0.plugins.remove(&driver, &endpoint);
            }
        }
        stays
    });
    for (path, file) in there {
        if sockets.contains_key(&path) {
            continue;
        }
        let known = Known::default();
        let (dra_, path_, known_) = (dra.clone(), path.clone(), known.clone());
        let task = dra.0.drain.spawn_until_started(async move { register(&dra_, &path_, &known_).await });
        sockets.insert(path, Socket { file, task: task.abort_handle(), known });
    }
    Ok(())
}

/// Asks until the plugin has said who it is, and tells it what came of that.
async fn register(dra: &Dra, socket: &Path, known: &Known) {
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        match greet(dra, socket, known).await {
            Ok(()) => return,
            Err(why) => {
                tracing::debug!(socket = %socket.display(), why, "cannot register a plugin; will try again")
            }
        }
        tokio::time::sleep(backoff.fail()).await;
    }
}

async fn greet(dra: &Dra, socket: &Path, known: &Known) -> Result<(), String> {
    let channel = Channel::new(Target::Unix(socket.to_owned()));
    let info = channel.unary("/pluginregistration.Registration/GetInfo", &[], PATIENCE).await;
    let info = PluginInfo::read(&info.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let outcome = admit(&info, socket).and_then(|plugin| {
        let endpoint = plugin.endpoint.clone();
        dra.0.plugins.add(plugin)?;
        *known.lock() = Some((info.name.clone(), endpoint));
        Ok(())
    });
    let told = registration_status(outcome.as_ref().copied().map_err(String::as_str));
    let path = "/pluginregistration.Registration/NotifyRegistrationStatus";
    // A plugin that does not listen is registered all the same, as upstream has it.
    if let Err(error) = channel.unary(path, &told, PATIENCE).await {
        tracing::debug!(socket = %socket.display(), %error, "cannot tell a plugin that it is registered");
    }
    if outcome.is_ok() {
        tracing::info!(driver = info.name, "DRA plugin registered");
    }
    outcome
}

/// Whether a plugin is one that can be used.
fn admit(info: &PluginInfo, socket: &Path) -> Result<Plugin, String> {
    let PluginInfo { kind, name, endpoint, versions } = info;
    if kind != KIND {
        let socket = socket.display();
        return Err(format!("no handler registered for plugin type: {kind} at socket {socket}"));
    }
    if name.is_empty() || types::dns_subdomain(name).is_some() {
        return Err(format!("DRA plugin name {name:?} is invalid"));
    }
    let endpoint = if endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(endpoint) };
    let at = endpoint.display().to_string();
    Plugin::new(name, endpoint, versions).ok_or_else(|| {
        format!(
            "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {at}: none of the provided gRPC services {versions:?} is supported"
        )
    })
}
