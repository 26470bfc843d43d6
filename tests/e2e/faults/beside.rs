//! A node beside the cluster's own: an agent that has joined, and can be killed, stopped and started.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cluster::{Cluster, UNHURRIED, root};

/// What the node is called.
pub const NODE: &str = "node-2";

/// The second node.
pub struct Beside {
    folder: PathBuf,
    program: PathBuf,
    netns: String,
    flags: Vec<String>,
    agent: RefCell<Option<Child>>,
}

/// Runs `ip`, which must succeed.
fn ip(args: &[&str]) {
    let said = Command::new("ip").args(args).output().expect("ip is there");
    assert!(said.status.success(), "ip {args:?}: {said:?}");
}

impl Beside {
    /// One that has a link to the cluster, has joined it, is Ready and has the images.
    pub fn join(cluster: &Cluster) -> Self {
        let made = cluster.with_manifest("kube-system", &["apply"], e2e::JOINING);
        assert!(made.ok, "{made:?}");
        let (netns, peer) = (format!("{}-2", cluster.cgroup()), cluster.cgroup());
        ip(&["netns", "add", &netns]);
        ip(&["-n", &netns, "link", "set", "lo", "up"]);
        ip(&["-n", &netns, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", peer]);
        for (netns, link, address) in [(&*netns, "up0", "10.99.0.2/24"), (peer, "down0", "10.99.0.1/24")] {
            ip(&["-n", netns, "address", "add", address, "dev", link]);
            ip(&["-n", netns, "link", "set", link, "up"]);
        }
        let folder = cluster.folder(NODE);
        let path = |part: &str| folder.join(part).display().to_string();
        let ca = cluster.kubeconfig().with_file_name("pki").join("ca.crt");
        let flags = vec![
            format!("--data-dir={}", path("data")),
            format!("--run-dir={}", path("run")),
            format!("--log-dir={}", path("logs")),
            format!("--cgroup-parent={netns}"),
            format!("--node-name={NODE}"),
            "--node-ip=10.99.0.2".to_owned(),
            "--server=https://10.99.0.1:6443".to_owned(),
            "--token=abcdef.0123456789abcdef".to_owned(),
            format!("--ca-file={}", ca.display()),
        ];
        let beside =
            Self { folder, program: cluster.program("gantry"), netns, flags, agent: RefCell::default() };
        beside.start();
        for image in ["busybox:1", "locker:1"] {
            beside.copy_image(cluster, image);
        }
        cluster.wait_for("the second node to be Ready", || {
            cluster.try_kubectl("default", &["get", "node", NODE]).out.contains(" Ready")
        });
        beside
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(&self.program);
        command
    }

    fn copy_image(&self, cluster: &Cluster, image: &str) {
        let name = if image == "busybox:1" { "busybox" } else { "locker-1" };
        let said = self
            .inside()
            .args(["build", &self.flags[0], &self.flags[1], "-t", image])
            .arg(cluster.folder(name))
            .output();
        let said = said.expect("gantry is there");
        assert!(said.status.success(), "{said:?}");
    }

    /// Where the node keeps its things: `data`, `run`, `logs`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its network namespace, and the parent of its cgroups.
    pub fn name(&self) -> &str {
        &self.netns
    }

    /// Starts the agent, unless it runs.
    pub fn start(&self) {
        let mut agent = self.agent.borrow_mut();
        if agent.is_some() {
            return;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let mut command = self.inside();
        command.arg("agent").args(&self.flags).current_dir(root()).envs(UNHURRIED);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.expect("writable folder"));
        let mut child = command.spawn().expect("the agent starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let ready = out.lines().map_while(Result::ok).any(|line| line == "ready");
        *agent = Some(child);
        assert!(ready, "the agent of {NODE} ended");
    }

    /// Kills the agent, if it runs.
    pub fn kill(&self) {
        if let Some(mut agent) = self.agent.borrow_mut().take() {
            agent.kill().and_then(|()| agent.wait()).expect("it was ours");
        }
    }

    /// Kills the shims, and all pods with them: the rest of a power cut.
    pub fn kill_shims(&self) {
        for shim in std::fs::read_dir(self.folder.join("run/shims")).into_iter().flatten().flatten() {
            let pid = crate::storm::pid_of(&shim.path()).map(|pid| pid.to_string());
            if let Some(pid) = pid {
                let _ = Command::new("kill").args(["-9", &pid]).output();
            }
        }
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.agent.borrow().as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill is there");
        assert!(sent.success());
    }

    pub fn show_log(&self) {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- the log of {NODE}, its last lines");
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.kill();
        match self.inside().arg("down").args(&self.flags[..6]).output() {
            Ok(down) if down.status.success() => {}
            other => eprintln!("{NODE} does not go down: {other:?}"),
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.netns]).status();
    }
}
