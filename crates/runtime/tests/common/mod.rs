//! A runtime of its own for each test: directories, cgroup parent, an image with busybox.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::{
    ContainerSpec, ContainerState, ContainerStatus, Exit, Resources, Rootfs, Runtime, RuntimeConfig,
    SandboxSpec,
};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct World {
    pub runtime: Runtime,
    pub dir: tempfile::TempDir,
    pub parent: String,
    pub layer: PathBuf,
}

pub const BUSYBOX: &str = "/bin/busybox";

/// `None` where the machine cannot run containers: not root, or no static busybox.
pub async fn world() -> Option<World> {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !root || !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs root and {BUSYBOX} (Debian: busybox-static)");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let parent = format!("gantry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let layer = dir.path().join("layer");
    make_layer(&layer);
    let runtime = Runtime::open(config(dir.path(), &parent)).await.unwrap();
    Some(World { runtime, dir, parent, layer })
}

pub fn config(dir: &Path, parent: &str) -> RuntimeConfig {
    RuntimeConfig {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        cgroup_parent: parent.to_owned(),
        pod_mounts: vec![dir.join("data/pods")],
        shim: vec![env!("CARGO_BIN_EXE_gantry-shim").into()],
    }
}

fn make_layer(layer: &Path) {
    for sub in ["bin", "etc", "tmp", "home/web"] {
        fs::create_dir_all(layer.join(sub)).unwrap();
    }
    fs::copy(BUSYBOX, layer.join("bin/busybox")).unwrap();
    for name in [
        "sh", "true", "false", "cat", "echo", "sleep", "id", "ls", "mount", "unshare", "touch", "hostname",
        "stty", "head", "tail", "dd", "kill", "ps", "grep", "wc", "chroot", "env", "pwd", "seq", "mknod",
        "stat", "tty", "tr",
    ] {
        symlink("busybox", layer.join("bin").join(name)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n")
        .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:50:web\n").unwrap();
}

impl World {
    pub fn sandbox(&self, id: &str) -> SandboxSpec {
        SandboxSpec {
            id: id.into(),
            name: id.into(),
            hostname: format!("host-{id}"),
            ..SandboxSpec::default()
        }
    }

    pub fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        self.command(name, &["sh", "-c", script])
    }

    pub fn command(&self, name: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            name: name.into(),
            rootfs: Rootfs { layers: vec![self.layer.clone()], ..Rootfs::default() },
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            log_path: Some(self.log(name)),
            resources: Resources { pids_limit: Some(200), ..Resources::default() },
            ..ContainerSpec::default()
        }
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name).join("0.log")
    }

    /// The text of a log without times, one entry a line. An entry that is just being written is none yet.
    pub fn logged(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n").collect()
    }

    /// Starts and waits for the end.
    pub async fn run(&self, sandbox: &str, spec: ContainerSpec) -> Exit {
        let status = self.runtime.start_container(sandbox, spec).await.unwrap();
        self.ended(&status.id).await
    }

    pub async fn ended(&self, id: &str) -> Exit {
        within(self.runtime.wait_container(id)).await.unwrap()
    }

    /// Runs a script in a fresh container and gives what it printed.
    pub async fn output(&self, sandbox: &str, spec: ContainerSpec) -> String {
        let name = spec.name.clone();
        self.run(sandbox, spec).await;
        self.logged(&name)
    }

    pub async fn end(self) {
        for sandbox in self.runtime.sandboxes() {
            within(self.runtime.remove_sandbox(&sandbox.spec.id)).await.unwrap();
        }
        self.runtime.close_down().await.unwrap();
        assert_nothing_left(self.dir.path(), &self.parent);
    }
}

impl Drop for World {
    /// After a failure: what runs on would disturb other tests.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for sandbox in self.runtime.sandboxes() {
            if let Some(pid) = sandbox.shim_pid {
                // Its containers end with it.
                let _ = sys::kill(pid, 9);
            }
            if let Some(netns) = sandbox.netns {
                let _ = sys::detach(&netns);
            }
            let _ = sys::detach(&self.dir.path().join("run/shims").join(&sandbox.spec.id).join("shm"));
        }
        if let Ok(groups) = sys::cgroup::Hierarchies::detect() {
            let group = std::sync::Arc::new(groups).group(&self.parent);
            group.kill_all(Duration::from_secs(5));
            let _ = group.remove(Duration::from_secs(5));
        }
    }
}

pub fn assert_nothing_left(dir: &Path, parent: &str) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).collect();
    assert!(left.is_empty(), "mounts: {left:?}");
    assert_eq!(groups_of(parent), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(dir.join("run")).unwrap().count(), 0, "in run_dir");
    assert_eq!(fs::read_dir(dir.join("data")).unwrap().count(), 0, "in data_dir");
    let shims = processes(|line| line.contains(dir.to_str().unwrap()));
    assert!(shims.is_empty(), "processes: {shims:?}");
}

/// The directories of this cgroup in all hierarchies.
pub fn groups_of(path: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(path));
    all.chain([Path::new("/sys/fs/cgroup").join(path)]).filter(|dir| dir.exists()).collect()
}

/// A number of seconds that no other test sleeps, on this machine, now.
pub fn unusual_seconds() -> u32 {
    1_000_000 + std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Processes that sleep for so many seconds.
pub fn sleepers(seconds: u32) -> Vec<u32> {
    processes(|line| line == format!("sleep {seconds}"))
}

/// Processes whose command line fits.
pub fn processes(fits: impl Fn(&str) -> bool) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fits(
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .unwrap_or_default()
                .replace('\0', " ")
                .trim_end(),
        )
    })
    .collect()
}

pub fn pid_of(status: &ContainerStatus) -> u32 {
    match status.state {
        ContainerState::Running { pid, .. } => pid,
        ref other => panic!("not running: {other:?}"),
    }
}

/// Nothing here takes longer, however busy the machine.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("took longer than a minute")
}

/// Waits until `is` holds: for what has no event.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
