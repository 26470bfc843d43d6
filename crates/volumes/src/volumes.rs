//! All volumes of a node's pods.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Drain, Ids, RandomIds};
use client::{Informers, Key, Recorder};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use parking_lot::Mutex;

use crate::certificates::Certificates;
use crate::content::{Filling, fill};
use crate::downward::Allocatable;
use crate::error::{Fault, VolumeError};
use crate::mounts::{is_plain, tmpfs, unmount_below};
use crate::objects::Objects;
use crate::ownership::fs_group;
use crate::patience::Looks;
use crate::persistent::{Parts, Persistent};
use crate::tokens::Tokens;
use crate::{atomic, empty_dir, host_path, sub_path};

/// Where a volume is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// It is written by nobody but us.
    pub read_only: bool,
}

/// The volumes of a pod by name.
pub type Places = BTreeMap<String, Place>;

/// What [`Volumes`] needs.
pub struct Options {
    /// With the node's identity.
    pub client: Client,
    /// Each pod has a folder below it, called by its UID.
    pub pods: PathBuf,
    /// The data of the built-in storage is below it.
    pub data: PathBuf,
    /// The node's name.
    pub node: String,
    /// Tells people.
    pub recorder: Recorder,
    /// What the node has.
    pub allocatable: Allocatable,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Watches end with it.
    pub drain: Drain,
    /// Called with the key of a pod whose volumes are to be set up again.
    pub wake: Arc<dyn Fn(&Key) + Send + Sync>,
}

/// A pod's volumes, ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// Where they are.
    pub places: Places,
    /// After so long they want to be set up again, whatever happens.
    pub again: Option<Duration>,
}

/// Sets volumes up, keeps them up to date, and takes them away. Clones share everything.
#[derive(Clone)]
pub struct Volumes(Arc<Shared>);

pub(crate) struct Shared {
    pods: PathBuf,
    pub(crate) allocatable: Allocatable,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) objects: Objects,
    pub(crate) tokens: Tokens,
    pub(crate) certificates: Certificates,
    persistent: Persistent,
    looks: Looks,
    /// What was written last, by pod UID and volume, so that nothing is read back in vain.
    written: Mutex<HashMap<(String, String), u64>>,
}

/// What the files of one pod's volumes are made from.
pub(crate) struct Pot<'a> {
    pub(crate) volumes: &'a Shared,
    pub(crate) pod: &'a Pod,
    pub(crate) key: Key,
    pub(crate) uid: &'a str,
}

impl Volumes {
    /// Nothing is set up or watched yet.
    pub fn new(options: Options) -> Self {
        let certificates =
            Certificates::new(options.client.clone(), options.node.clone(), options.recorder.clone());
        let persistent = Persistent::new(Parts {
            client: options.client.clone(),
            node: options.node,
            recorder: options.recorder,
            clock: options.clock.clone(),
            data: options.data,
            pods: options.pods.clone(),
        });
        Self(Arc::new(Shared {
            persistent,
            pods: options.pods,
            allocatable: options.allocatable,
            clock: options.clock,
            objects: Objects::new(options.client.clone(), options.drain, options.wake),
            tokens: Tokens::new(options.client),
            certificates,
            looks: Looks::default(),
            written: Mutex::default(),
        }))
    }

    /// Begins to look after the data of the built-in storage on this node, until `drain` starts.
    pub fn follow(&self, informers: &Informers, drain: &Drain) {
        self.0.persistent.follow(informers, drain);
    }

    /// Makes all volumes of a pod as they should be now. To be called again when `wake` says so, when the pod's
    /// metadata changes, and after [`SetUp::again`]; what is right already is left alone.
    ///
    /// # Errors
    /// At the first volume that cannot be had.
    pub async fn set_up(&self, pod: &Pod) -> Result<SetUp, VolumeError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let pot = Pot { volumes: &self.0, pod, key: Key::of(pod), uid };
        let mut done = SetUp::default();
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            if volume.image.is_some() {
                // The runtime mounts an image's files itself.
                continue;
            }
            let failed = |why| VolumeError::SetUp { volume: volume.name.clone(), why };
            if !is_plain(&volume.name) || !is_plain(uid) {
                return Err(failed(Fault::Path(volume.name.clone())));
            }
            let (place, again) = match self.0.persistent.set_up(pod, volume).await? {
                Some(place) => (place, None),
                None => self.set_up_one(&pot, volume).await.map_err(failed)?,
            };
            done.places.insert(volume.name.clone(), place);
            done.again = [done.again, again].into_iter().flatten().min();
        }
        Ok(done)
    }

    async fn set_up_one(
        &self,
        pot: &Pot<'_>,
        volume: &core::Volume,
    ) -> Result<(Place, Option<Duration>), Fault> {
        if let Some(host) = &volume.host_path {
            let (asked, source) = (PathBuf::from(&host.path), host.clone());
            let path = self.0.looks.look(&asked, move || host_path::set_up(&source)).await?;
            return Ok((Place { path, read_only: false }, None));
        }
        let folder = self.folder(pot.uid).join("volumes").join(&volume.name);
        if let Some(source) = &volume.empty_dir {
            let (pod, source, path) = (pot.pod.clone(), source.clone(), folder.clone());
            let most = u64::try_from(self.0.allocatable.memory).unwrap_or(0);
            blocking(move || empty_dir::set_up(&pod, &source, &path, most)).await?;
            return Ok((Place { path: folder, read_only: false }, None));
        }
        let Some(filling) = fill(pot, volume).await? else {
            return Err(Fault::Kind(kind_of(volume)));
        };
        let again = filling.again;
        // What is secret never reaches the disk.
        let in_memory = volume.secret.is_some() || volume.projected.is_some();
        self.write(pot, &volume.name, &folder, filling, in_memory).await?;
        Ok((Place { path: folder, read_only: true }, again))
    }

    async fn write(
        &self,
        pot: &Pot<'_>,
        name: &str,
        folder: &Path,
        filling: Filling,
        in_memory: bool,
    ) -> Result<(), Fault> {
        let group = fs_group(pot.pod);
        let mut hasher = DefaultHasher::new();
        (&filling.files, group).hash(&mut hasher);
        let (hash, id) = (hasher.finish(), (pot.uid.to_owned(), name.to_owned()));
        if self.0.written.lock().get(&id) == Some(&hash) {
            return Ok(());
        }
        let folder = folder.to_owned();
        let now: String = self
            .0
            .clock
            .now()
            .to_string()
            .chars()
            .take(19)
            .map(|c| if c.is_ascii_digit() { c } else { '_' })
            .collect();
        let version = format!("{now}.{:08x}", RandomIds.bits() as u32);
        blocking(move || {
            std::fs::create_dir_all(&folder).map_err(Fault::file("make directory", &folder))?;
            if in_memory {
                tmpfs(&folder, None, "0755")?;
            }
            atomic::write(&folder, &filling.files, &version, group)
        })
        .await?;
        self.0.written.lock().insert(id, hash);
        Ok(())
    }

    /// A part of a volume, for the `index`th mount of a container.
    ///
    /// # Errors
    /// When it leads out of the volume, or cannot be made.
    pub async fn sub_path(
        &self,
        uid: &str,
        place: &Place,
        mount: &core::VolumeMount,
        sub: &str,
        container: &str,
        index: usize,
    ) -> Result<PathBuf, VolumeError> {
        let failed =
            |why| VolumeError::SubPath { volume: mount.name.clone(), container: container.to_owned(), why };
        let target = sub_path::target(&self.folder(uid), &mount.name, container, index).map_err(failed)?;
        let (path, place, sub) = (place.path.join(sub), place.clone(), sub.to_owned());
        let bind = move || sub_path::bind(&place.path, &sub, target, !place.read_only);
        self.0.looks.look(&path, bind).await.map_err(failed)
    }

    /// Takes away all that was mounted for a pod and forgets it. Its folder can be deleted then.
    ///
    /// # Errors
    /// When something stays mounted. The folder must not be deleted then.
    pub async fn tear_down(&self, uid: &str) -> Result<(), VolumeError> {
        self.0.objects.release(uid);
        self.0.tokens.release(uid);
        self.0.certificates.release(uid);
        self.0.written.lock().retain(|(pod, _), _| pod != uid);
        let folder = self.folder(uid);
        let failed = |why| VolumeError::TearDown { folder: folder.display().to_string(), why };
        let below = folder.clone();
        let done = async {
            blocking(move || unmount_below(&below)).await?;
            self.0.persistent.tear_down(uid).await
        };
        done.await.map_err(failed)
    }

    fn folder(&self, uid: &str) -> PathBuf {
        self.0.pods.join(uid)
    }
}

/// What a volume calls its source.
fn kind_of(volume: &core::Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut kinds = value.as_object().into_iter().flat_map(|o| o.keys());
    kinds.find(|key| *key != "name").cloned().unwrap_or_else(|| "unknown".into())
}

/// Runs what waits for the kernel or a disk away from the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
