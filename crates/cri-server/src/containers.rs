//! Containers: their making, their runs, their end, and what is told of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use cri::{
    Container, ContainerConfig, ContainerEventType, ContainerState, ContainerStatus, ContainerStatusRequest,
    ContainerStatusResponse, CreateContainerRequest, CreateContainerResponse, ListContainersRequest,
    ListContainersResponse, PodSandboxState, RemoveContainerRequest, RemoveContainerResponse,
    ReopenContainerLogRequest, ReopenContainerLogResponse, StartContainerRequest, StartContainerResponse,
    StopContainerRequest, StopContainerResponse, StreamContainersRequest, UpdateContainerResourcesRequest,
    UpdateContainerResourcesResponse,
};
use image::Image;
use runtime::ContainerState as Engine;
use serde_json::json;

use crate::error::CriError;
use crate::records::{ContainerRecord, SandboxRecord, User, file};
use crate::sandboxes::hostname;
use crate::service::CriService;
use crate::{status, translate};

impl CriService {
    pub(crate) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, CriError> {
        let sandbox = self.0.records.sandbox(&request.pod_sandbox_id)?;
        if self.sandbox_state(&sandbox.id) != PodSandboxState::Ready {
            return Err(CriError::State(format!("sandbox {} is not ready", sandbox.id)));
        }
        let config = request.config.unwrap_or_default();
        if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
            return Err(CriError::Invalid("the container's config needs metadata with a name".to_owned()));
        }
        let id = self.new_id();
        let mut holds = Vec::new();
        let made = self.describe(&id, &sandbox, config, &mut holds).await;
        match made.and_then(|record| self.0.records.add_container(record)) {
            Ok(()) => {
                self.tell(&id, ContainerEventType::Created);
                Ok(CreateContainerResponse { container_id: id })
            }
            Err(error) => {
                self.let_go(&holds);
                Err(error)
            }
        }
    }

    /// Everything that a start needs, made ready. Who holds images is told in `holds`, also on failure.
    async fn describe(
        &self,
        id: &str,
        sandbox: &SandboxRecord,
        mut config: ContainerConfig,
        holds: &mut Vec<String>,
    ) -> Result<ContainerRecord, CriError> {
        let wanted = config.image.clone().unwrap_or_default();
        let image = self.image(&wanted.image)?;
        let layers = self.layers(&image, id.to_owned(), holds).await?;
        let mut mounted = Vec::new();
        for (index, mount) in config.mounts.iter_mut().enumerate() {
            match &mount.image {
                Some(spec) => {
                    let image = self.image(&spec.image)?;
                    mounted.push(self.layers(&image, format!("{id}-{index}"), holds).await?);
                }
                None => make_source(&mount.host_path)?,
            }
        }
        let spec = translate::sandbox(&sandbox.id, &sandbox.config, None)?;
        let folder = self.0.records.sandbox_folder(&sandbox.id);
        let files = ["hostname", "hosts", "resolv.conf"];
        let around = translate::Surroundings {
            image: &image,
            layers,
            mounted,
            files: files.map(|name| (folder.join(name), PathBuf::from("/etc").join(name))).into(),
            hostname: hostname(&spec),
            log_path: translate::log_path(&sandbox.config.log_directory, &config.log_path),
        };
        let spec = translate::container(id, &config, around)?;
        let image_id = image.id.to_string();
        Ok(ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.id.clone(),
            created_at: self.now(),
            spec,
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image_id.clone()),
            image_name: image.names.first().cloned().unwrap_or(wanted.image),
            image_id,
            config,
            holds: holds.clone(),
            begun: false,
            failure: None,
            user: None,
        })
    }

    /// The unpacked layers of an image, which stay until `owner` lets go.
    async fn layers(
        &self,
        image: &Image,
        owner: String,
        holds: &mut Vec<String>,
    ) -> Result<Vec<PathBuf>, CriError> {
        let (images, image) = (self.0.images.clone(), image.clone());
        holds.push(owner.clone());
        let layers = tokio::task::spawn_blocking(move || {
            images.hold(&image, &owner)?;
            images.layer_dirs(&image)
        });
        Ok(layers.await??)
    }

    fn let_go(&self, holds: &[String]) {
        for owner in holds {
            if let Err(error) = self.0.images.release(owner) {
                tracing::warn!(owner, %error, "an image is held for longer than it should be");
            }
        }
    }

    pub(crate) async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, CriError> {
        let record = self.0.records.container(&request.container_id)?;
        let id = record.id.clone();
        self.0.starting.lock().insert(id.clone());
        let begun = self.0.records.change_container(&id, |record| {
            if std::mem::replace(&mut record.begun, true) {
                return Err(CriError::State(format!("container {} was started already", record.id)));
            }
            Ok(record.clone())
        });
        let record = match begun {
            Ok(record) => record,
            Err(error) => {
                self.0.starting.lock().remove(&id);
                return Err(error);
            }
        };
        let this = self.clone();
        let started = tokio::spawn(async move {
            let started = this.0.runtime.start_container(&record.sandbox, record.spec.clone()).await;
            let now = this.now();
            let noted = this.0.records.change_container(&record.id, |record| {
                match &started {
                    Ok(run) => record.user = first_user(&run.state),
                    Err(error) => record.failure = Some((now, error.to_string())),
                }
                Ok(())
            });
            this.0.starting.lock().remove(&record.id);
            started?;
            noted
        });
        started.await??;
        Ok(StartContainerResponse {})
    }

    pub(crate) async fn stop_container(
        &self,
        request: StopContainerRequest,
    ) -> Result<StopContainerResponse, CriError> {
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        match self.0.records.container(&request.container_id) {
            Ok(record) => match self.0.runtime.stop_container(&record.id, grace, None).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            },
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(StopContainerResponse {})
    }

    pub(crate) async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, CriError> {
        match self.0.records.container(&request.container_id) {
            Ok(record) => self.discard(&record).await?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(RemoveContainerResponse {})
    }

    /// Ends a container and removes all of it but its log.
    pub(crate) async fn discard(&self, record: &ContainerRecord) -> Result<(), CriError> {
        if self.0.starting.lock().contains(&record.id) {
            return Err(CriError::State(format!("container {} is being started", record.id)));
        }
        let gone = async {
            self.0.runtime.stop_container(&record.id, Duration::ZERO, None).await?;
            self.0.runtime.remove_container(&record.id).await
        };
        match gone.await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.let_go(&record.holds);
        self.tell(&record.id, ContainerEventType::Deleted);
        self.0.records.remove_container(&record.id)
    }

    pub(crate) async fn list_containers(
        &self,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse, CriError> {
        Ok(ListContainersResponse { containers: self.containers(&request.filter.unwrap_or_default()) })
    }

    pub(crate) fn stream_containers(&self, request: StreamContainersRequest) -> Vec<Container> {
        self.containers(&request.filter.unwrap_or_default())
    }

    fn containers(&self, filter: &cri::ContainerFilter) -> Vec<Container> {
        let sandboxes = self.0.runtime.sandboxes();
        let runs = sandboxes.iter().flat_map(|sandbox| self.0.runtime.containers(&sandbox.spec.id));
        let states: HashMap<String, Engine> = runs.map(|run| (run.id, run.state)).collect();
        let starting = self.0.starting.lock().clone();
        let records = self.0.records.containers().into_iter();
        let all = records.map(|record| {
            let doing = status::doing(&record, states.get(&record.id), starting.contains(&record.id));
            status::container(&record, &doing)
        });
        all.filter(|container| status::shows_container(filter, container)).collect()
    }

    pub(crate) async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, CriError> {
        let record = self.0.records.container(&request.container_id)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            let pid = match self.0.runtime.container(&record.id).map(|run| run.state) {
                Some(Engine::Running { pid, .. }) => Some(pid),
                _ => None,
            };
            let about = json!({"sandboxID": record.sandbox, "pid": pid, "spec": record.spec});
            info.insert("info".to_owned(), about.to_string());
        }
        Ok(ContainerStatusResponse { status: Some(self.status_of(&record)), info })
    }

    pub(crate) fn status_of(&self, record: &ContainerRecord) -> ContainerStatus {
        // Asked in this order: who is not starting any more is known to the engine or has failed.
        let starting = self.0.starting.lock().contains(&record.id);
        let state = self.0.runtime.container(&record.id).map(|run| run.state);
        status::container_status(record, status::doing(record, state.as_ref(), starting))
    }

    pub(crate) fn statuses_of(&self, sandbox: &str) -> Vec<ContainerStatus> {
        self.0.records.containers_of(sandbox).iter().map(|record| self.status_of(record)).collect()
    }

    pub(crate) async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, CriError> {
        let record = self.0.records.container(&request.container_id)?;
        let Some(linux) = request.linux else { return Ok(UpdateContainerResourcesResponse {}) };
        let resources = translate::resources(&linux);
        match self.status_of(&record).state {
            ContainerState::Running => {
                self.0.runtime.update_resources(&record.id, resources.clone()).await?;
            }
            ContainerState::Created => {}
            _ => return Err(CriError::State(format!("container {} has ended", record.id))),
        }
        self.0.records.change_container(&record.id, |record| {
            let of = record.config.linux.get_or_insert_default().resources.get_or_insert_default();
            merge(of, linux);
            record.spec.resources = translate::resources(of);
            Ok(())
        })?;
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(crate) async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, CriError> {
        let record = self.0.records.container(&request.container_id)?;
        if self.status_of(&record).state != ContainerState::Running {
            return Err(CriError::State(format!("container {} is not running", record.id)));
        }
        self.0.runtime.reopen_log(&record.id).await?;
        Ok(ReopenContainerLogResponse {})
    }
}

/// What is not said stays as it was.
fn merge(of: &mut cri::LinuxContainerResources, said: cri::LinuxContainerResources) {
    let nothing = cri::LinuxContainerResources::default();
    macro_rules! take {
        ($($field:ident),*) => {$(
            if said.$field != nothing.$field {
                of.$field = said.$field;
            }
        )*};
    }
    take!(cpu_period, cpu_quota, cpu_shares, memory_limit_in_bytes, oom_score_adj, cpuset_cpus, cpuset_mems);
    take!(hugepage_limits, unified, memory_swap_limit_in_bytes);
}

/// A source of a mount that is not there becomes a folder, as users expect of plain `hostPath` volumes.
fn make_source(path: &str) -> Result<(), CriError> {
    let path = std::path::Path::new(path);
    if !path.is_absolute() {
        return Err(CriError::Invalid(format!("mount: host_path {path:?} is no absolute path")));
    }
    match path.try_exists() {
        Ok(true) => Ok(()),
        _ => std::fs::create_dir_all(path).map_err(file("make folder", path)),
    }
}

/// Who a process is, in its own user namespace.
fn first_user(state: &Engine) -> Option<User> {
    let Engine::Running { pid, .. } = state else { return None };
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    user_in(&read("status")?, &read("uid_map")?)
}

fn user_in(status: &str, map: &str) -> Option<User> {
    // The host's number of the first user inside; the identity for whoever has no users of his own.
    let words: Vec<i64> =
        map.lines().next()?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let first = *words.get(1)? - *words.first()?;
    let numbers = |name: &str| -> Option<Vec<i64>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().map(|number| Some(number.parse::<i64>().ok()? - first)).collect()
    };
    let (uid, gid, mut groups) = (*numbers("Uid:")?.get(1)?, *numbers("Gid:")?.get(1)?, numbers("Groups:")?);
    // As other runtimes, the first group is one of them.
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Some(User { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_as_they_are_inside() {
        let status = "Name:\tsh\nUid:\t65541\t65541\t65541\t65541\nGid:\t65542\t65542\t65542\t65542\nGroups:\t65543 \n";
        let user = user_in(status, "         0      65536      65536\n").unwrap();
        assert_eq!(user, User { uid: 5, gid: 6, groups: vec![6, 7] });
        let whole = user_in("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0 \n", "0 0 4294967295\n").unwrap();
        assert_eq!(whole, User { uid: 0, gid: 0, groups: vec![0] });
    }

    #[test]
    fn an_update_changes_what_it_says() {
        let mut of =
            cri::LinuxContainerResources { cpu_shares: 2, cpuset_cpus: "0".to_owned(), ..Default::default() };
        merge(&mut of, cri::LinuxContainerResources { cpuset_cpus: "1".to_owned(), ..Default::default() });
        assert_eq!((of.cpu_shares, of.cpuset_cpus.as_str()), (2, "1"));
    }
}
