//! A device plugin for tests: a gRPC server of its own, as a real one is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grpc::{Channel, Code, Reader, Reply, Target, Value, WireError, Writer, answer_with_streams};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

/// A device: ID, whether it is well, NUMA nodes.
pub(crate) type Fake = (&'static str, bool, Option<Vec<u64>>);

/// What a plugin was asked: the method, and the devices.
pub(crate) type Calls = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// A plugin that runs until it is dropped.
pub(crate) struct Plugin {
    folder: PathBuf,
    socket: &'static str,
    pub(crate) devices: watch::Sender<Vec<Fake>>,
    /// What it was asked: the method, and the devices.
    pub(crate) calls: Calls,
    /// What it prefers, or why it refuses.
    pub(crate) prefers: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) refuses: Arc<Mutex<Option<&'static str>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const LIMIT: Duration = Duration::from_secs(20);

impl Plugin {
    /// Begins to serve at a socket in `folder`.
    pub(crate) fn start(folder: &Path, socket: &'static str, devices: Vec<Fake>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(socket);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let devices = watch::Sender::new(devices);
        let (calls, prefers, refuses) = (Arc::default(), Arc::default(), Arc::default());
        let server = Server {
            devices: devices.subscribe(),
            calls: Arc::clone(&calls),
            prefers: Arc::clone(&prefers),
            refuses: Arc::clone(&refuses),
        };
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(answer_with_streams(connection, move |path, message| {
                    let server = server.clone();
                    async move { server.answer(&path, &message).await }
                }));
            }
        });
        Self { folder: folder.to_owned(), socket, devices, calls, prefers, refuses, task }
    }

    /// Registers with the agent that listens in the same folder.
    pub(crate) async fn register(&self, resource: &str, options: Option<(bool, bool)>) -> Result<(), String> {
        let mut writer = Writer::new();
        writer.bytes(1, b"v1beta1").bytes(2, self.socket.as_bytes()).bytes(3, resource.as_bytes());
        if let Some((pre_start, preferred)) = options {
            writer.message(4, |inner| {
                inner.flag(1, pre_start).flag(2, preferred);
            });
        }
        let channel = Channel::new(Target::Unix(self.folder.join("kubelet.sock")));
        let done = channel.unary("/v1beta1.Registration/Register", &writer.finish(), LIMIT).await;
        done.map(drop).map_err(|error| error.to_string())
    }
}

#[derive(Clone)]
struct Server {
    devices: watch::Receiver<Vec<Fake>>,
    calls: Calls,
    prefers: Arc<Mutex<Vec<&'static str>>>,
    refuses: Arc<Mutex<Option<&'static str>>>,
}

impl Server {
    async fn answer(&self, path: &str, message: &[u8]) -> Result<Reply, (Code, String)> {
        let method = path.strip_prefix("/v1beta1.DevicePlugin/").unwrap_or(path);
        if method == "ListAndWatch" {
            return Ok(Reply::Many(self.watch()));
        }
        // All but one have the devices in the first field, or in the first field of that.
        let ids = match method {
            "PreStartContainer" => texts(message, 1),
            "GetPreferredAllocation" => texts(&inner(message), 2),
            _ => texts(&inner(message), 1),
        };
        self.calls.lock().push((method.to_owned(), ids.clone()));
        let mut writer = Writer::new();
        match method {
            "GetDevicePluginOptions" => {
                writer.flag(1, true);
            }
            "GetPreferredAllocation" => {
                let prefers = self.prefers.lock().clone();
                writer.message(1, |inner| {
                    prefers.iter().for_each(|id| {
                        inner.bytes(1, id.as_bytes());
                    })
                });
            }
            "Allocate" => {
                if let Some(why) = *self.refuses.lock() {
                    return Err((Code::UNKNOWN, why.to_owned()));
                }
                writer.message(1, |inner| {
                    inner.message(1, |env| {
                        env.bytes(1, b"DEVICES").bytes(2, ids.join(",").as_bytes());
                    });
                });
            }
            "PreStartContainer" => {}
            other => return Err((Code::UNIMPLEMENTED, other.to_owned())),
        }
        Ok(Reply::One(writer.finish()))
    }

    fn watch(&self) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(1);
        let mut devices = self.devices.clone();
        tokio::spawn(async move {
            loop {
                let list = written(&devices.borrow_and_update());
                if sender.send(list).await.is_err() || devices.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

fn written(devices: &[Fake]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (id, healthy, nodes) in devices {
        writer.message(1, |device| {
            let health: &[u8] = if *healthy { b"Healthy" } else { b"Unhealthy" };
            device.bytes(1, id.as_bytes()).bytes(2, health);
            if let Some(nodes) = nodes {
                device.message(3, |topology| {
                    for node in nodes {
                        topology.message(1, |inner| {
                            inner.number(1, *node);
                        });
                    }
                });
            }
        });
    }
    writer.finish()
}

fn texts(message: &[u8], wanted: u32) -> Vec<String> {
    let mut texts = Vec::new();
    let read = Reader::new(message).fields(|field, value: Value<'_>| {
        if field == wanted {
            texts.push(value.text());
        }
        Ok::<_, WireError>(())
    });
    read.unwrap();
    texts
}

fn inner(message: &[u8]) -> Vec<u8> {
    super::api::first_message(message).unwrap().unwrap_or_default().to_vec()
}
