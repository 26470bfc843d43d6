//! A place to break things in.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// A process that ends with its owner.
pub struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Yard {
    folder: tempfile::TempDir,
    name: String,
    /// Keeps the mount namespace.
    holder: Guest,
}

fn run(command: &mut Command) -> Said {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

fn must(command: &mut Command) -> String {
    let said = run(command);
    assert!(said.ok, "{command:?} failed:\n{}{}", said.out, said.err);
    said.out
}

fn program(name: &str) -> PathBuf {
    // The test binary lies in `<target>/<triple>/<profile>/deps`.
    let own = std::env::current_exe().expect("own path");
    let path = match name {
        "gantry" => own.ancestors().nth(2).expect("profile folder").join("gantry"),
        "etcd" => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/etcd/usr/bin/etcd"),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin").join(name),
    };
    assert!(path.exists(), "{} is missing; make it first (make e2e)", path.display());
    path
}

impl Yard {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gantry-ref-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        must(Command::new("ip").args(["netns", "add", &name]));
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("writable folder");
        // A bind mount of the data directory onto itself can change its ways without anybody else noticing.
        let script = "mount --bind \"$0\" \"$0\" && echo ready && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", script])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut ready = [0; 5];
        holder.stdout.take().expect("piped").read_exact(&mut ready).expect("a mount namespace");
        let yard = Self { folder, name, holder: Guest(holder) };
        must(yard.inside("ip").args(["link", "set", "lo", "up"]));
        yard
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the yard's namespaces.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.0.id())).arg(program);
        command
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            format!("--data-dir={}", path("data")),
            format!("--run-dir={}", path("run")),
            format!("--log-dir={}", path("logs")),
            format!("--cgroup-parent={}", self.name),
            "--node-name=node-1".into(),
            "--node-ip=127.0.0.1".into(),
        ]
    }

    /// `gantry COMMAND …` with the yard's directories.
    pub fn gantry(&self, args: &[&str]) -> Said {
        let known = matches!(args[0], "up" | "down" | "server" | "status");
        let flags = if known { self.flags() } else { Vec::new() };
        run(self.inside(program("gantry")).arg(args[0]).args(flags).args(&args[1..]))
    }

    /// The same without any rights.
    pub fn as_nobody(&self, args: &[&str]) -> Said {
        let copy = self.path("gantry");
        if !copy.exists() {
            std::fs::copy(program("gantry"), &copy).expect("writable folder");
            must(Command::new("chmod").arg("755").arg(self.folder.path()).arg(&copy));
        }
        let mut command = self.inside("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(copy);
        run(command.arg(args[0]).args(self.flags()).args(&args[1..]))
    }

    pub fn refuses(&self, args: &[&str], begin: &str) {
        self.is_refusal(&self.gantry(args), begin);
    }

    /// An exit code, and one sentence that begins like this.
    pub fn is_refusal(&self, said: &Said, begin: &str) {
        assert!(!said.ok, "should have been refused with {begin:?}: {said:?}");
        let error = said.err.trim_end();
        assert!(error.starts_with(begin), "should begin with {begin:?}: {error}\n{}", self.log());
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    /// Nothing but files is left.
    pub fn is_clean(&self) {
        let mine = self.folder.path().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
            let path = entry.path();
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            assert!(!command.contains("gantry") || !command.contains(&mine), "still there: {command}");
        }
        let mounts = must(self.inside("cat").arg("/proc/self/mountinfo"));
        let left = mounts.lines().filter(|l| l.contains(&mine) && !l.contains(&format!("{mine}/data ")));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new());
        let links = must(self.inside("ip").args(["-o", "link"]));
        assert!(links.lines().all(|l| l.contains(" lo:")), "{links}");
        let cgroups = run(Command::new("find").args(["/sys/fs/cgroup", "-name", &self.name]));
        assert_eq!(cgroups.out, "");
        let pid = self.path("run/server.pid");
        assert!(!pid.exists(), "{} says that a server runs", pid.display());
    }

    /// Somebody else who has a port.
    pub fn listen(&self, port: u16) -> Guest {
        let child =
            self.inside("busybox").args(["nc", "-l", "-p", &port.to_string()]).stdin(Stdio::piped()).spawn();
        let guest = Guest(child.expect("busybox is installed (make packages)"));
        let shown = format!(":{port:04X} ");
        self.wait_for("the port to be taken", || {
            let taken = |file| must(self.inside("cat").arg(file)).contains(&shown);
            taken("/proc/net/tcp") || taken("/proc/net/tcp6")
        });
        guest
    }

    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        let log = must(
            self.inside("sh")
                .args(["-c", "tail -n 20 \"$0\" 2>/dev/null || true"])
                .arg(self.path("data/server.log")),
        );
        format!("--- the server's log\n{log}")
    }

    /// A control plane alone: enough for everything that is kept.
    pub fn up(&self, args: &[&str]) -> Said {
        self.gantry(&[&["up", "--disable-agent"], args].concat())
    }

    pub fn stop(&self) {
        let down = self.gantry(&["down"]);
        assert!(down.ok, "{down:?}");
    }

    /// Runs one of our programs in the yard, to its end.
    pub fn command(&self, name: &str, args: &[String]) -> Said {
        run(self.inside(program(name)).args(args))
    }

    /// A program of somebody else's that runs in the yard as long as it is wanted.
    pub fn guest(&self, name: &str, args: &[&str]) -> Guest {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("writable folder");
        let mut command = self.inside(program(name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Guest(command.spawn().unwrap_or_else(|e| panic!("cannot run {name}: {e}")))
    }

    /// What a URL answers; nothing if it does not.
    pub fn fetch(&self, url: &str) -> String {
        let script =
            "import sys,urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode())";
        run(self.inside("python3").args(["-c", script, url])).out
    }

    pub fn copy(&self, from: &Path, to: &Path) {
        std::fs::create_dir_all(to.parent().expect("a folder in the yard")).expect("writable folder");
        must(Command::new("cp").arg("-a").arg(from).arg(to));
    }

    /// Ends the server of a pid file as a power cut does.
    pub fn kill_by(&self, file: &Path) {
        let pid = std::fs::read_to_string(file).expect("a pid file");
        must(Command::new("kill").args(["-9", pid.trim()]));
    }

    pub fn kill(&self) {
        self.kill_by(&self.path("run/server.pid"));
        self.wait_for("the server to be gone", || !self.gantry(&["status"]).out.contains("server "));
    }

    pub fn kubectl(&self, args: &[&str]) -> Said {
        let mut command = self.inside(program("kubectl"));
        run(command.arg("--kubeconfig").arg(self.path("data/admin.kubeconfig")).args(args))
    }

    pub fn create(&self, name: &str) -> Said {
        self.kubectl(&["create", "configmap", name, "--from-literal=a=b"])
    }

    /// A cluster with something in it, stopped; the names of what is in it.
    pub fn begin(&self) -> Vec<String> {
        let up = self.up(&[]);
        assert!(up.ok, "{up:?}\n{}", self.log());
        let names: Vec<String> = (0..5).map(|n| format!("kept-{n}")).collect();
        for name in &names {
            let said = self.create(name);
            assert!(said.ok, "{said:?}");
        }
        self.stop();
        names
    }

    /// The names of the config maps, from a server that runs.
    pub fn listed(&self) -> Vec<String> {
        let said = self.kubectl(&["get", "configmaps", "-o", "name"]);
        assert!(said.ok, "{said:?}");
        said.out.lines().map(|line| line.trim_start_matches("configmap/").to_owned()).collect()
    }

    /// The same from a server that is started for it.
    pub fn listed_after(&self) -> Vec<String> {
        let up = self.up(&[]);
        assert!(up.ok, "{up:?}\n{}", self.log());
        let names = self.listed();
        self.stop();
        names
    }

    pub fn has_all(&self, names: &[String]) {
        let listed = self.listed_after();
        assert!(names.iter().all(|name| listed.contains(name)), "{names:?} in {listed:?}");
        self.is_clean();
    }

    /// A whole cluster, node and all, comes up and goes down.
    pub fn works(&self) {
        let up = self.gantry(&["up"]);
        assert!(up.ok, "{up:?}\n{}", self.log());
        self.stop();
        self.is_clean();
    }

    pub fn remount(&self, how: &str) {
        must(self.inside("mount").args(["-o", &format!("remount,bind,{how}")]).arg(self.path("data")));
    }

    pub fn small_disk(&self, size: &str) {
        let data = self.path("data");
        must(self.inside("umount").arg(&data));
        must(self.inside("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&data));
    }

    pub fn fill_disk(&self) {
        let said = run(self
            .inside("dd")
            .args(["if=/dev/zero", "bs=64k"])
            .arg(format!("of={}/filler", self.path("data").display())));
        assert!(said.err.contains("No space left"), "{said:?}");
    }

    pub fn free_disk(&self) {
        must(self.inside("rm").arg(self.path("data/filler")));
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = self.gantry(&["down"]);
        run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
