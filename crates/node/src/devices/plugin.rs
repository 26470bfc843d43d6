//! The socket at which plugins register, and following what each tells (kubernetes/kubernetes,
//! `pkg/kubelet/cm/devicemanager/plugin/v1beta1/server.go`, `client.go`).

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use grpc::{Answer, Channel, Code, RpcError, Stream, Target};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::api::{PluginOptions, Register, read_devices};
use super::{Devices, LIMIT, Plugin};
use crate::sockets;

/// The version that is spoken.
const VERSION: &str = "v1beta1";
/// A plugin that has gone may come back so long.
const GRACE: Duration = Duration::from_secs(300);
/// A plugin that has registered must listen after so long.
const CONNECT: Duration = Duration::from_secs(10);

impl Devices {
    /// Lets plugins register until the node's agent ends. Sockets of plugins are removed: those who watch them, as all should,
    /// register anew with a new agent.
    ///
    /// # Errors
    /// If the socket cannot be made, or somebody else serves there.
    pub(crate) fn serve(self: &Arc<Self>) -> io::Result<()> {
        let socket = self.folder.join("kubelet.sock");
        sockets::prepare(&socket)?;
        self.clear_sockets(&socket);
        let devices = self.clone();
        sockets::serve(&socket, &self.drain, move |path, message| {
            let devices = devices.clone();
            async move { devices.answer(&path, &message) }
        })
    }

    fn clear_sockets(&self, own: &Path) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            if is_socket && entry.path() != own {
                // One that stays does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn answer(self: &Arc<Self>, path: &str, message: &[u8]) -> Answer {
        if path != "/v1beta1.Registration/Register" {
            return Err((Code::UNIMPLEMENTED, format!("unknown method {path}")));
        }
        let request = Register::read(message).map_err(|e| (Code::INVALID_ARGUMENT, e.to_string()))?;
        self.register(request).map_err(|why| {
            tracing::warn!(why, "a device plugin cannot be registered");
            (Code::UNKNOWN, why)
        })?;
        Ok(Vec::new())
    }

    /// Takes a plugin; the newest one for a resource wins.
    fn register(self: &Arc<Self>, request: Register) -> Result<(), String> {
        if request.version != VERSION {
            return Err(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is {VERSION:?}",
                request.version
            ));
        }
        if !is_extended(&request.resource) {
            return Err(format!("the ResourceName {:?} is invalid", request.resource));
        }
        // Its socket is beside ours; it cannot send us elsewhere.
        if Path::new(&request.endpoint).file_name() != Some(request.endpoint.as_ref()) {
            return Err(format!("the endpoint {:?} is no name of a socket", request.endpoint));
        }
        tracing::info!(resource = request.resource, endpoint = request.endpoint, "a device plugin registers");
        let devices = self.clone();
        self.drain.spawn_until_started(async move { devices.follow(request).await });
        Ok(())
    }

    /// Connects to a plugin and hears what it tells, until it goes.
    async fn follow(self: Arc<Self>, request: Register) {
        let resource = &request.resource;
        let socket = self.folder.join(&request.endpoint);
        let channel = Arc::new(Channel::new(Target::Unix(socket.clone())));
        // Some register before they listen.
        let deadline = Instant::now() + CONNECT;
        while UnixStream::connect(&socket).await.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let connected = async {
            let options = match request.options {
                Some(options) => options,
                None => options_of(&channel).await?,
            };
            Ok::<_, RpcError>((channel.listen("/v1beta1.DevicePlugin/ListAndWatch", &[]).await?, options))
        };
        let (mut stream, options) = match connected.await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::warn!(resource, %error, "cannot connect to a device plugin");
                return;
            }
        };
        let number = {
            let mut plugins = self.plugins.lock();
            let number = plugins.get(resource).map_or(0, |before| before.number + 1);
            plugins.insert(resource.clone(), Plugin { channel, options, number });
            number
        };
        let why = self.hear(resource, number, &mut stream).await;
        if !self.is_current(resource, number) {
            return;
        }
        tracing::warn!(resource, why, "a device plugin has gone");
        self.state.lock().unwell(resource);
        self.changed();
        tokio::time::sleep(GRACE).await;
        let mut plugins = self.plugins.lock();
        if plugins.get(resource).is_some_and(|plugin| plugin.number == number) {
            plugins.remove(resource);
            drop(plugins);
            self.forget(resource);
        }
    }

    /// A resource that no plugin stands for any more.
    fn forget(&self, resource: &str) {
        self.state.lock().resources.remove(resource);
        if let Err(error) = self.save() {
            tracing::warn!(%error, "cannot write down that a device plugin has gone");
        }
        self.changed();
    }

    /// Forgets resources of an earlier agent whose plugins do not come back.
    pub(crate) async fn forget_the_missing(self: Arc<Self>) {
        let before: Vec<String> = self.state.lock().resources.keys().cloned().collect();
        tokio::time::sleep(GRACE).await;
        for resource in before {
            if !self.plugins.lock().contains_key(&resource) {
                self.forget(&resource);
            }
        }
    }

    fn is_current(&self, resource: &str, number: u64) -> bool {
        self.plugins.lock().get(resource).is_some_and(|plugin| plugin.number == number)
    }

    /// Takes in what comes; gives why nothing comes any more.
    async fn hear(&self, resource: &str, number: u64, stream: &mut Stream) -> String {
        loop {
            let message = match stream.next().await {
                Ok(message) => message,
                Err(error) => return error.to_string(),
            };
            let devices = match read_devices(&message) {
                Ok(devices) => devices,
                Err(error) => return error.to_string(),
            };
            if !self.is_current(resource, number) {
                return "another one has taken its place".to_owned();
            }
            let new = {
                let mut state = self.state.lock();
                let new = !state.resources.contains_key(resource);
                state.told(resource, devices);
                new
            };
            if new && let Err(error) = self.save() {
                tracing::warn!(%error, "cannot write down that there are new devices");
            }
            self.changed();
        }
    }
}

async fn options_of(channel: &Channel) -> Result<PluginOptions, RpcError> {
    let answer = channel.unary("/v1beta1.DevicePlugin/GetDevicePluginOptions", &[], LIMIT).await?;
    Ok(PluginOptions::read(&answer).unwrap_or_default())
}

/// Whether a resource can be a plugin's (`pkg/apis/core/v1/helper/helpers.go`, `IsExtendedResourceName`).
pub(super) fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    !native && !name.starts_with("requests.") && types::qualified_name(&format!("requests.{name}")).is_empty()
}
