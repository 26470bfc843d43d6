//! The server: UDP and TCP on a few addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::forward::{Forwarder, Upstreams};
use super::message::{Step, Transport, decide, failure};
use super::{Zone, wire};

/// Most TCP connections at once.
const CONNECTIONS: usize = 256;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait after an error that the next call would only repeat.
const BREATH: Duration = Duration::from_millis(50);

/// How the server is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP. Specific addresses, not wildcards: answers must come from where they were sent.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for what is not the cluster's.
    pub upstreams: Upstreams,
    /// Addresses besides `listen` that lead here, such as the DNS Service's: never asked.
    pub aliases: Vec<IpAddr>,
}

/// A failed attempt of the DNS server.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// An address could not be had.
    #[error("cannot listen for DNS on {transport} {addr}")]
    Listen {
        /// UDP or TCP.
        transport: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// A bound server.
pub struct Server {
    shared: Arc<Shared>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// Swaps the names a running server answers with.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

struct Shared {
    zone: RwLock<Arc<Zone>>,
    forwarder: Forwarder,
    turn: AtomicU32,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Binds all addresses. Port 0 takes a free one, the same for UDP and TCP.
    pub async fn bind(config: DnsConfig, zone: Zone) -> Result<Self, DnsError> {
        let failed = |transport, addr| move |source| DnsError::Listen { transport, addr, source };
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for addr in &config.listen {
            let listener = TcpListener::bind(addr).await.map_err(failed("TCP", *addr))?;
            let addr = listener.local_addr().map_err(failed("TCP", *addr))?;
            udp.push(UdpSocket::bind(addr).await.map_err(failed("UDP", addr))?);
            tcp.push(listener);
        }
        let mut ours: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
        ours.extend(&config.aliases);
        let shared = Arc::new(Shared {
            zone: RwLock::new(Arc::new(zone)),
            forwarder: Forwarder::new(config.upstreams, ours),
            turn: AtomicU32::new(0),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        Ok(Self { shared, udp, tcp })
    }

    /// Where it listens.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|s| s.local_addr().ok()).collect()
    }

    /// A handle to swap the names with.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone() }
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(self.shared.clone(), Arc::new(socket)));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(self.shared.clone(), listener));
        }
        stop.cancelled().await;
    }
}

impl ServerHandle {
    /// Answers with `zone` from now on.
    pub fn set_zone(&self, zone: Zone) {
        *self.shared.zone.write() = Arc::new(zone);
    }
}

impl Shared {
    fn decide(&self, request: &[u8], transport: Transport) -> Step {
        let zone = self.zone.read().clone();
        decide(&zone, request, transport, self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Carries out what needs upstream.
    async fn complete(&self, request: &[u8], step: Step) -> Option<Vec<u8>> {
        let step = match step {
            Step::Forward { limit } => match self.forwarder.ask(request).await {
                Some(reply) if reply.len() <= limit => Step::Reply(reply),
                Some(reply) => return wire::cut(&reply),
                None => failure(request),
            },
            Step::Chase(chase) => {
                let upstream = self.forwarder.ask(&chase.question).await;
                chase.finish(upstream)
            }
            step => step,
        };
        match step {
            Step::Reply(reply) => Some(reply),
            _ => None,
        }
    }
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buf = vec![0; 4096];
    loop {
        let (len, peer) = match socket.recv_from(&mut buf).await {
            Ok(received) => received,
            Err(error) => {
                // An answer to somebody who is gone comes back as an error here; it concerns nobody else.
                tracing::debug!(%error, "cannot receive DNS request");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let request = &buf[..len];
        match shared.decide(request, Transport::Udp) {
            Step::Ignore => {}
            Step::Reply(reply) => drop(socket.send_to(&reply, peer).await),
            step => {
                let (shared, socket, request) = (shared.clone(), socket.clone(), request.to_vec());
                tokio::spawn(async move {
                    if let Some(reply) = shared.complete(&request, step).await {
                        let _ = socket.send_to(&reply, peer).await;
                    }
                });
            }
        }
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept DNS connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Beyond the limit a connection is closed; the client asks again.
        let Ok(permit) = shared.connections.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _ = converse(&shared, stream).await;
        });
    }
}

async fn converse(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let len = timeout(IDLE, stream.read_u16()).await??;
        let mut request = vec![0; usize::from(len)];
        timeout(IDLE, stream.read_exact(&mut request)).await??;
        let step = shared.decide(&request, Transport::Tcp);
        let Some(reply) = shared.complete(&request, step).await else { return Ok(()) };
        let Ok(len) = u16::try_from(reply.len()) else { return Ok(()) };
        let mut framed = len.to_be_bytes().to_vec();
        framed.extend_from_slice(&reply);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
