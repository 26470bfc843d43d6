//! Keeping up with manifests as they come, change and go.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use base::Drain;
use client::{EventKind, Key};
use k8s_openapi::api::core::v1::ObjectReference;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sys::WatchedFd;

use super::folder::Folder;
use super::manifest::{Origin, entry};
use super::url::Asker;
use super::{Entry, Manifests, Source};
use crate::worker::Agent;

/// The word of people about what is wrong with a manifest.
const REASON: &str = "InvalidStaticPod";

/// Begins to follow the manifests that the node's settings name, until `drain` starts. The folder has been looked at when
/// this returns.
pub(crate) fn follow(agent: &Arc<Agent>, drain: &Drain) {
    let manifests = agent.config.manifests.clone();
    match manifests.as_ref().and_then(|manifests| Some((manifests, manifests.path.as_ref()?))) {
        Some((manifests, path)) => {
            drain.spawn_until_started(follow_folder(agent.clone(), manifests, path));
        }
        // What it wanted when it was last named is not wanted any more.
        None => agent.take_manifests(Source::File, Vec::new()),
    }
    match manifests.and_then(|manifests| manifests.url.clone().map(|url| (manifests, url))) {
        Some((manifests, url)) => drop(drain.spawn_until_started(follow_url(agent.clone(), manifests, url))),
        None => agent.take_manifests(Source::Url, Vec::new()),
    }
}

/// Follows the folder for as long as it is polled. The first look is over when this returns the future.
fn follow_folder(
    agent: Arc<Agent>,
    manifests: &Manifests,
    path: &Path,
) -> impl Future<Output = ()> + Send + use<> {
    let (mut folder, path) = (Folder::new(path.to_owned()), path.to_owned());
    let (rules, frequency) = (manifests.rules.clone(), manifests.file_check_frequency);
    let look = move |agent: &Agent, folder: &mut Folder| {
        let make = |text: &str, path: &Path| {
            let wrong = |why| format!("couldn't parse as pod({why}), please check config file");
            let mut pods = rules.read(text).map_err(wrong)?;
            let (Some(pod), true) = (pods.pop(), pods.is_empty()) else {
                return Err(wrong("a manifest file holds one pod".to_owned()));
            };
            let place = path.display().to_string();
            let origin = Origin {
                node: &agent.config.name,
                source: Source::File,
                place: &place,
                now: agent.clock.now(),
            };
            entry(pod, origin, &*rules)
        };
        match folder.look(make) {
            Ok((entries, faults)) => {
                for fault in faults {
                    let path = fault.path.display();
                    tracing::error!(%path, error = fault.why, "Could not process manifest file");
                    agent.say_of_node(format!("Could not process manifest file {path}: {}", fault.why));
                }
                agent.take_manifests(Source::File, entries);
            }
            Err(error) => tracing::error!(%error, "Unable to read config path"),
        }
    };
    // The watch comes first, so that nothing between it and the look is missed.
    let mut changes = Changes::of(&path);
    look(&agent, &mut folder);
    async move {
        loop {
            let news = async {
                match &changes {
                    Ok(changes) => changes.next().await,
                    // Nobody tells: it is not there, most likely.
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep(frequency) => {}
            }
            // Anew each time: the folder may be another one by now.
            changes = Changes::of(&path);
            look(&agent, &mut folder);
        }
    }
}

/// Asks for manifests for as long as it is polled.
async fn follow_url(agent: Arc<Agent>, manifests: Manifests, url: String) {
    let asker = match Asker::new(&url, manifests.url_headers) {
        Ok(asker) => asker,
        Err(error) => {
            tracing::error!(error, "manifests cannot be asked for");
            return;
        }
    };
    let mut last: Option<String> = None;
    let mut failures = 0_u32;
    loop {
        match asker.ask().await {
            Ok(text) => {
                failures = 0;
                if last.as_ref() != Some(&text) {
                    match read(&agent, &manifests.rules, &text, &url) {
                        Ok(entries) => agent.take_manifests(Source::Url, entries),
                        Err(error) => {
                            tracing::error!(url, error, "Could not process manifests");
                            agent.say_of_node(format!("Could not process manifests from {url}: {error}"));
                        }
                    }
                    last = Some(text);
                }
            }
            Err(error) => {
                failures += 1;
                // The first few are enough to get the point across.
                if failures <= 3 {
                    tracing::warn!(url, error, "Failed to read pods from URL");
                }
            }
        }
        tokio::time::sleep(manifests.http_check_frequency).await;
    }
}

fn read(
    agent: &Agent,
    rules: &Arc<dyn super::PodRules>,
    text: &str,
    url: &str,
) -> Result<Vec<Entry>, String> {
    let origin = Origin { node: &agent.config.name, source: Source::Url, place: url, now: agent.clock.now() };
    rules.read(text)?.into_iter().map(|pod| entry(pod, origin, &**rules)).collect()
}

impl Agent {
    fn take_manifests(&self, source: Source, entries: Vec<Entry>) {
        let changed = self.pods.want(source, entries, self.clock.now());
        self.wake_own(changed);
    }

    /// Has the node's own pods looked at; whoever is busy with one hears of it.
    fn wake_own(&self, keys: Vec<Key>) {
        if !keys.is_empty() {
            self.endings.send_modify(|count| *count += 1);
        }
        keys.into_iter().for_each(|key| self.queue.add(key));
    }

    fn say_of_node(&self, message: String) {
        let node = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.config.name.clone()),
            uid: Some(self.config.name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.say(node, EventKind::Warning, REASON, message);
    }
}

/// What happens in a folder, or to a file.
struct Changes(WatchedFd);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // Not of files that have only been made: they are empty. Links that are made are found by the slow look.
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(path, flags)?;
        Ok(Self(WatchedFd::new(OwnedFd::from(inotify))?))
    }

    async fn next(&self) {
        let mut events = [0; 4096];
        // What cannot be read is looked at.
        let _ = std::future::poll_fn(|cx| self.0.poll_read(cx, &mut events)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whole_files_are_news() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let changes = Changes::of(place.path()).unwrap();
        std::fs::write(&path, "text").unwrap();
        changes.next().await;
        let changes = Changes::of(place.path()).unwrap();
        std::fs::remove_file(&path).unwrap();
        changes.next().await;
        assert!(Changes::of(&path).is_err());
    }
}
