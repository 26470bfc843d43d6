//! Real etcd clusters, each in network namespaces of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grpc::{Channel, Target, Writer};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use store::{EtcdConfig, Expect, Op, Options, Store, Template, Terms};

static COUNTER: AtomicUsize = AtomicUsize::new(0);

/// How long a test waits for what should come soon.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Unpacked by `make tools`.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/etcd/usr/bin/etcd");

/// Some members on a bridge, which the test's threads are at, too.
pub struct Cluster {
    name: String,
    folder: tempfile::TempDir,
    members: Vec<Option<Child>>,
    extra: Vec<String>,
    /// Spoken at the clients' port.
    scheme: &'static str,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {why}");
}

impl Cluster {
    /// Starts that many members and waits until they have a leader.
    pub fn start(members: usize, extra: &[&str]) -> Self {
        let extra = extra.iter().map(|&e| e.to_owned()).collect();
        Self::start_in(tempfile::tempdir().expect("a folder"), "http", members, extra)
    }

    pub fn start_in(
        folder: tempfile::TempDir,
        scheme: &'static str,
        members: usize,
        extra: Vec<String>,
    ) -> Self {
        assert!(
            std::path::Path::new(PROGRAM).exists(),
            "{PROGRAM} is missing; install it first (make tools)"
        );
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gte{}-{number}", std::process::id());
        ip(&format!("netns add {name}-hub"));
        let members = (0..members).map(|_| None).collect();
        let mut cluster = Self { name, folder, members, extra, scheme };
        let hub = cluster.namespace("hub");
        ip(&format!("-n {hub} link set lo up"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} address add 10.9.0.254/24 dev br0"));
        ip(&format!("-n {hub} link set br0 up"));
        for member in 0..cluster.members.len() {
            let namespace = cluster.namespace(member);
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {hub} link add m{member} type veth peer name eth0 netns {namespace}"));
            ip(&format!("-n {hub} link set m{member} master br0 up"));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} address add {}/24 dev eth0", address(member)));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        for member in 0..cluster.members.len() {
            cluster.revive(member);
        }
        cluster
    }

    fn namespace(&self, which: impl std::fmt::Display) -> String {
        format!("{}-{which}", self.name)
    }

    /// A runtime whose threads are at the bridge.
    pub fn runtime(&self) -> tokio::runtime::Runtime {
        let path = format!("/run/netns/{}", self.namespace("hub"));
        let file = std::sync::Arc::new(std::fs::File::open(path).expect("the bridge's namespace"));
        let join = move || setns(&file, CloneFlags::CLONE_NEWNET).expect("joining the namespace");
        join();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(join)
            .enable_all()
            .build()
            .expect("a runtime")
    }

    /// Runs something where a member is, whatever its cable.
    pub fn run_at<F: Future>(&self, member: usize, what: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        let path = format!("/run/netns/{}", self.namespace(member));
        let file = std::fs::File::open(path).expect("the member's namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("joining the namespace");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(what())
            });
            thread.join().expect("the thread ends well")
        })
    }

    /// Runs a test against it.
    pub fn run<F: Future>(&self, test: F) -> F::Output {
        self.runtime().block_on(test)
    }

    pub fn endpoint(&self, member: usize) -> String {
        format!("{}://{}:2379", self.scheme, address(member))
    }

    pub fn config(&self) -> EtcdConfig {
        let endpoints = (0..self.members.len()).map(|m| self.endpoint(m).parse().expect("an endpoint"));
        EtcdConfig { patience: PATIENCE, compact_every: None, ..EtcdConfig::new(endpoints.collect()) }
    }

    pub async fn store(&self) -> Store {
        Store::connect(self.config(), Options::default()).await.expect("a store")
    }

    /// Starts a member that does not run, with the data it had.
    pub fn revive(&mut self, member: usize) {
        let own = address(member);
        let scheme = self.scheme;
        let peers = (0..self.members.len()).map(|m| format!("m{m}=http://{}:2380", address(m)));
        let folder: PathBuf = self.folder.path().join(format!("m{member}"));
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace(member)))
            .arg(PROGRAM)
            .args(["--heartbeat-interval=50", "--election-timeout=500", "--logger=zap"])
            .arg(format!("--name=m{member}"))
            .arg(format!("--data-dir={}", folder.display()))
            .arg(format!("--listen-client-urls={scheme}://{own}:2379"))
            .arg(format!("--advertise-client-urls={scheme}://{own}:2379"))
            .arg(format!("--listen-peer-urls=http://{own}:2380"))
            .arg(format!("--initial-advertise-peer-urls=http://{own}:2380"))
            .arg(format!("--initial-cluster={}", peers.collect::<Vec<_>>().join(",")))
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"));
        self.members[member] = Some(command.spawn().expect("etcd runs"));
    }

    pub fn is_running(&self, member: usize) -> bool {
        self.members[member].is_some()
    }

    /// Ends a member as a power cut does.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, member: usize, signal: Signal) {
        if let Some(child) = &self.members[member] {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// Makes a member so slow that it does nothing.
    pub fn freeze(&self, member: usize) {
        self.signal(member, Signal::SIGSTOP);
    }

    pub fn thaw(&self, member: usize) {
        self.signal(member, Signal::SIGCONT);
    }

    /// Pulls a member's cable, or puts it back.
    pub fn cable(&self, member: usize, plugged: bool) {
        let hub = self.namespace("hub");
        ip(&format!("-n {hub} link set m{member} {}", if plugged { "up" } else { "down" }));
    }

    /// Cuts a member off from the others, but not from us.
    pub fn isolate(&self, member: usize, cut: bool) {
        for other in (0..self.members.len()).filter(|&m| m != member) {
            let verb = if cut { "add" } else { "del" };
            let own = self.namespace(member);
            ip(&format!("-n {own} route {verb} blackhole {}/32", address(other)));
        }
    }

    /// The member that leads, by what the members say.
    pub async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            for member in (0..self.members.len()).filter(|&m| self.is_running(m)) {
                let answer = self.call(member, "/etcdserverpb.Maintenance/Status", &[]).await;
                let Ok(answer) = answer else { continue };
                let (mut own, mut leader) = (0, 0);
                let _ = grpc::Reader::new(&answer).fields::<grpc::WireError>(|field, value| {
                    match field {
                        1 => grpc::Reader::new(value.bytes()).fields::<grpc::WireError>(|f, v| {
                            if f == 2 {
                                own = v.number();
                            }
                            Ok(())
                        })?,
                        4 => leader = value.number(),
                        _ => {}
                    }
                    Ok(())
                });
                if own != 0 && own == leader {
                    return member;
                }
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no leader; see {}",
                self.folder.path().display()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Calls a member directly.
    pub async fn call(
        &self,
        member: usize,
        path: &str,
        message: &[u8],
    ) -> Result<bytes::Bytes, grpc::RpcError> {
        let target = Target::Tcp { host: address(member), port: 2379, tls: None };
        Channel::new(target).unary(path, message, Duration::from_secs(10)).await
    }

    /// Writes or removes a key directly.
    pub async fn put(&self, key: &str, value: Option<&str>) {
        let mut out = Writer::new();
        out.bytes(1, key.as_bytes()).bytes(2, value.unwrap_or_default().as_bytes());
        let path = if value.is_some() { "Put" } else { "DeleteRange" };
        self.call(0, &format!("/etcdserverpb.KV/{path}"), &out.finish()).await.expect("a write");
    }

    /// The value of a key as it is stored.
    pub async fn raw(&self, key: &str) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(1, key.as_bytes());
        let answer = self.call(0, "/etcdserverpb.KV/Range", &out.finish()).await.expect("a read");
        let mut found = Vec::new();
        let _ = grpc::Reader::new(&answer).fields::<grpc::WireError>(|field, value| {
            if field == 2 {
                grpc::Reader::new(value.bytes()).fields::<grpc::WireError>(|f, v| {
                    if f == 5 {
                        found = v.bytes().to_vec();
                    }
                    Ok(())
                })?;
            }
            Ok(())
        });
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(member)]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.namespace("hub")]).status();
    }
}

/// The member that an answer about alarms speaks of.
pub fn member_of(alarms: &[u8]) -> u64 {
    let mut member = 0;
    let _ = grpc::Reader::new(alarms).fields::<grpc::WireError>(|field, value| {
        if field == 2 {
            grpc::Reader::new(value.bytes()).fields::<grpc::WireError>(|f, v| {
                if f == 1 {
                    member = v.number();
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    member
}

pub fn address(member: usize) -> String {
    format!("10.9.0.{}", member + 1)
}

/// A write whose value ends with the revision, and is the field `value` without.
pub fn put(key: &str, value: &str, expect: Expect) -> Op {
    let (labels, fields) = (vec![("key".into(), key.into())], vec![("value".into(), value.into())]);
    let terms = Terms { labels, fields, ..Terms::default() };
    let value = Template { bytes: format!("{value}@").into_bytes(), at: value.len() + 1 };
    Op::Put { table: "things".into(), key: key.into(), value, terms, expect }
}

pub fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { table: "things".into(), key: key.into(), value: None, expect }
}

/// The keys of what has a value, by the index.
pub fn valued(store: &Store, value: &str) -> Vec<String> {
    let snapshot = store.snapshot("things");
    let found = snapshot.scan_field("value", value, "", None).expect("an index");
    found.map(|record| record.key.to_string()).collect()
}

pub fn text(record: &store::Record) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
