//! How far mounts travel and who may write them, on the real kernel. Needs root and busybox-static.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, until, within, world};
use runtime::{ContainerStatus, Mount, Propagation};

/// A folder that is a mount which others can share, until it is dropped.
struct Shared(PathBuf);

impl Shared {
    fn new(w: &World, name: &str) -> Self {
        let folder = w.dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        mount(&["--bind"], &folder, &folder);
        mount(&["--make-shared"], Path::new(""), &folder);
        Self(folder)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // With all that is mounted below it.
        let _ = Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}

fn mount(options: &[&str], source: &Path, place: &Path) {
    let mut command = Command::new("mount");
    command.args(options);
    if !source.as_os_str().is_empty() {
        command.arg(source);
    }
    assert!(command.arg(place).status().unwrap().success(), "{command:?}");
}

fn tmpfs(place: &Path) {
    fs::create_dir_all(place).unwrap();
    mount(&["-t", "tmpfs"], Path::new("none"), place);
}

fn on(source: &Path, propagation: Propagation) -> Mount {
    Mount { source: source.to_owned(), destination: "/v".into(), propagation, ..Mount::default() }
}

async fn says(w: &World, run: &ContainerStatus, script: &str) -> String {
    let argv = ["sh", "-c", script].map(str::to_owned).into();
    let output = within(w.runtime.exec_sync(&run.id, argv, None)).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn mounts_travel_as_far_as_they_may() {
    let Some(w) = world().await else { return };
    let shared = Shared::new(&w, "shared");
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut runs = Vec::new();
    let kinds = [
        ("none", Propagation::None),
        ("in", Propagation::HostToContainer),
        ("both", Propagation::Bidirectional),
    ];
    for (name, propagation) in kinds {
        let mut spec = w.command(name, &["sleep", "1000"]);
        spec.mounts = vec![on(&shared.0, propagation)];
        spec.privileged = true;
        runs.push(w.runtime.start_container("a", spec).await.unwrap());
    }
    let [none, inward, both] = runs.as_slice() else { unreachable!() };
    tmpfs(&shared.0.join("host"));
    fs::write(shared.0.join("host/file"), "").unwrap();
    let seen = "ls /v/host";
    let all = [says(&w, none, seen).await, says(&w, inward, seen).await, says(&w, both, seen).await];
    assert_eq!(all, ["", "file\n", "file\n"]);
    let make = |name: &str| {
        format!(
            "busybox mkdir -p /v/{name} && mount -t tmpfs none /v/{name} && touch /v/{name}/x && ls /v/{name}"
        )
    };
    assert_eq!(says(&w, inward, &make("one")).await, "x\n");
    assert_eq!(says(&w, both, &make("two")).await, "x\n");
    assert!(!shared.0.join("one/x").exists() && shared.0.join("two/x").exists());
    assert_eq!(says(&w, inward, "ls /v/two").await, "x\n");
    drop(shared);
    w.end().await;
}

#[tokio::test]
async fn read_only_may_mean_all_the_way_down() {
    let Some(w) = world().await else { return };
    let shared = Shared::new(&w, "volume");
    tmpfs(&shared.0.join("nested"));
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let script =
        "touch /v/x 2>/dev/null && echo outer; touch /v/nested/x 2>/dev/null && echo nested; echo end";
    for (name, recursive, want) in [("flat", false, "F nested\nstdout F end\n"), ("deep", true, "F end\n")] {
        let mut spec = w.shell(name, script);
        spec.mounts =
            vec![Mount { readonly: true, recursive_readonly: recursive, ..on(&shared.0, Propagation::None) }];
        assert_eq!(w.output("a", spec).await, format!("stdout {want}"));
    }
    drop(shared);
    w.end().await;
}

#[tokio::test]
async fn nothing_is_hidden_if_nothing_shall_be() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let script = "wc -c < /proc/interrupts; mount | grep -c ' /proc/sys '";
    let masked = w.output("a", w.shell("masked", script)).await;
    assert!(masked.starts_with("stdout F 0\nstdout F 1\n"), "{masked}");
    let mut spec = w.shell("open", script);
    (spec.masked_paths, spec.readonly_paths) = (Some(Vec::new()), Some(Vec::new()));
    let open = w.output("a", spec).await;
    assert!(!open.starts_with("stdout F 0\n") && open.ends_with("F 0\n"), "{open}");
    w.end().await;
}

#[tokio::test]
async fn the_sandbox_limits_its_containers_together() {
    let Some(w) = world().await else { return };
    let mut spec = w.sandbox("a");
    spec.resources.memory_limit = Some(64 << 20);
    w.runtime.run_sandbox(spec).await.unwrap();
    let groups = std::sync::Arc::new(sys::cgroup::Hierarchies::detect().unwrap());
    let limit = || {
        let path = if groups.is_v2() { "memory.max" } else { "memory/memory.limit_in_bytes" };
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let place = Path::new("/sys/fs/cgroup").join(folder).join(&w.parent).join("sandbox-a").join(file);
        fs::read_to_string(place).unwrap().trim().to_owned()
    };
    assert_eq!(limit(), (64 << 20).to_string());
    let more = runtime::Resources { memory_limit: Some(128 << 20), ..runtime::Resources::default() };
    w.runtime.limit_sandbox("a", &more).await.unwrap();
    until("the new limit", || limit() == (128 << 20).to_string()).await;
    w.end().await;
}
