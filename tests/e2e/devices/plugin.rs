//! A device plugin as vendors write them: it serves at a socket of its own, and registers whenever the agent's socket is new.

use std::path::{Path, PathBuf};
use std::time::Duration;

use grpc::{Channel, Code, Reader, Reply, Target, WireError, Writer, answer_with_streams};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// What it offers.
pub const RESOURCE: &str = "e2e.example.com/gadget";

/// A plugin that runs until it is dropped.
pub struct Plugin {
    runtime: Runtime,
    folder: PathBuf,
    /// Which devices there are, and whether each is well.
    devices: watch::Sender<Vec<(&'static str, bool)>>,
}

/// The agent's folder of sockets.
pub fn folder(data: &Path) -> PathBuf {
    data.join("kubelet/device-plugins")
}

impl Plugin {
    pub fn start(data: &Path, devices: &[(&'static str, bool)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let plugin = Self { runtime, folder: folder(data), devices: watch::Sender::new(devices.to_vec()) };
        plugin.begin();
        plugin
    }

    /// Serves at a new socket and registers.
    pub fn begin(&self) {
        self.runtime.block_on(async {
            let socket = self.folder.join("gadget.sock");
            let _ = std::fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).expect("a socket for the plugin");
            let devices = self.devices.subscribe();
            tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    let devices = devices.clone();
                    tokio::spawn(answer_with_streams(connection, move |path, message| {
                        let answer = answer(&path, &message, &devices);
                        async move { answer }
                    }));
                }
            });
            let mut writer = Writer::new();
            writer.bytes(1, b"v1beta1").bytes(2, b"gadget.sock").bytes(3, RESOURCE.as_bytes());
            let (agent, message) = (Target::Unix(self.folder.join("kubelet.sock")), writer.finish());
            let agent = Channel::new(agent);
            let done = agent.unary("/v1beta1.Registration/Register", &message, Duration::from_secs(20));
            done.await.expect("registration");
        });
    }

    /// Changes what there is.
    pub fn tell(&self, devices: &[(&'static str, bool)]) {
        self.devices.send_replace(devices.to_vec());
    }

    /// Asks the agent which pod has what.
    pub fn pod_resources(&self, data: &Path, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let socket = data.join("kubelet/pod-resources/kubelet.sock");
        let path = format!("/v1.PodResourcesLister/{method}");
        let answer = self.runtime.block_on(async {
            Channel::new(Target::Unix(socket)).unary(&path, message, Duration::from_secs(20)).await
        });
        answer.map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
    }
}

type Devices = watch::Receiver<Vec<(&'static str, bool)>>;

fn answer(path: &str, message: &[u8], devices: &Devices) -> Result<Reply, (Code, String)> {
    let mut writer = Writer::new();
    match path.trim_start_matches("/v1beta1.DevicePlugin/") {
        "GetDevicePluginOptions" => {}
        "ListAndWatch" => return Ok(Reply::Many(list(devices.clone()))),
        "Allocate" => {
            let ids = all(first(message, 1), 1).join(",");
            writer.message(1, |container| {
                container.message(1, |env| {
                    env.bytes(1, b"GADGETS").bytes(2, ids.as_bytes());
                });
                container.message(3, |device| {
                    device.bytes(1, b"/dev/gadget").bytes(2, b"/dev/fuse").bytes(3, b"r");
                });
                container.message(5, |cdi| {
                    cdi.bytes(1, b"e2e.example.com/gadget=one");
                });
            });
        }
        other => return Err((Code::UNIMPLEMENTED, other.to_owned())),
    }
    Ok(Reply::One(writer.finish()))
}

fn list(mut devices: Devices) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let mut writer = Writer::new();
            for (id, well) in devices.borrow_and_update().iter() {
                let health: &[u8] = if *well { b"Healthy" } else { b"Unhealthy" };
                writer.message(1, |device| {
                    device.bytes(1, id.as_bytes()).bytes(2, health);
                });
            }
            if sender.send(writer.finish()).await.is_err() || devices.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The texts or messages of a field.
pub fn parts(message: &[u8], wanted: u32) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let read = Reader::new(message).fields(|field, value| {
        if field == wanted {
            found.push(value.bytes());
        }
        Ok::<_, WireError>(())
    });
    read.expect("a message");
    found
}

/// The first of them, or nothing.
pub fn first(message: &[u8], wanted: u32) -> &[u8] {
    parts(message, wanted).first().copied().unwrap_or_default()
}

/// All of them as texts.
pub fn all(message: &[u8], wanted: u32) -> Vec<String> {
    parts(message, wanted).iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}
