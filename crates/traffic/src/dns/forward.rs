//! Questions that are not the cluster's go upstream.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::cache::Cache;
use super::{resolv, wire};

/// How long one server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list is gone through.
const ROUNDS: usize = 2;
/// Most questions on their way at once. A circle of servers that ask each other ends here too.
const IN_FLIGHT: usize = 512;
/// How often the file is looked at.
const RELOAD: Duration = Duration::from_secs(5);
const LARGEST: usize = 65_535;

/// Where the upstream servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// A file like `/etc/resolv.conf`, read again when it changes.
    File(PathBuf),
    /// These.
    Fixed(Vec<SocketAddr>),
}

/// Asks upstream servers, one after the other, and remembers their answers for a while.
pub struct Forwarder {
    upstreams: Upstreams,
    /// Addresses that lead back to us, which are never asked.
    ours: Vec<IpAddr>,
    loaded: Mutex<Loaded>,
    cache: Cache,
    permits: Semaphore,
    random: RandomState,
}

#[derive(Default)]
struct Loaded {
    servers: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

impl Forwarder {
    /// Asks `upstreams`, but never the addresses in `ours`.
    pub fn new(upstreams: Upstreams, ours: Vec<IpAddr>) -> Self {
        Self {
            upstreams,
            ours,
            loaded: Mutex::default(),
            cache: Cache::default(),
            permits: Semaphore::new(IN_FLIGHT),
            random: RandomState::new(),
        }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let path = match &self.upstreams {
            Upstreams::Fixed(servers) => {
                return servers.iter().copied().filter(|s| !self.ours.contains(&s.ip())).collect();
            }
            Upstreams::File(path) => path,
        };
        let mut loaded = self.loaded.lock();
        if loaded.checked.is_none_or(|at| at.elapsed() >= RELOAD) {
            loaded.checked = Some(Instant::now());
            let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
            if modified != loaded.modified || loaded.servers.is_empty() {
                match resolv::read(path, &self.ours) {
                    Ok(servers) => (loaded.servers, loaded.modified) = (servers, modified),
                    Err(error) => {
                        tracing::warn!(%error, path = %path.display(), "cannot read upstream DNS servers")
                    }
                }
            }
        }
        loaded.servers.clone()
    }

    /// Upstream's answer to `request`, a whole message with one question; none if nobody answers.
    pub async fn ask(&self, request: &[u8]) -> Option<Vec<u8>> {
        if let Some(reply) = self.cache.get(request) {
            return Some(reply);
        }
        let _permit = self.permits.try_acquire().ok()?;
        let servers = self.servers();
        let mut failed = None;
        for server in (0..ROUNDS).flat_map(|_| &servers) {
            match self.ask_one(*server, request).await {
                // SERVFAIL, NOTIMP, REFUSED: somebody else may know.
                Ok(reply) if matches!(wire::code(&reply), 2 | 4 | 5) => failed = Some(reply),
                Ok(reply) => {
                    self.cache.put(request, &reply);
                    return Some(reply);
                }
                Err(error) => tracing::debug!(%error, %server, "upstream DNS server did not answer"),
            }
        }
        failed
    }

    async fn ask_one(&self, server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut outgoing = request.to_vec();
        let id = (self.random.hash_one((Instant::now(), server, request)) as u16).to_be_bytes();
        outgoing.get_mut(..2).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&id);
        let mut reply = timeout(PATIENCE, udp(server, &outgoing)).await??;
        if wire::is_truncated(&reply)
            && let Ok(Ok(whole)) = timeout(PATIENCE, tcp(server, &outgoing)).await
        {
            reply = whole;
        }
        reply[..2].copy_from_slice(&request[..2]);
        Ok(reply)
    }
}

async fn udp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A socket for each question: its port is one more thing a forger would have to guess.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut reply = vec![0; 4096];
    loop {
        let len = socket.recv(&mut reply).await?;
        if wire::answers(&reply[..len], request) {
            reply.truncate(len);
            return Ok(reply);
        }
    }
}

async fn tcp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(request);
    stream.write_all(&framed).await?;
    let len = usize::from(stream.read_u16().await?).min(LARGEST);
    let mut reply = vec![0; len];
    stream.read_exact(&mut reply).await?;
    if wire::answers(&reply, request) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}
