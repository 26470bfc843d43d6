//! A `gantry cri` for a test, and what tests ask it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::cri::{self as api, Call, Message, runtime};
use grpc::{Channel, Code, RpcError, Target};

use crate::cluster::Cluster;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A `gantry cri` in a network namespace of its own, which ends with the test, and all of it with it.
pub(super) struct Daemon<'a> {
    cluster: &'a Cluster,
    pub(super) netns: String,
    pub(super) folder: PathBuf,
    child: Child,
    pub(super) channel: Channel,
    pub(super) threads: tokio::runtime::Runtime,
}

pub(super) fn inside(netns: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg(program);
    command
}

pub(super) fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl<'a> Daemon<'a> {
    pub(super) fn start(cluster: &'a Cluster, name: &str) -> Self {
        let netns = format!("{}-{name}", cluster.cgroup());
        must(Command::new("ip").args(["netns", "add", &netns]));
        must(Command::new("ip").args(["-n", &netns, "link", "set", "lo", "up"]));
        let folder = cluster.folder(name);
        let child = Self::spawn(cluster, &netns, &folder);
        let channel = Channel::new(Target::Unix(folder.join("run/cri.sock")));
        let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let daemon = Self { cluster, netns, folder, child, channel, threads };
        let context = daemon.folder.join("image");
        std::fs::create_dir_all(&context).expect("writable folder");
        std::fs::copy("/bin/busybox", context.join("busybox")).expect("busybox is installed (make packages)");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nENV FROM_IMAGE=yes\nUSER 7\n";
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("writable folder");
        let mut build = inside(&daemon.netns, cluster.program("gantry"));
        must(build.arg("build").args(&daemon.flags()[..3]).args(["-t", "busybox:1"]).arg(&context));
        daemon
    }

    fn flags_in(netns: &str, folder: &std::path::Path) -> Vec<String> {
        vec![
            format!("--data-dir={}", folder.join("data").display()),
            format!("--run-dir={}", folder.join("run").display()),
            format!("--cgroup-parent={netns}"),
            "--bridge=cri0".to_owned(),
        ]
    }

    fn flags(&self) -> Vec<String> {
        Self::flags_in(&self.netns, &self.folder)
    }

    fn spawn(cluster: &Cluster, netns: &str, folder: &std::path::Path) -> Child {
        use std::io::BufRead as _;
        let mut command = inside(netns, cluster.program("gantry"));
        command.arg("cri").args(Self::flags_in(netns, folder)).arg("--pod-cidr=10.77.0.0/24");
        command.arg(format!("--listen=unix://{}", folder.join("run/cri.sock").display()));
        let log = std::fs::File::create(folder.join("log")).expect("writable folder");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("gantry is there");
        let mut first = String::new();
        let out = child.stdout.take().expect("its output is a pipe");
        std::io::BufReader::new(out).read_line(&mut first).expect("text");
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert_eq!(first, "ready\n", "{}", log());
        child
    }

    pub(super) fn kill_and_restart(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it is ours");
        self.channel.hang_up();
        self.child = Self::spawn(self.cluster, &self.netns, &self.folder);
    }

    pub(super) fn try_ask<Q: Message, A: Message>(
        &self,
        call: Call<Q, A>,
        question: &Q,
    ) -> Result<A, RpcError> {
        self.threads.block_on(call.ask(&self.channel, question, LIMIT))
    }

    pub(super) fn ask<Q: Message, A: Message>(&self, call: Call<Q, A>, question: &Q) -> A {
        let name = call.name;
        self.try_ask(call, question).unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.log()))
    }

    /// What a call is refused with.
    pub(super) fn refusal<Q: Message, A: Message>(&self, call: Call<Q, A>, question: &Q) -> (Code, String) {
        let name = call.name;
        match self.try_ask(call, question) {
            Err(RpcError::Status { code, message, .. }) => (code, message),
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name} is not refused"),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(super) fn run_sandbox(&self, config: &api::PodSandboxConfig) -> String {
        let request =
            api::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.ask(runtime::RUN_POD_SANDBOX, &request).pod_sandbox_id
    }

    pub(super) fn create(&self, sandbox: &str, config: api::ContainerConfig) -> String {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        self.ask(runtime::CREATE_CONTAINER, &request).container_id
    }

    pub(super) fn start_container(&self, id: &str) {
        self.ask(runtime::START_CONTAINER, &api::StartContainerRequest { container_id: id.to_owned() });
    }

    pub(super) fn status(&self, id: &str) -> api::ContainerStatus {
        let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.ask(runtime::CONTAINER_STATUS, &request).status.expect("a status")
    }

    pub(super) fn sandbox_status(&self, id: &str) -> api::PodSandboxStatus {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        self.ask(runtime::POD_SANDBOX_STATUS, &request).status.expect("a status")
    }

    pub(super) fn exec(&self, id: &str, script: &str) -> api::ExecSyncResponse {
        self.ask(runtime::EXEC_SYNC, &exec_sync(id, script, 30))
    }

    pub(super) fn logged(&self, path: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join("logs").join(path)).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once(' ')).map(|(_, line)| line.to_owned() + "\n").collect()
    }

    /// Stops and removes a sandbox, twice: nothing minds.
    pub(super) fn remove(&self, sandbox: &str) {
        let id = || sandbox.to_owned();
        for _ in 0..2 {
            self.ask(runtime::STOP_POD_SANDBOX, &api::StopPodSandboxRequest { pod_sandbox_id: id() });
        }
        for _ in 0..2 {
            self.ask(runtime::REMOVE_POD_SANDBOX, &api::RemovePodSandboxRequest { pod_sandbox_id: id() });
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let down =
            inside(&self.netns, self.cluster.program("gantry")).arg("down").args(self.flags()).output();
        match down {
            Ok(down) if down.status.success() => {}
            other => eprintln!("gantry cri does not go down: {other:?}"),
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.netns]).status();
    }
}

pub(super) fn exec_sync(id: &str, script: &str, timeout: i64) -> api::ExecSyncRequest {
    let cmd = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).into();
    api::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout }
}

pub(super) fn labels(app: &str) -> BTreeMap<String, String> {
    [("app".to_owned(), app.to_owned())].into()
}

/// As a kubelet asks for a pod of its own network, each container with its own processes.
pub(super) fn sandbox(daemon: &Daemon, name: &str) -> api::PodSandboxConfig {
    let own = api::NamespaceOption { pid: api::NamespaceMode::Container, ..Default::default() };
    api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: daemon.folder.join("logs").display().to_string(),
        dns_config: Some(api::DnsConfig { servers: vec!["10.9.9.9".to_owned()], ..Default::default() }),
        labels: labels(name),
        annotations: [("note".to_owned(), "kept".to_owned())].into(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}/kubepods/poduid-{name}", daemon.netns),
            security_context: Some(api::LinuxSandboxSecurityContext {
                namespace_options: Some(own),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn container(name: &str, script: &str) -> api::ContainerConfig {
    api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(api::ImageSpec { image: "busybox:1".to_owned(), ..Default::default() }),
        command: ["/bin/busybox", "sh", "-c"].map(str::to_owned).into(),
        args: vec![script.to_owned()],
        labels: labels(name),
        log_path: format!("{name}/0.log"),
        ..Default::default()
    }
}
