//! Network namespaces for tests: each lives as long as a thread of its own, so nothing is left behind, whatever
//! happens, and the machine's own namespace is never touched.
#![allow(dead_code)]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::VethLink;
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Route};
use tokio::runtime::Runtime;

type Job = Box<dyn FnOnce(&Runtime) + Send>;

pub const WAIT: Duration = Duration::from_secs(5);

/// A network namespace and the thread that lives in it.
pub struct Ns {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ns {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own needs root");
            let tid = nix::unistd::gettid();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            ready.send(tid).expect("creator waits");
            while let Ok(job) = queue.recv() {
                job(&runtime);
            }
        });
        let tid = started.recv().expect("namespace thread started");
        let path = PathBuf::from(format!("/proc/{}/task/{tid}/ns/net", std::process::id()));
        let ns = Self { path, jobs: Some(jobs), thread: Some(thread) };
        ns.block_on(async {
            let conn = Connection::<Route>::new().expect("netlink");
            conn.set_link_up("lo").await.expect("lo up");
        });
        ns
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` on the namespace's thread.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.with(|_| f())
    }

    /// Runs a future to its end on the namespace's thread. What it spawns goes on during later calls.
    pub fn block_on<T: Send>(&self, f: impl Future<Output = T> + Send) -> T {
        self.with(|runtime| runtime.block_on(f))
    }

    fn with<T: Send>(&self, f: impl FnOnce(&Runtime) -> T + Send) -> T {
        // A scope lets the closure borrow: the relay thread waits for the answer before the scope ends.
        let (answer, result) = mpsc::channel();
        let netns = Netns::from_path(&self.path).expect("namespace is alive");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let outcome = netns.run(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                    f(&runtime)
                });
                answer.send(outcome.expect("job in namespace")).expect("caller waits");
            });
        });
        result.recv().expect("job did not panic")
    }

    /// Runs a future in the background on the namespace's own thread, for as long as the namespace lives.
    pub fn background<F, Fut>(&self, f: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let job: Job = Box::new(move |runtime| runtime.block_on(f()));
        self.jobs.as_ref().expect("alive").send(job).expect("thread is alive");
    }

    pub fn netns(&self) -> Netns {
        Netns::from_path(&self.path).expect("namespace is alive")
    }

    /// A TCP server that greets every connection with `name` and then echoes.
    pub fn serve_tcp(&self, port: u16, name: &str) {
        let listener = self.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind"));
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let name = name.clone();
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().map_or_else(|_| "?".to_owned(), |p| p.ip().to_string());
                    let _ = writeln!(stream, "{name} {peer}");
                    let mut buf = [0; 512];
                    while let Ok(n @ 1..) = stream.read(&mut buf) {
                        if stream.write_all(&buf[..n]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// A UDP server that answers every datagram with `name` and the sender's address.
    pub fn serve_udp(&self, port: u16, name: &str) {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind"));
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut buf) {
                let _ = socket.send_to(format!("{name} {}\n", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// Connects and reads the greeting: who answered, and under which address it saw us.
    pub fn ask_tcp(&self, addr: impl Into<IpAddr>, port: u16) -> std::io::Result<Answer> {
        self.open_tcp(addr, port).map(|c| c.answer)
    }

    /// Like `ask_tcp`, and keeps the connection.
    pub fn open_tcp(&self, addr: impl Into<IpAddr>, port: u16) -> std::io::Result<Conversation> {
        let addr = SocketAddr::new(addr.into(), port);
        let mut stream = self.run(|| TcpStream::connect_timeout(&addr, WAIT))?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut line = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 && byte != [b'\n'] {
            line.push(byte[0]);
        }
        Ok(Conversation { answer: Answer::parse(&line), stream })
    }

    pub fn ask_udp(&self, addr: impl Into<IpAddr>, port: u16) -> std::io::Result<Answer> {
        let addr = SocketAddr::new(addr.into(), port);
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(addr)?;
        socket.send(b"?")?;
        let mut buf = [0; 512];
        let n = socket.recv(&mut buf)?;
        Ok(Answer::parse(&buf[..n]))
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    pub from: String,
    pub saw: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut words = text.split_whitespace().map(str::to_owned);
        Self { from: words.next().unwrap_or_default(), saw: words.next().unwrap_or_default() }
    }
}

pub struct Conversation {
    pub answer: Answer,
    stream: TcpStream,
}

impl Conversation {
    /// Says something and waits for its echo.
    pub fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        let mut buf = vec![0; text.len()];
        self.stream.read_exact(&mut buf)?;
        assert_eq!(buf, text.as_bytes());
        Ok(())
    }
}

/// Joins `node` to an outside namespace over 192.0.2.0/24: node .1, outside .2. Outside sends everything there.
pub fn join(node: &Ns, outside: &Ns) {
    let peer = outside.netns();
    node.block_on(async {
        let conn = Connection::<Route>::new().expect("netlink");
        conn.add_link(VethLink::new("out0", "eth0").peer_netns_fd(&peer)).await.expect("veth");
        conn.add_address(Ipv4Address::new("out0", Ipv4Addr::new(192, 0, 2, 1), 24)).await.expect("address");
        conn.set_link_up("out0").await.expect("up");
        conn.add_route(Ipv4Route::default_route().gateway(Ipv4Addr::new(192, 0, 2, 2)).dev("out0"))
            .await
            .expect("route");
    });
    outside.block_on(async {
        let conn = Connection::<Route>::new().expect("netlink");
        conn.add_address(Ipv4Address::new("eth0", Ipv4Addr::new(192, 0, 2, 2), 24)).await.expect("address");
        conn.set_link_up("eth0").await.expect("up");
        conn.add_route(Ipv4Route::default_route().gateway(Ipv4Addr::new(192, 0, 2, 1)).dev("eth0"))
            .await
            .expect("route");
    });
}

/// Waits until `check` says yes.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !check() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::yield_now();
    }
}
