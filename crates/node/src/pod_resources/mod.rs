//! Which pod has which device, CPU and memory: a socket that monitors ask (kubernetes/kubernetes,
//! `pkg/kubelet/apis/podresources/server_v1.go`, `staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`).

mod write;

use std::io;
use std::sync::Arc;

use base::Drain;
use client::Key;
use grpc::{Answer, Code, Reader, WireError, Writer};
use k8s_openapi::api::core::v1::Pod;

use crate::managers::Managers;
use crate::plan::{is_over, is_sidecar};
use crate::sockets;
use crate::static_pods::Pods;
use crate::worker::uid_of;
use write::{Container, devices_of};

/// What answers.
#[derive(Clone)]
struct Service {
    managers: Arc<Managers>,
    pods: Pods,
}

/// Answers at `pod-resources/kubelet.sock` until the node's agent ends.
///
/// # Errors
/// If the socket cannot be made.
pub(crate) fn serve(managers: Arc<Managers>, pods: Pods, drain: &Drain) -> io::Result<()> {
    let socket = managers.kubelet_dir().join("pod-resources/kubelet.sock");
    sockets::prepare(&socket)?;
    let service = Service { managers, pods };
    sockets::serve(&socket, drain, move |path, message| {
        let service = service.clone();
        async move { service.answer(&path, &message) }
    })
}

impl Service {
    fn answer(&self, path: &str, message: &[u8]) -> Answer {
        match path {
            "/v1.PodResourcesLister/List" => {
                let mut writer = Writer::new();
                for pod in self.pods.list().iter().filter(|pod| !is_over(pod)) {
                    writer.message(1, |inner| self.pod(inner, pod));
                }
                Ok(writer.finish())
            }
            "/v1.PodResourcesLister/GetAllocatableResources" => Ok(self.allocatable()),
            "/v1.PodResourcesLister/Get" => self.one(message),
            _ => Err((Code::UNIMPLEMENTED, format!("unknown method {path}"))),
        }
    }

    fn one(&self, message: &[u8]) -> Answer {
        let (mut name, mut namespace) = (String::new(), String::new());
        let read = Reader::new(message).fields(|field, value| {
            match field {
                1 => name = value.text(),
                2 => namespace = value.text(),
                _ => {}
            }
            Ok::<_, WireError>(())
        });
        read.map_err(|error| (Code::INVALID_ARGUMENT, error.to_string()))?;
        let pod = self.pods.get(&Key::new(&namespace, &name)).filter(|pod| !is_over(pod));
        let pod =
            pod.ok_or_else(|| (Code::UNKNOWN, format!("pod {name} in namespace {namespace} not found")))?;
        let mut writer = Writer::new();
        writer.message(1, |inner| self.pod(inner, &pod));
        Ok(writer.finish())
    }

    /// A `PodResources`.
    fn pod(&self, writer: &mut Writer, pod: &Pod) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        writer.bytes(1, text(&pod.metadata.name).as_bytes());
        writer.bytes(2, text(&pod.metadata.namespace).as_bytes());
        let uid = uid_of(pod);
        let spec = pod.spec.as_ref();
        let sidecars =
            spec.into_iter().flat_map(|s| s.init_containers.iter().flatten()).filter(|c| is_sidecar(c));
        for container in sidecars.chain(spec.into_iter().flat_map(|s| &s.containers)) {
            let known = self.managers.devices.all();
            let devices = self.managers.devices.of(uid, &container.name);
            let dynamic = self.managers.dynamic.lock().clone();
            let cpus = self.managers.exclusive_cpus(uid, &container.name).unwrap_or_default();
            let all = Container {
                name: &container.name,
                devices: devices_of(devices.iter().map(|(resource, ids)| {
                    let devices = known.get(resource);
                    let nodes = move |id: &String| devices.and_then(|d| d.get(id)?.nodes.clone());
                    (resource.as_str(), ids.iter().map(|id| (id.as_str(), nodes(id))).collect())
                })),
                cpus: cpus.iter().collect(),
                memory: self.managers.memory_of(uid, &container.name),
                dynamic: dynamic.map(|source| source.of(uid, &container.name)).unwrap_or_default(),
            };
            writer.message(3, |inner| all.write(inner));
        }
    }

    /// An `AllocatableResourcesResponse`: devices that are well, and what containers can have to themselves.
    fn allocatable(&self) -> Vec<u8> {
        let known = self.managers.devices.all();
        let (cpus, memory) = self.managers.allocatable();
        let devices = devices_of(known.iter().map(|(resource, devices)| {
            let well = devices.iter().filter(|(_, device)| device.healthy);
            (resource.as_str(), well.map(|(id, device)| (id.as_str(), device.nodes.clone())).collect())
        }));
        let mut writer = Writer::new();
        write::write_devices(&mut writer, 1, &devices);
        for cpu in cpus.iter() {
            writer.present(2, cpu as u64);
        }
        write::write_memory(&mut writer, 3, &memory);
        writer.finish()
    }
}
