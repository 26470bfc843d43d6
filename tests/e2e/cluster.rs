//! Starting and stopping a cluster, and talking to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// How full the machine's disk is, be it by what was built for these tests, is no matter of theirs: no pod is evicted and
/// no image removed because of it.
pub const UNHURRIED: [(&str, &str); 2] =
    [("GANTRY_EVICTION_HARD", "memory.available<100Mi"), ("GANTRY_IMAGE_GC_HIGH_THRESHOLD", "100")];

pub struct Cluster {
    folder: tempfile::TempDir,
    netns: String,
    gantry: PathBuf,
    kubectl: PathBuf,
    settings: Vec<String>,
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is inside the workspace").to_owned()
}

fn run(command: &mut Command) -> Said {
    said(command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}")))
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

impl Cluster {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One whose server has more settings, each time it is started.
    pub fn start_with(settings: &[&str]) -> Self {
        // The test binary lies in `<target>/<triple>/<profile>/deps`.
        let own = std::env::current_exe().expect("own path");
        let gantry = own.ancestors().nth(2).expect("profile folder").join("gantry");
        assert!(gantry.exists(), "{} is missing; build it first (make e2e)", gantry.display());
        let kubectl = root().join("target/tools/bin/kubectl");
        assert!(kubectl.exists(), "{} is missing; install it first (make tools)", kubectl.display());
        let netns = format!("gantry-e2e-{}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &netns]));
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = Self { folder, netns, gantry, kubectl, settings };
        must(cluster.inside("ip").args(["link", "set", "lo", "up"]));
        let up = cluster.gantry(&["up"]);
        assert!(up.ok, "gantry up failed:\n{}{}", up.out, up.err);
        cluster.build_busybox();
        cluster
    }

    /// An image of one static program, out of our own builder: nothing can be pulled here.
    fn build_busybox(&self) {
        let context = self.folder("busybox");
        std::fs::copy("/bin/busybox", context.join("busybox")).expect("busybox is installed (make packages)");
        std::fs::write(context.join("motd"), "welcome\n").expect("writable folder");
        let dockerfile =
            "FROM scratch\nCOPY busybox /bin/busybox\nCOPY motd /etc/motd\nCMD [\"/bin/busybox\", \"sh\"]\n";
        self.build_in(&context, "busybox:1", dockerfile);
    }

    /// Builds an image upon others.
    pub fn build(&self, tag: &str, dockerfile: &str) {
        self.build_in(&self.folder(&tag.replace(':', "-")), tag, dockerfile);
    }

    fn build_in(&self, context: &Path, tag: &str, dockerfile: &str) {
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("writable folder");
        let flag = |name: &str| format!("--{name}-dir={}", self.folder.path().join(name).display());
        must(self.inside(&self.gantry).args(["build", &flag("data"), &flag("run"), "-t", tag]).arg(context));
    }

    /// What a URL answers from inside the cluster's network namespace; nothing if it does not.
    pub fn fetch(&self, url: &str) -> String {
        let script =
            "import sys,urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode())";
        run(self.inside("python3").args(["-c", script, url])).out
    }

    /// A Python script that runs beside the cluster.
    pub fn python(&self, script: &str, args: &[String]) -> std::process::Child {
        let mut command = self.inside("python3");
        command.args(["-c", script]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
    }

    /// How a server answers somebody who shows no certificate, and does not look at the server's.
    pub fn fetch_unsafely(&self, url: &str) -> String {
        let script = "import ssl,sys,urllib.request as u; c=ssl._create_unverified_context()\n\
            try: print(u.urlopen(sys.argv[1], timeout=5, context=c).read().decode())\n\
            except Exception as e: print(e)";
        run(self.inside("python3").args(["-c", script, url])).out
    }

    /// Waits until something holds, for a minute at most.
    pub fn wait_for(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_at_most(Duration::from_secs(60), what, holds);
    }

    /// Waits until something holds.
    pub fn wait_at_most(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}");
        }
    }

    /// A command that runs in the cluster's network namespace.
    ///
    /// `nsenter`, not `ip netns exec`: the latter also replaces `/sys`, and the cgroups with it.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program).envs(UNHURRIED);
        command
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let own = vec![
            format!("--data-dir={}", path("data")),
            format!("--run-dir={}", path("run")),
            format!("--log-dir={}", path("logs")),
            format!("--cdi-spec-dirs={}", path("cdi")),
            format!("--cgroup-parent={}", self.netns),
            "--node-name=node-1".into(),
            "--node-ip=127.0.0.1".into(),
            format!("--pod-manifest-path={}", path("manifests")),
            // By which other nodes reach the API.
            "--tls-san=10.99.0.1".into(),
            "--shutdown-grace-period=40s".into(),
            "--shutdown-grace-period-critical-pods=20s".into(),
            // They need not be there.
            "--runtime-handler=runc=/usr/sbin/runc,crun=/usr/bin/crun".into(),
            "--allowed-unsafe-sysctls=kernel.msg*".into(),
        ];
        own.into_iter().chain(self.settings.iter().cloned()).collect()
    }

    /// Another program that was built with gantry.
    pub fn program(&self, name: &str) -> PathBuf {
        self.gantry.with_file_name(name)
    }

    /// The cgroup of all that the cluster runs.
    pub fn cgroup(&self) -> &str {
        &self.netns
    }

    /// A folder for one test.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("writable folder");
        path
    }

    /// Gives the cluster's machine one more address.
    pub fn add_address(&self, address: &str) {
        must(self.inside("ip").args(["address", "replace", &format!("{address}/32"), "dev", "lo"]));
    }

    /// `gantry COMMAND …` for this cluster.
    pub fn gantry(&self, args: &[&str]) -> Said {
        run(self.inside(&self.gantry).args(&args[..1]).args(self.flags()).args(&args[1..]))
    }

    /// `kubectl …`, to be started.
    pub fn kubectl_command(&self, namespace: &str, args: &[&str]) -> Command {
        let mut command = self.inside(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.args(["--namespace", namespace]).args(args);
        command
    }

    /// A client that finds the cluster by its environment, to be started.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.inside(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("data/admin.kubeconfig")
    }

    /// `kubectl …`, whatever it says.
    pub fn try_kubectl(&self, namespace: &str, args: &[&str]) -> Said {
        run(&mut self.kubectl_command(namespace, args))
    }

    /// `kubectl …`, which must succeed.
    pub fn kubectl(&self, namespace: &str, args: &[&str]) -> String {
        must(&mut self.kubectl_command(namespace, args))
    }

    /// `kubectl … -f -` with a manifest.
    pub fn with_manifest(&self, namespace: &str, args: &[&str], manifest: &str) -> Said {
        self.told(self.kubectl_command(namespace, args).args(["-f", "-"]), manifest)
    }

    /// A command that is told something.
    pub fn told(&self, command: &mut Command, input: &str) -> Said {
        use std::io::Write as _;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let mut stdin = child.stdin.take().expect("it is piped");
        std::thread::scope(|scope| {
            // One that ends without listening has said why.
            scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
            said(child.wait_with_output().expect("the command's end"))
        })
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, namespace: &str, what: &[&str]) -> Value {
        let text = self.kubectl(namespace, &[&["get", "-o", "json"], what].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Makes a namespace for one test and waits until pods can be made in it.
    pub fn namespace(&self, name: &str) {
        self.kubectl("default", &["create", "namespace", name]);
    }

    pub fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("run/server.pid")).expect("a pid file")
    }

    /// The names of the pods' folders of logs.
    pub fn log_folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("logs")).expect("a folder of logs").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Kills the server as a power cut would, and starts it again.
    pub fn kill_and_restart(&self) {
        self.kill_and_restart_with(&[]);
    }

    /// The same, with more settings for the new one.
    pub fn kill_and_restart_with(&self, settings: &[&str]) {
        self.kill();
        let up = self.gantry(&[&["up"], settings].concat());
        assert!(up.ok, "gantry up after kill -9 failed:\n{}{}", up.out, up.err);
    }

    /// Kills the server as a power cut would.
    pub fn kill(&self) {
        let pid = self.pid();
        must(Command::new("kill").args(["-9", pid.trim()]));
        // A signal takes its time; a process that is ending has no command line.
        let command = format!("/proc/{}/cmdline", pid.trim());
        self.wait_for("the server to die", || std::fs::read(&command).unwrap_or_default().is_empty());
    }

    /// What a failed test leaves behind, before the next ones change it.
    /// What a failure may come from, and not more: outputs are cut where they are long.
    pub fn show_state(&self) {
        let unwell = "--field-selector=status.phase!=Succeeded,status.phase!=Running";
        let status = "jsonpath={range .items[*]}{.metadata.name} {.status}{\"\\n\"}{end}";
        for what in [
            &["get", "nodes,pods", "-A", "-o", "wide"][..],
            &["get", "pods", "-A", unwell, "-o", status],
            &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
        ] {
            let said = self.try_kubectl("default", what).out;
            let lines: Vec<&str> = said.lines().collect();
            println!("--- kubectl {}, its last lines", what.join(" "));
            lines[lines.len().saturating_sub(25)..].iter().for_each(|line| println!("{line}"));
        }
    }

    pub fn show_log(&self) {
        let log = std::fs::read_to_string(self.folder.path().join("data/server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- the server's log, its last lines");
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = self.gantry(&["down", "--purge"]);
        if !down.ok {
            eprintln!("gantry down failed:\n{}{}", down.out, down.err);
        }
        run(Command::new("ip").args(["netns", "delete", &self.netns]));
    }
}
