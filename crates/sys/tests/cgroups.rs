//! Cgroups on the real kernel, whichever version it has (`scripts/vm-test.sh` runs this on one with v2). Needs root and
//! busybox-static.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sys::cgroup::{Group, Hierarchies, Limits};

const BUSYBOX: &str = "/bin/busybox";

/// A group that goes with its owner.
struct Own {
    all: Arc<Hierarchies>,
    group: Group,
}

impl Own {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root =
            fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        if !root || !std::path::Path::new(BUSYBOX).exists() {
            eprintln!("skipped: needs root and {BUSYBOX} (Debian: busybox-static)");
            return None;
        }
        let all = Arc::new(Hierarchies::detect().unwrap());
        let name = format!("gantry-sys-{}-{}/pod", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = all.group(&name);
        group.create().unwrap();
        Some(Self { all, group })
    }

    /// A shell in the group.
    fn shell(&self, script: &str) -> Child {
        let files: Vec<String> = self
            .all
            .resource()
            .iter()
            .map(|h| h.root.join(self.group.path()).join("cgroup.procs"))
            .map(|path: PathBuf| format!("echo 0 >'{}' || exit 99", path.display()))
            .collect();
        let script = format!("{}\n{script}", files.join("\n"));
        let mut command = Command::new(BUSYBOX);
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn run(&self, script: &str) -> ExitStatus {
        self.shell(script).wait().unwrap()
    }

    fn until(&self, what: &str, is: impl Fn(&Group) -> bool) {
        let begin = Instant::now();
        while !is(&self.group) {
            assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let parent = self.all.group(self.group.path().trim_end_matches("/pod"));
        parent.kill_all(Duration::from_secs(10));
        let removed = parent.remove(Duration::from_secs(10));
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

#[test]
fn processes_are_limited_and_counted() {
    let Some(own) = Own::new() else { return };
    own.group.limit(&Limits { pids: Some(4), ..Limits::default() }).unwrap();
    // The shell and three more are as many as there may be.
    let mut child =
        own.shell("for i in 1 2 3; do busybox sleep 1000 & done; busybox sleep 1000 || exit 7; exit 0");
    assert!(!child.wait().unwrap().success(), "the fourth fork must fail");
    own.until("three to be left", |group| group.usage().unwrap_or_default().pids == 3);
    assert_eq!(own.group.pids().len(), 3);
    assert!(own.group.kill_all(Duration::from_secs(10)));
    own.until("nobody to be left", |group| group.usage().unwrap_or_default().pids == 0);
}

#[test]
fn memory_runs_out_and_is_noticed() {
    let Some(own) = Own::new() else { return };
    own.group.limit(&Limits { memory: Some(8 << 20), ..Limits::default() }).unwrap();
    own.group.end_together().unwrap();
    assert_eq!(own.group.oom_kills(), 0);
    let status = own.run("exec busybox tail /dev/zero");
    assert!(!status.success(), "{status}");
    own.until("the kill to be counted", |group| group.oom_kills() > 0);
    // With more of it the same goes through.
    own.group.limit(&Limits { memory: Some(64 << 20), ..Limits::default() }).unwrap();
    let status = own.run("x=$(busybox head -c 4000000 /dev/zero | busybox tr '\\0' a); [ ${#x} = 4000000 ]");
    assert!(status.success(), "{status}");
}

#[test]
fn time_is_limited_and_counted() {
    let Some(own) = Own::new() else { return };
    let limits = Limits {
        cpu_shares: Some(2048),
        cpu_quota_us: Some(20_000),
        cpu_period_us: Some(100_000),
        ..Limits::default()
    };
    own.group.limit(&limits).unwrap();
    let begin = Instant::now();
    let mut busy = own.shell("while :; do :; done");
    own.until("a tenth of a second to be used", |group| {
        group.usage().unwrap_or_default().cpu_ns > 100_000_000
    });
    // A fifth of the time at most, give or take a period at either end.
    let elapsed = begin.elapsed();
    assert!(elapsed > Duration::from_millis(300), "100 ms at a fifth of the speed took only {elapsed:?}");
    own.group.limit(&Limits { cpu_quota_us: Some(-1), ..Limits::default() }).unwrap();
    let used = own.group.usage().unwrap_or_default().cpu_ns;
    own.until("more to be used", |group| group.usage().unwrap_or_default().cpu_ns > used + 100_000_000);
    assert!(own.group.kill_all(Duration::from_secs(10)));
    busy.wait().unwrap();
}

#[test]
fn whole_trees_are_killed_and_removed() {
    let Some(own) = Own::new() else { return };
    own.group.open_to_children().unwrap();
    let inner = Own { all: own.all.clone(), group: own.group.child("inner") };
    inner.group.create().unwrap();
    let limits = Limits { pids: Some(50), memory: Some(64 << 20), ..Limits::default() };
    inner.group.limit(&limits).unwrap();
    let mut child = inner.shell("busybox sleep 1000 & busybox sh -c 'busybox sleep 1000; :' & wait");
    inner.until("all to be there", |group| group.pids().len() >= 4);
    let usage = own.group.usage().unwrap_or_default();
    assert!(usage.memory > 0, "what is below counts: {usage:?}");
    assert!(own.group.kill_all(Duration::from_secs(10)));
    assert!(!child.wait().unwrap().success());
    own.group.remove(Duration::from_secs(10)).unwrap();
    assert!(own.all.resource().iter().all(|h| !h.root.join(own.group.path()).exists()));
    // Its owner is the outer one, who has removed it.
    std::mem::forget(inner);
}

/// As in a container, where the root of the tree that one sees has processes in it.
#[test]
fn a_root_with_processes_is_left() {
    let Some(own) = Own::new() else { return };
    if !own.all.is_v2() {
        return;
    }
    let mut child = own.shell("busybox sleep 1000 & wait");
    own.until("both to be there", |group| group.pids().len() == 2);
    let root = own.all.resource()[0].root.join(own.group.path());
    let mounts = format!("26 25 0:23 / {} rw - cgroup2 cgroup2 rw", root.display());
    let seen = Arc::new(Hierarchies::from_mountinfo(&mounts).unwrap());
    let inner = seen.group("gantry/shims");
    inner.create().unwrap();
    inner.limit(&Limits { memory: Some(64 << 20), pids: Some(9), ..Limits::default() }).unwrap();
    assert_eq!((own.group.pids().len(), seen.group("init").pids().len()), (0, 2));
    assert!(own.group.kill_all(Duration::from_secs(10)));
    assert!(!child.wait().unwrap().success());
}

#[test]
fn devices_are_limited() {
    let Some(own) = Own::new() else { return };
    own.group.limit_devices(&sys::cgroup::default_rules()).unwrap();
    assert!(own.run("echo x >/dev/null && busybox head -c 1 /dev/zero >/dev/null").success());
    // The kernel's messages are no default device.
    assert!(!own.run("busybox head -c 1 /dev/kmsg >/dev/null").success());
}
