//! A machine with containerd on it: network and mount namespaces, a folder, and what Debian's packages hold.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// A process that ends with its owner.
pub struct Guest(pub Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where containerd and its network plugins keep things wherever they are told to: those places are the machine's own.
const PREPARE: &str = "for place in /run/containerd /var/lib/cni; do
    mkdir -p $place && mount -t tmpfs tmpfs $place || exit 1
done
echo ready && exec sleep infinity";

pub struct Machine {
    folder: tempfile::TempDir,
    name: String,
    /// Keeps the mount namespace.
    holder: Guest,
}

fn run(command: &mut Command) -> Said {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    said(output)
}

fn said(output: std::process::Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

fn must(command: &mut Command) -> String {
    let said = run(command);
    assert!(said.ok, "{command:?} failed:\n{}{}", said.out, said.err);
    said.out
}

fn tool(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools").join(path);
    path.canonicalize()
        .unwrap_or_else(|_| panic!("{} is missing; install it first (make tools)", path.display()))
}

fn gantry() -> PathBuf {
    // The test binary lies in `<target>/<triple>/<profile>/deps`.
    let own = std::env::current_exe().expect("own path");
    let path = own.ancestors().nth(2).expect("profile folder").join("gantry");
    assert!(path.exists(), "{} is missing; build it first (make e2e)", path.display());
    path
}

impl Machine {
    pub fn new() -> Self {
        let name = format!("gantry-cri-{}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &name]));
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", PREPARE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut ready = [0; 5];
        holder.stdout.take().expect("piped").read_exact(&mut ready).expect("a mount namespace");
        let machine = Self { folder, name, holder: Guest(holder) };
        must(machine.inside("ip").args(["link", "set", "lo", "up"]));
        machine.build("busybox:1", "CMD [\"/bin/busybox\", \"sh\"]");
        machine.build("localhost/pause:1", "ENTRYPOINT [\"/bin/busybox\", \"sleep\", \"2147483647\"]");
        machine.build("private:1", "COPY Dockerfile /made-for-this\nCMD [\"/bin/busybox\", \"true\"]");
        machine.configure();
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A command in the machine's namespaces.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.0.id())).arg(program);
        // How full the machine's disk is, is no matter of these tests.
        command.env("GANTRY_EVICTION_HARD", "memory.available<100Mi");
        command.env("GANTRY_IMAGE_GC_HIGH_THRESHOLD", "100");
        command
    }

    /// An image of one static program, out of our own builder, as an archive.
    fn build(&self, tag: &str, last: &str) {
        let context = self.path("context");
        std::fs::create_dir_all(&context).expect("writable folder");
        std::fs::copy("/bin/busybox", context.join("busybox")).expect("busybox is installed (make packages)");
        let dockerfile = format!("FROM scratch\nCOPY busybox /bin/busybox\n{last}\n");
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("writable folder");
        let store =
            [format!("--data-dir={}", self.text("images")), format!("--run-dir={}", self.text("build"))];
        must(self.inside(gantry()).arg("build").args(&store).args(["-t", tag]).arg(&context));
        let archive =
            self.path(&format!("{}.tar", tag.trim_start_matches("localhost/").trim_end_matches(":1")));
        let mut export = self.inside(gantry());
        export.args(["image", "export", &store[0], "-o"]).arg(archive).arg(tag);
        // Registries show images in their own form.
        must(if tag == "private:1" { export.arg("--oci") } else { &mut export });
    }

    fn configure(&self) {
        let folder = self.folder.path().display();
        let plugins = tool("containerd/usr/lib/cni");
        let config = format!(
            r#"version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  # Machines without CAP_SYS_RESOURCE cannot do more.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "/usr/sbin/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"#,
            plugins = plugins.display()
        );
        std::fs::write(self.path("containerd.toml"), config).expect("writable folder");
        std::fs::create_dir_all(self.path("cni")).expect("writable folder");
    }

    /// Gives the runtime its network.
    pub fn add_network(&self) {
        let network = format!(
            r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "ptp", "ipam": {{
                "type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.42.0.0/24"}}]],
                "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}"#,
            self.text("leases")
        );
        std::fs::write(self.path("cni/10-pods.conflist"), network).expect("writable folder");
    }

    /// Starts containerd, which has the images.
    pub fn containerd(&self) -> Guest {
        let log = std::fs::File::options().create(true).append(true).open(self.path("containerd.log"));
        let mut command = self.inside(tool("containerd/usr/bin/containerd"));
        command.arg("--config").arg(self.path("containerd.toml"));
        let guest = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("writable folder"));
        let guest = Guest(guest.spawn().expect("containerd starts"));
        self.wait_for("containerd to answer", || self.ctr(&["version"]).ok);
        for archive in ["busybox.tar", "pause.tar"] {
            let imported = self.ctr(&["images", "import", &self.text(archive)]);
            assert!(imported.ok, "{imported:?}");
        }
        guest
    }

    pub fn endpoint(&self) -> String {
        format!("--container-runtime-endpoint=unix://{}", self.text("containerd.sock"))
    }

    pub fn ctr(&self, args: &[&str]) -> Said {
        let mut command = self.inside(tool("containerd/usr/bin/ctr"));
        run(command.arg("-a").arg(self.path("containerd.sock")).args(["-n", "k8s.io"]).args(args))
    }

    fn flags(&self) -> Vec<String> {
        vec![
            format!("--data-dir={}", self.text("data")),
            format!("--run-dir={}", self.text("run")),
            format!("--log-dir={}", self.text("logs")),
            format!("--cgroup-parent={}", self.name),
            "--node-name=node-1".into(),
            "--node-ip=127.0.0.1".into(),
        ]
    }

    /// `gantry COMMAND …` for this machine.
    pub fn gantry(&self, args: &[&str]) -> Said {
        run(self.inside(gantry()).args(&args[..1]).args(self.flags()).args(&args[1..]))
    }

    pub fn does(&self, args: &[&str]) {
        let said = self.gantry(args);
        assert!(said.ok, "gantry {args:?}: {said:?}\n{}", self.logs());
    }

    /// `gantry agent …`, as long as it is wanted.
    pub fn agent(&self, args: &[&str]) -> Guest {
        let log = std::fs::File::create(self.path("agent.log")).expect("writable folder");
        let mut command = self.inside(gantry());
        command.arg("agent").args(self.flags()).args(args).stdin(Stdio::null()).stdout(Stdio::null());
        Guest(command.stderr(log).spawn().expect("the agent starts"))
    }

    /// `gantry agent …` of a node with folders of its own, as long as it is wanted.
    pub fn agent_beside(&self, flags: &[String]) -> Guest {
        let log = std::fs::File::options().create(true).append(true).open(self.path("agent.log"));
        let mut command = self.inside(gantry());
        command.arg("agent").args(flags).stdin(Stdio::null()).stdout(Stdio::null());
        command.args([&format!("--cgroup-parent={}", self.name), "--node-ip=127.0.0.1"]);
        Guest(command.stderr(log.expect("writable folder")).spawn().expect("the agent starts"))
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.inside(tool("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.path("data/admin.kubeconfig")).args(args);
        command
    }

    pub fn kubectl(&self, args: &[&str]) -> Said {
        run(&mut self.kubectl_command(args))
    }

    pub fn must(&self, args: &[&str]) -> String {
        let said = self.kubectl(args);
        assert!(said.ok, "kubectl {args:?}: {said:?}\n{}", self.logs());
        said.out
    }

    /// A command that is told something.
    pub fn told(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.kubectl_command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it listens");
        said(child.wait_with_output().expect("its end"))
    }

    pub fn apply(&self, manifest: &str) {
        let made = self.told(&["apply", "-f", "-"], manifest);
        assert!(made.ok, "{made:?}\n{manifest}");
    }

    pub fn get(&self, what: &[&str]) -> Value {
        let text = self.must(&[&["get", "-o", "json"], what].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// A registry with an image that nobody has, which only whoever knows the password can pull.
    pub fn registry(&self) -> Guest {
        let script = include_str!("../e2e/registry.py");
        let mut command = self.inside("python3");
        command.args(["-c", script]).arg(self.path("private.tar"));
        let mut guest = Guest(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3"));
        let mut ready = [0; 6];
        guest.0.stdout.take().expect("piped").read_exact(&mut ready).expect("a line");
        assert_eq!(&ready, b"ready\n");
        guest
    }

    /// A program on a terminal that types `input`; what it shows.
    pub fn on_terminal(&self, command: &Command, input: &str) -> String {
        let script = "import os,pty,sys\n\
            pid, fd = pty.fork()\n\
            if pid == 0: os.execv(sys.argv[2], sys.argv[2:])\n\
            os.write(fd, sys.argv[1].encode())\n\
            while True:\n\
            \x20try: data = os.read(fd, 4096)\n\
            \x20except OSError: break\n\
            \x20if not data: break\n\
            \x20os.write(1, data)\n\
            os.waitpid(pid, 0)";
        let program = Path::new("/usr/bin").join(command.get_program());
        let mut python = Command::new("python3");
        run(python.args(["-c", script, input]).arg(program).args(command.get_args())).out
    }

    /// Waits until a pod is ready.
    pub fn ready(&self, pod: &str) {
        self.must(&["wait", &format!("pod/{pod}"), "--for=condition=Ready", "--timeout=60s"]);
    }

    /// What a URL answers inside; nothing if it does not.
    pub fn fetch(&self, url: &str) -> String {
        let script =
            "import sys,urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode())";
        run(self.inside("python3").args(["-c", script, url])).out
    }

    pub fn wait_for(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_at_most(Duration::from_secs(60), what, holds);
    }

    pub fn wait_at_most(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.logs());
        }
    }

    /// Kills the server as a power cut would, and starts it again.
    pub fn kill_and_restart(&self, settings: &[&str]) {
        let pid = std::fs::read_to_string(self.path("run/server.pid")).expect("a pid file");
        must(Command::new("kill").args(["-9", pid.trim()]));
        let command = format!("/proc/{}/cmdline", pid.trim());
        self.wait_for("the server to die", || std::fs::read(&command).unwrap_or_default().is_empty());
        self.does(&[&["up", &self.endpoint()], settings].concat());
    }

    /// The last lines of everybody's log.
    pub fn logs(&self) -> String {
        let of = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        ["data/server.log", "agent.log", "containerd.log"].map(of).concat()
    }

    /// Nothing but files is left of the pods.
    pub fn is_clean(&self) {
        let mine = self.folder.path().display().to_string();
        let shims = || {
            let processes = std::fs::read_dir("/proc").expect("procfs").flatten();
            let commands = processes.map(|p| std::fs::read(p.path().join("cmdline")).unwrap_or_default());
            let commands = commands.map(|c| String::from_utf8_lossy(&c).replace('\0', " "));
            commands.filter(|c| c.contains("containerd-shim") && c.contains(&mine)).collect::<Vec<_>>()
        };
        self.wait_for("the shims to end", || shims().is_empty());
        let mounts = must(self.inside("cat").arg("/proc/self/mountinfo"));
        let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&mine)).collect();
        assert_eq!(left, Vec::<&str>::new());
        let links = must(self.inside("ip").args(["-o", "link"]));
        assert!(links.lines().all(|l| l.contains(" lo:")), "{links}");
        let cgroups = run(Command::new("find").args(["/sys/fs/cgroup", "-name", &self.name]));
        assert_eq!(cgroups.out, "");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What a failed test has left: everything that names the folder, or is in the machine's cgroup.
        let mine = self.folder.path().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let own = text(read("cmdline")).contains(&mine) || text(read("cgroup")).contains(&self.name);
            if let Some(pid) = entry.file_name().to_str().filter(|_| own) {
                run(Command::new("kill").args(["-9", pid]));
            }
        }
        run(Command::new("ip").args(["netns", "delete", &self.name]));
        let deadline = Instant::now() + Duration::from_secs(5);
        let find = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path"];
        let pattern = format!("*/{}*", self.name);
        while !run(Command::new("find").args(find).args([&pattern, "-exec", "rmdir", "{}", ";"]))
            .err
            .is_empty()
            && Instant::now() < deadline
        {}
    }
}
