//! A key service behind a unix socket (kubernetes/kubernetes, `staging/src/k8s.io/kms/apis/v2/api.proto`, and
//! `apiserver/pkg/storage/value/encrypt/envelope/kmsv2`).
//!
//! The service wraps a random seed, not each object: a seed is made when the service's key changes, and every
//! object is sealed with a key derived from it. What is stored brings its wrapped seed along.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use grpc::{Channel, Reader, RpcError, Target, WireError, Writer};
use parking_lot::Mutex;

use crate::ciphers::{Seeded, WRONG, seed};

/// How often the service is asked for its key.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// `EncryptedDEKSourceType.HKDF_SHA256_XNONCE_AES_GCM_SEED`
const SEED: u64 = 1;
/// Wrapped seeds that are remembered at most.
const REMEMBERED: usize = 1000;

/// A key service.
pub(crate) struct Kms {
    name: String,
    calls: Sender<Call>,
    current: Mutex<Option<Current>>,
    opened: Mutex<HashMap<Vec<u8>, Arc<Seeded>>>,
}

/// What objects are sealed with now.
#[derive(Clone)]
struct Current {
    seed: Arc<Seeded>,
    wrapped: Wrapped,
    asked: Instant,
}

/// What is stored with an object besides its ciphertext.
#[derive(Clone, Default, PartialEq)]
struct Wrapped {
    seed: Vec<u8>,
    key_id: String,
    annotations: Vec<(String, Vec<u8>)>,
    kind: u64,
}

struct Call {
    method: &'static str,
    message: Vec<u8>,
    reply: Sender<Result<Vec<u8>, RpcError>>,
}

impl Kms {
    /// Begins to use a service; it need not be there yet.
    pub(crate) fn start(name: &str, socket: &Path, limit: Duration) -> std::io::Result<Self> {
        let (calls, inbox) = channel();
        let service = Channel::new(Target::Unix(socket.to_owned()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("kms".to_owned())
            .spawn(move || runtime.block_on(converse(service, limit, inbox)))?;
        Ok(Self { name: name.to_owned(), calls, current: Mutex::default(), opened: Mutex::default() })
    }

    fn call(&self, method: &'static str, message: Vec<u8>) -> Result<Vec<u8>, String> {
        let (reply, answer) = channel();
        let gone = || format!("the key service {} is not used any more", self.name);
        self.calls.send(Call { method, message, reply }).map_err(|_| gone())?;
        let answer = answer.recv().map_err(|_| gone())?;
        answer.map_err(|error| format!("the key service {} fails: {error}", self.name))
    }

    /// The service's present key.
    fn key_id(&self) -> Result<String, String> {
        let answer = self.call("Status", Vec::new())?;
        let (mut version, mut health, mut key_id) = (String::new(), String::new(), String::new());
        fields(&answer, |field, value| match field {
            1 => version = value.text(),
            2 => health = value.text(),
            3 => key_id = value.text(),
            _ => {}
        })?;
        if health != "ok" {
            return Err(format!("the key service {} is not well: {health}", self.name));
        }
        if !matches!(version.as_str(), "v2" | "v2beta1") || key_id.is_empty() {
            return Err(format!(
                "the key service {} speaks version {version:?} and names key {key_id:?}",
                self.name
            ));
        }
        Ok(key_id)
    }

    fn current(&self) -> Result<Current, String> {
        let mut current = self.current.lock();
        if let Some(known) = current.as_ref().filter(|known| known.asked.elapsed() < ASK_EVERY) {
            return Ok(known.clone());
        }
        match (self.key_id(), current.as_mut()) {
            (Ok(key_id), Some(known)) if known.wrapped.key_id == key_id => {
                known.asked = Instant::now();
                return Ok(known.clone());
            }
            // What was good before goes on while the service is away.
            (Err(why), Some(known)) => {
                tracing::warn!(why, "a key service does not answer; its last key stays in use");
                known.asked = Instant::now();
                return Ok(known.clone());
            }
            (Err(why), None) => return Err(why),
            (Ok(_), _) => {}
        }
        let seed = seed().map_err(str::to_owned)?;
        let mut request = Writer::new();
        request.bytes(1, &seed).bytes(2, b"gantry");
        let answer = self.call("Encrypt", request.finish())?;
        let mut wrapped = Wrapped { kind: SEED, ..Wrapped::default() };
        fields(&answer, |field, value| match field {
            1 => wrapped.seed = value.bytes().to_vec(),
            2 => wrapped.key_id = value.text(),
            3 => wrapped.annotations.extend(annotation(value.bytes())),
            _ => {}
        })?;
        let seed = Arc::new(Seeded::new(seed.to_vec()).ok_or("no seed")?);
        let fresh = Current { seed, wrapped, asked: Instant::now() };
        self.remember(&fresh.wrapped.seed, &fresh.seed);
        *current = Some(fresh.clone());
        Ok(fresh)
    }

    fn remember(&self, wrapped: &[u8], seed: &Arc<Seeded>) {
        let mut opened = self.opened.lock();
        if opened.len() >= REMEMBERED {
            opened.clear();
        }
        opened.insert(wrapped.to_vec(), Arc::clone(seed));
    }

    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        let Current { seed, wrapped, .. } = self.current()?;
        let mut out = Writer::new();
        out.bytes(1, &seed.seal(place, plain)?).bytes(2, wrapped.key_id.as_bytes()).bytes(3, &wrapped.seed);
        annotations(&mut out, 4, &wrapped.annotations);
        out.number(5, wrapped.kind);
        Ok(out.finish())
    }

    /// Opens a value; tells also whether another key would seal it today.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let (mut wrapped, mut data) = (Wrapped::default(), Vec::new());
        fields(sealed, |field, value| match field {
            1 => data = value.bytes().to_vec(),
            2 => wrapped.key_id = value.text(),
            3 => wrapped.seed = value.bytes().to_vec(),
            4 => wrapped.annotations.extend(annotation(value.bytes())),
            5 => wrapped.kind = value.number(),
            _ => {}
        })?;
        if wrapped.kind != SEED {
            return Err("its key is of a kind that is not known here".to_owned());
        }
        let known = self.opened.lock().get(&wrapped.seed).cloned();
        let seed = match known {
            Some(seed) => seed,
            None => {
                let mut request = Writer::new();
                request.bytes(1, &wrapped.seed).bytes(2, b"gantry").bytes(3, wrapped.key_id.as_bytes());
                annotations(&mut request, 4, &wrapped.annotations);
                let answer = self.call("Decrypt", request.finish())?;
                let mut plain = Vec::new();
                fields(&answer, |field, value| {
                    if field == 1 {
                        plain = value.bytes().to_vec();
                    }
                })?;
                let seed = Arc::new(Seeded::new(plain).ok_or(WRONG)?);
                self.remember(&wrapped.seed, &seed);
                seed
            }
        };
        let stale = self.current.lock().as_ref().is_some_and(|c| c.wrapped.key_id != wrapped.key_id);
        Ok((seed.open(place, &data)?, stale))
    }
}

fn fields(message: &[u8], mut each: impl FnMut(u32, grpc::Value<'_>)) -> Result<(), String> {
    let read = Reader::new(message).fields::<WireError>(|field, value| {
        each(field, value);
        Ok(())
    });
    read.map_err(|error| error.to_string())
}

/// An entry of a map.
fn annotation(entry: &[u8]) -> Option<(String, Vec<u8>)> {
    let (mut name, mut bytes) = (String::new(), Vec::new());
    let read = fields(entry, |field, value| match field {
        1 => name = value.text(),
        2 => bytes = value.bytes().to_vec(),
        _ => {}
    });
    read.ok().map(|()| (name, bytes))
}

fn annotations(out: &mut Writer, field: u32, all: &[(String, Vec<u8>)]) {
    for (name, value) in all {
        out.message(field, |out| {
            out.bytes(1, name.as_bytes()).bytes(2, value);
        });
    }
}

/// Makes calls, one after the other, until nobody can ask for one any more.
async fn converse(service: Channel, limit: Duration, inbox: Receiver<Call>) {
    // Whoever calls waits anyway, so this thread may, too.
    while let Ok(Call { method, message, reply }) = inbox.recv() {
        let path = format!("/v2.KeyManagementService/{method}");
        let mut answer = service.unary(&path, &message, limit).await;
        if matches!(answer, Err(RpcError::Broken { .. })) {
            // The service was started anew meanwhile.
            answer = service.unary(&path, &message, limit).await;
        }
        // Whoever has gone needs no answer.
        let _ = reply.send(answer.map(|bytes| bytes.to_vec()));
    }
}
