//! Sandboxes: their making, their end, and what is told of them.

use std::collections::HashMap;
use std::path::PathBuf;

use cri::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxConfig, PodSandboxState,
    PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse, StopPodSandboxRequest,
    StopPodSandboxResponse, StreamPodSandboxesRequest, UpdatePodSandboxResourcesRequest,
    UpdatePodSandboxResourcesResponse,
};
use runtime::{NetworkMode, SandboxSpec, SandboxState, SandboxStatus};
use serde_json::json;

use crate::error::CriError;
use crate::records::{SandboxRecord, file, remove};
use crate::service::CriService;
use crate::{status, translate};

/// What the built-in handler is called beside nothing.
pub(crate) const BUILT_IN: &str = "gantry";

impl CriService {
    pub(crate) async fn run_pod_sandbox(
        &self,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse, CriError> {
        let config = request.config.unwrap_or_default();
        let name = full_name(&config)?;
        let program = self.program(&request.runtime_handler)?;
        if let Some(other) =
            self.0.records.sandboxes().iter().find(|s| full_name(&s.config).ok() == Some(name.clone()))
        {
            return Err(CriError::Exists(format!("sandbox {name:?} exists already: {}", other.id)));
        }
        if !self.0.making.lock().insert(name.clone()) {
            return Err(CriError::Exists(format!("sandbox {name:?} is being made already")));
        }
        let this = self.clone();
        // To the end even if the caller goes away, so that nothing is left half done.
        let made = tokio::spawn(async move {
            let made = this.make_sandbox(config, request.runtime_handler, program).await;
            this.0.making.lock().remove(&name);
            made
        });
        Ok(RunPodSandboxResponse { pod_sandbox_id: made.await?? })
    }

    async fn make_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: String,
        program: Option<PathBuf>,
    ) -> Result<String, CriError> {
        let id = self.new_id();
        let mut spec = translate::sandbox(&id, &config, program)?;
        spec.hostname = hostname(&spec);
        let ports = translate::host_ports(&config.port_mappings)?;
        let folder = self.0.records.sandbox_folder(&id);
        let made = async {
            self.write_files(&folder, &config, &spec)?;
            if let Some(logs) = &spec.log_dir {
                std::fs::create_dir_all(logs).map_err(file("make folder", logs))?;
            }
            let sandbox = self.0.runtime.run_sandbox(spec).await?;
            if let Some(netns) = &sandbox.netns {
                let network = self.0.network.current()?;
                network.attach(&id, netns).await?;
                if !ports.is_empty() {
                    network.publish(&id, &ports).await?;
                }
            }
            // What is recorded is complete; anything else is cleared away at the next start.
            let created_at = self.now();
            self.0.records.put_sandbox(SandboxRecord { id: id.clone(), created_at, config, handler })
        };
        if let Err(error) = made.await {
            if let Err(left) = self.unmake(&id).await {
                tracing::warn!(sandbox = id, error = %left, "a sandbox that failed left something behind");
            }
            return Err(error);
        }
        self.tell_of_sandbox(&id, cri::ContainerEventType::Created);
        self.tell_of_sandbox(&id, cri::ContainerEventType::Started);
        Ok(id)
    }

    /// What all of a sandbox's containers see in `/etc`.
    fn write_files(
        &self,
        folder: &std::path::Path,
        config: &PodSandboxConfig,
        spec: &SandboxSpec,
    ) -> Result<(), CriError> {
        let of_host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let resolver = translate::resolv_conf(config.dns_config.as_ref());
        std::fs::create_dir_all(folder).map_err(file("make folder", folder))?;
        let files = [
            ("hostname", format!("{}\n", hostname(spec))),
            ("hosts", of_host("/etc/hosts")),
            ("resolv.conf", resolver.unwrap_or_else(|| of_host("/etc/resolv.conf"))),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(file("write", &path))?;
        }
        Ok(())
    }

    /// Takes back what there is of a sandbox.
    async fn unmake(&self, id: &str) -> Result<(), CriError> {
        match self.0.runtime.remove_sandbox(id).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.0.network.current()?.release(id).await?;
        remove(&self.0.records.sandbox_folder(id))
    }

    /// The program of a handler, if it is not our own one.
    pub(crate) fn program(&self, handler: &str) -> Result<Option<PathBuf>, CriError> {
        match self.0.config.handlers.get(handler) {
            Some(program) => Ok(Some(program.clone())),
            None if handler.is_empty() || handler == BUILT_IN => Ok(None),
            None => Err(CriError::Invalid(format!("no runtime for {handler:?} is configured"))),
        }
    }

    pub(crate) async fn stop_pod_sandbox(
        &self,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse, CriError> {
        match self.0.records.sandbox(&request.pod_sandbox_id) {
            Ok(record) => self.end_sandbox(&record.id).await?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(StopPodSandboxResponse {})
    }

    async fn end_sandbox(&self, id: &str) -> Result<(), CriError> {
        let was_ready = self.sandbox_state(id) == PodSandboxState::Ready;
        match self.0.runtime.stop_sandbox(id).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.0.network.current()?.detach(id).await?;
        if was_ready {
            self.tell_of_sandbox(id, cri::ContainerEventType::Stopped);
        }
        Ok(())
    }

    pub(crate) async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, CriError> {
        let record = match self.0.records.sandbox(&request.pod_sandbox_id) {
            Ok(record) => record,
            Err(error) if error.is_not_found() => return Ok(RemovePodSandboxResponse {}),
            Err(error) => return Err(error),
        };
        self.end_sandbox(&record.id).await?;
        for container in self.0.records.containers_of(&record.id) {
            self.discard(&container).await?;
        }
        self.unmake(&record.id).await?;
        self.tell_of_sandbox(&record.id, cri::ContainerEventType::Deleted);
        self.0.records.remove_sandbox(&record.id)?;
        Ok(RemovePodSandboxResponse {})
    }

    pub(crate) async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, CriError> {
        let record = self.0.records.sandbox(&request.pod_sandbox_id)?;
        let status = self.sandbox_status(&record, self.ip(&record.id));
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            let engine = self.engine_sandbox(&record.id);
            let about = json!({
                "pid": engine.as_ref().and_then(|s| s.shim_pid),
                "networkNamespace": engine.as_ref().and_then(|s| s.netns.clone()),
                "runtimeHandler": record.handler,
                "spec": engine.as_ref().map(|s| &*s.spec),
            });
            info.insert("info".to_owned(), about.to_string());
        }
        Ok(PodSandboxStatusResponse {
            status: Some(status),
            info,
            containers_statuses: self.statuses_of(&record.id),
            timestamp: self.now(),
        })
    }

    pub(crate) fn sandbox_status(&self, record: &SandboxRecord, ip: Option<String>) -> PodSandboxStatus {
        status::sandbox_status(record, self.sandbox_state(&record.id), ip)
    }

    fn ip(&self, id: &str) -> Option<String> {
        Some(self.0.network.current().ok()?.address(id)?.to_string())
    }

    fn engine_sandbox(&self, id: &str) -> Option<SandboxStatus> {
        self.0.runtime.sandbox(id)
    }

    pub(crate) fn sandbox_state(&self, id: &str) -> PodSandboxState {
        state_of(self.engine_sandbox(id).map(|sandbox| sandbox.state))
    }

    pub(crate) async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, CriError> {
        let filter = request.filter.unwrap_or_default();
        Ok(ListPodSandboxResponse { items: self.sandboxes(&filter) })
    }

    pub(crate) fn stream_pod_sandboxes(&self, request: StreamPodSandboxesRequest) -> Vec<PodSandbox> {
        self.sandboxes(&request.filter.unwrap_or_default())
    }

    fn sandboxes(&self, filter: &cri::PodSandboxFilter) -> Vec<PodSandbox> {
        let engine = self.0.runtime.sandboxes().into_iter();
        let states: HashMap<String, SandboxState> = engine.map(|s| (s.spec.id.clone(), s.state)).collect();
        let records = self.0.records.sandboxes().into_iter();
        let all = records.map(|record| status::sandbox(&record, state_of(states.get(&record.id).copied())));
        all.filter(|sandbox| status::shows_sandbox(filter, sandbox)).collect()
    }

    /// The kubelet has set the limits on its own cgroup, above ours; there is nothing left to do.
    pub(crate) async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, CriError> {
        self.0.records.sandbox(&request.pod_sandbox_id)?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}

/// What containers of a sandbox take for the machine's name: the machine's own one where no other is said.
pub(crate) fn hostname(spec: &SandboxSpec) -> String {
    if spec.network == NetworkMode::Host || spec.hostname.is_empty() {
        return nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
    }
    spec.hostname.clone()
}

fn state_of(engine: Option<SandboxState>) -> PodSandboxState {
    match engine {
        Some(SandboxState::Ready) => PodSandboxState::Ready,
        _ => PodSandboxState::NotReady,
    }
}

/// What no two sandboxes have in common.
fn full_name(config: &PodSandboxConfig) -> Result<String, CriError> {
    match &config.metadata {
        Some(m) if !m.name.is_empty() => Ok(format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)),
        _ => Err(CriError::Invalid("the sandbox's config needs metadata with a name".to_owned())),
    }
}
