//! What outlives what: agents and shims that are killed. Needs root and busybox-static.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use common::{config, groups_of, pid_of, until, within, world};
use runtime::{ContainerEvent, ContainerState, PidMode, Runtime, SandboxState};

#[tokio::test]
async fn containers_outlive_the_agent() {
    let Some(mut w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let long = w
        .runtime
        .start_container("a", w.shell("long", "echo begin; read x; echo end; sleep 1000"))
        .await
        .unwrap();
    let mut spec = w.shell("short", "sleep 0.2; exit 8");
    spec.labels.insert("k".into(), "v".into());
    let short = w.runtime.start_container("a", spec).await.unwrap();
    // The old one goes with everything that it knows.
    let old = std::mem::replace(
        &mut w.runtime,
        Runtime::open(config(&w.dir.path().join("other"), &format!("{}/other", w.parent))).await.unwrap(),
    );
    drop(old);
    let exit_file = w.dir.path().join(format!("run/shims/a/c/{}/exit.json", short.id));
    until("the end of the short one", || exit_file.exists()).await;
    w.runtime.close_down().await.unwrap();
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    let _ = fs::remove_dir_all(w.dir.path().join("other"));

    let found = w.runtime.containers("a");
    assert_eq!(found.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["long", "short"]);
    assert_eq!(found[0], long);
    let ContainerState::Exited(exit) = &found[1].state else { panic!("{:?}", found[1]) };
    assert_eq!((exit.code, found[1].labels.get("k").map(String::as_str)), (8, Some("v")));
    // And it can be worked with.
    let output = w.runtime.exec_sync(&long.id, vec!["echo".into(), "hi".into()], None);
    assert_eq!(within(output).await.unwrap().stdout, b"hi\n");
    within(w.runtime.stop_container(&long.id, Duration::ZERO, None)).await.unwrap();
    w.runtime.remove_container(&long.id).await.unwrap();
    w.end().await;
}

/// The agent of the next test; does nothing unless told to by the environment.
#[tokio::test]
async fn agent_that_will_be_killed() {
    let Ok(dir) = std::env::var("GANTRY_TEST_AGENT") else { return };
    let (dir, parent) = dir.split_once(' ').unwrap();
    let runtime = Runtime::open(config(dir.as_ref(), parent)).await.unwrap();
    runtime.run_sandbox(runtime::SandboxSpec { id: "a".into(), ..Default::default() }).await.unwrap();
    let spec = runtime::ContainerSpec {
        name: "main".into(),
        rootfs: runtime::Rootfs { layers: vec![format!("{dir}/layer").into()], ..Default::default() },
        args: ["sh", "-c", "until [ -e /go ]; do sleep 0.01; done; exit 21"].map(String::from).into(),
        ..Default::default()
    };
    runtime.start_container("a", spec).await.unwrap();
    fs::write(format!("{dir}/up"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn containers_outlive_an_agent_that_is_killed() {
    let Some(mut w) = world().await else { return };
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "agent_that_will_be_killed"])
        .env("GANTRY_TEST_AGENT", format!("{} {}", w.dir.path().display(), w.parent))
        .stdout(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    until("the agent", || w.dir.path().join("up").exists()).await;
    // As a service manager would: the whole group, not only the process.
    std::process::Command::new("kill").args(["-9", "--", &format!("-{}", agent.id())]).status().unwrap();
    agent.wait().unwrap();
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    let found = w.runtime.containers("a");
    let [main] = found.as_slice() else { panic!("{found:?}") };
    assert!(matches!(main.state, ContainerState::Running { .. }));
    assert!(within(w.runtime.exec_sync(&main.id, vec!["touch".into(), "/go".into()], None)).await.is_ok());
    assert_eq!(w.ended(&main.id).await.code, 21);
    w.end().await;
}

#[tokio::test]
async fn a_killed_shim_is_noticed_and_nothing_of_it_runs_on() {
    let Some(mut w) = world().await else { return };
    for (id, pid) in [("own", PidMode::PerContainer), ("shared", PidMode::Shared), ("host", PidMode::Host)] {
        let mut events = w.runtime.events();
        let mut spec = w.sandbox(id);
        spec.pid = pid;
        let sandbox = w.runtime.run_sandbox(spec).await.unwrap();
        let name = format!("main-{id}");
        let mark = common::unusual_seconds();
        let script = format!("sleep {mark} & sleep {mark}");
        let main = w.runtime.start_container(id, w.shell(&name, &script)).await.unwrap();
        let sleepers = || common::sleepers(mark);
        until("both processes", || sleepers().len() == 2).await;
        std::process::Command::new("kill").args(["-9", &sandbox.shim_pid.to_string()]).status().unwrap();
        let exit = w.ended(&main.id).await;
        assert_eq!((exit.code, exit.lost.is_some()), (137, true));
        assert!(sleepers().is_empty());
        assert!(!std::path::Path::new(&format!("/proc/{}/root/bin", pid_of(&main))).exists());
        let lost = async {
            loop {
                if let ContainerEvent::SandboxLost { sandbox_id } = events.recv().await.unwrap() {
                    return sandbox_id;
                }
            }
        };
        assert_eq!(within(lost).await, id);
        assert!(w.runtime.start_container(id, w.command("more", &["true"])).await.is_err());
    }
    // A new agent sees the same.
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    assert_eq!(w.runtime.sandboxes().len(), 3);
    for sandbox in w.runtime.sandboxes() {
        assert_eq!((sandbox.state, sandbox.shim_pid), (SandboxState::Stopped, None));
        let containers = w.runtime.containers(&sandbox.spec.id);
        assert!(matches!(&containers[0].state, ContainerState::Exited(exit) if exit.code == 137));
        w.runtime.remove_container(&containers[0].id).await.unwrap();
    }
    w.end().await;
}

#[tokio::test]
async fn a_shim_killed_while_nobody_looked() {
    let Some(mut w) = world().await else { return };
    let sandbox = w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let main = w.runtime.start_container("a", w.command("main", &["sleep", "1000"])).await.unwrap();
    let pid = pid_of(&main);
    let other = config(&w.dir.path().join("other"), &format!("{}/other", w.parent));
    let old = std::mem::replace(&mut w.runtime, Runtime::open(other).await.unwrap());
    w.runtime.close_down().await.unwrap();
    drop(old);
    std::process::Command::new("kill").args(["-9", &sandbox.shim_pid.to_string()]).status().unwrap();
    until("the container's end", || !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists()).await;
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    let _ = fs::remove_dir_all(w.dir.path().join("other"));
    let ContainerState::Exited(exit) = w.runtime.container(&main.id).unwrap().state else { panic!() };
    assert!(exit.lost.is_some());
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_sandbox_ends_all_and_keeps_what_is_known() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let one = w.runtime.start_container("a", w.command("one", &["sleep", "1000"])).await.unwrap();
    w.run("a", w.shell("two", "exit 4")).await;
    within(w.runtime.stop_sandbox("a")).await.unwrap();
    within(w.runtime.stop_sandbox("a")).await.unwrap();
    assert_eq!(w.runtime.sandboxes()[0].state, SandboxState::Stopped);
    let ContainerState::Exited(exit) = w.runtime.container(&one.id).unwrap().state else { panic!() };
    assert_eq!((exit.code, exit.lost), (137, None));
    assert!(matches!(&w.runtime.containers("a")[1].state, ContainerState::Exited(exit) if exit.code == 4));
    assert_eq!(fs::read_dir(w.dir.path().join("run/netns")).unwrap().count(), 0);
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    let Some(w) = world().await else { return };
    let w = std::sync::Arc::new(w);
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let w = w.clone();
            tokio::spawn(async move {
                let id = format!("pod{number}");
                w.runtime.run_sandbox(w.sandbox(&id)).await.unwrap();
                let exit = w.run(&id, w.shell(&id, &format!("echo {number}; exit {number}"))).await;
                assert_eq!(exit.code, number);
                assert_eq!(w.logged(&id), format!("stdout F {number}\n"));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(!groups_of(&w.parent).is_empty());
    std::sync::Arc::into_inner(w).unwrap().end().await;
}

/// Describes a container as an agent does before it asks for it: the one of a sandbox that runs, once more.
fn describe_again(w: &common::World, of: &str) -> String {
    let (c, id) = (w.dir.path().join("run/shims/a/c"), "f".repeat(64));
    let launch = fs::read_to_string(c.join(of).join("launch.json")).unwrap();
    fs::create_dir(c.join(&id)).unwrap();
    fs::create_dir_all(w.dir.path().join("data/containers").join(&id)).unwrap();
    let launch = launch.replace(of, &id).replace("\"main\"", "\"second\"");
    fs::write(c.join(&id).join("launch.json"), launch).unwrap();
    id
}

#[tokio::test]
async fn what_was_never_asked_for_is_no_run() {
    let Some(mut w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let main = w.runtime.start_container("a", w.command("main", &["sleep", "1000"])).await.unwrap();
    // An agent that was killed after it had described a container, and before it could ask for it.
    let id = describe_again(&w, &main.id);
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    let names: Vec<String> = w.runtime.containers("a").into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["main"]);
    assert!(!w.dir.path().join("run/shims/a/c").join(&id).exists());
    // So it can be started.
    assert_eq!(w.run("a", w.shell("second", "exit 5")).await.code, 5);
    w.end().await;
}

/// Sends a signal to a sandbox's shim.
fn signal_shim(runtime: &Runtime, signal: &str) {
    let pid = runtime.sandboxes()[0].shim_pid.unwrap().to_string();
    assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[tokio::test]
async fn what_a_lost_shim_was_asked_to_start_has_run() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    // It has been asked, and nobody will know what came of it.
    signal_shim(&w.runtime, "-STOP");
    let (runtime, spec) = (w.runtime.clone(), w.command("main", &["sleep", "1000"]));
    let starting = tokio::spawn(async move { runtime.start_container("a", spec).await });
    let c = w.dir.path().join("run/shims/a/c");
    let asked = || fs::read_dir(&c).unwrap().flatten().any(|e| e.path().join("launch.json").exists());
    until("the request", asked).await;
    signal_shim(&w.runtime, "-KILL");
    within(starting).await.unwrap().unwrap_err();
    let found = w.runtime.containers("a");
    let [main] = found.as_slice() else { panic!("{found:?}") };
    let ContainerState::Exited(exit) = &main.state else { panic!("{main:?}") };
    assert_eq!((exit.code, exit.lost.is_some()), (137, true));
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_outlives_its_agent_is_told_to_the_next() {
    use std::io::Write;
    let Some(mut w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let main = w.runtime.start_container("a", w.command("main", &["sleep", "1000"])).await.unwrap();
    let shim = w.runtime.sandboxes()[0].shim_pid.unwrap().to_string();
    signal_shim(&w.runtime, "-STOP");
    // The agent that asks is gone before the shim has heard it.
    let id = describe_again(&w, &main.id);
    let start =
        format!(r#"{{"n":1,"m":{{"start":{{"id":"{id}","cgroup":"{}/sandbox-a/{id}"}}}}}}"#, w.parent);
    let mut first = std::os::unix::net::UnixStream::connect(w.dir.path().join("run/shims/a/s")).unwrap();
    first.write_all(&u32::try_from(start.len()).unwrap().to_le_bytes()).unwrap();
    first.write_all(start.as_bytes()).unwrap();
    drop(first);
    let (config, dir) = (config(w.dir.path(), &w.parent), w.dir.path().to_owned());
    let opening = tokio::spawn(Runtime::open(config));
    let heard = || fs::read_dir(dir.join("run/shims/a/c").join(&id)).unwrap().count() > 1;
    assert!(!heard());
    std::process::Command::new("kill").args(["-CONT", &shim]).status().unwrap();
    w.runtime = within(opening).await.unwrap().unwrap();
    let runs = || matches!(w.runtime.container(&id).unwrap().state, ContainerState::Running { .. });
    until("the container to run", runs).await;
    w.end().await;
}
