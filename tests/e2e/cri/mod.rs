//! `gantry cri`, asked as a kubelet and `crictl` ask: sandboxes, containers, images and streams over its socket.

mod daemon;

use std::process::Stdio;

use ::cri::{self as api, ContainerState, Message, PodSandboxState, images, runtime};
use daemon::{Daemon, LIMIT, container, exec_sync, inside, labels, must, sandbox};
use grpc::Code;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("cri::sandboxes_and_containers", sandboxes_and_containers),
    ("cri::a_new_daemon_finds_everything", a_new_daemon_finds_everything),
    ("cri::streams_are_joined_by_url", streams_are_joined_by_url),
    ("cri::images_and_the_runtime_itself", images_and_the_runtime_itself),
];

fn sandboxes_and_containers(cluster: &Cluster) {
    let daemon = Daemon::start(cluster, "cri-life");
    let mut events = {
        let call = runtime::GET_CONTAINER_EVENTS;
        daemon.threads.block_on(call.listen(&daemon.channel, &api::GetEventsRequest {})).expect("a stream")
    };
    let pod = daemon.run_sandbox(&sandbox(&daemon, "web"));
    let status = daemon.sandbox_status(&pod);
    assert_eq!(status.state, PodSandboxState::Ready);
    assert!(status.network.expect("a network").ip.starts_with("10.77.0."));
    assert_eq!((status.labels, status.annotations["note"].as_str()), (labels("web"), "kept"));
    let again = api::RunPodSandboxRequest { config: Some(sandbox(&daemon, "web")), ..Default::default() };
    assert_eq!(daemon.refusal(runtime::RUN_POD_SANDBOX, &again).0, Code::ALREADY_EXISTS);

    let script = "trap 'echo bye; exit 3' TERM; echo out; echo err >&2; busybox id -u; busybox hostname; \
        busybox cat /etc/resolv.conf; echo $FROM_IMAGE $HOSTNAME; while :; do busybox sleep 0.1; done";
    let mut config = container("main", script);
    config.linux = Some(api::LinuxContainerConfig {
        resources: Some(api::LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_shares: 512,
            ..Default::default()
        }),
        security_context: None,
    });
    let id = daemon.create(&pod, config);
    assert_eq!(daemon.status(&id).state, ContainerState::Created);
    daemon.start_container(&id);
    let running = daemon.status(&id);
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.started_at >= running.created_at && running.created_at > 0);
    assert_eq!(running.image.expect("an image").image, "docker.io/library/busybox:1");
    assert_eq!(running.user.and_then(|user| user.linux).expect("a user").uid, 7);
    let twice = api::StartContainerRequest { container_id: id.clone() };
    assert_eq!(daemon.refusal(runtime::START_CONTAINER, &twice).0, Code::FAILED_PRECONDITION);
    let wanted = "stdout F out\nstdout F 7\nstdout F web\nstdout F nameserver 10.9.9.9\nstdout F yes web\n";
    cluster.wait_for("the log", || {
        let log = daemon.logged("main/0.log");
        log.contains("stderr F err\n") && log.replace("stderr F err\n", "") == wanted
    });

    // Its cgroup is where the kubelet would have made the pod's.
    let cgroup = format!("/sys/fs/cgroup/memory/{}/kubepods/poduid-web/{pod}/{id}", daemon.netns);
    let unified = cgroup.replace("/memory/", "/");
    let limit = |file: &str| std::fs::read_to_string(format!("{cgroup}/{file}"));
    let limit =
        limit("memory.limit_in_bytes").or_else(|_| std::fs::read_to_string(format!("{unified}/memory.max")));
    assert_eq!(limit.expect("the cgroup").trim(), (64 << 20).to_string());
    let more = api::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(api::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() }),
        ..Default::default()
    };
    daemon.ask(runtime::UPDATE_CONTAINER_RESOURCES, &more);
    let told = daemon.status(&id).resources.and_then(|r| r.linux).expect("resources");
    assert_eq!((told.memory_limit_in_bytes, told.cpu_shares), (96 << 20, 512));
    let stats = api::ListContainerStatsRequest::default();
    let stats = daemon.ask(runtime::LIST_CONTAINER_STATS, &stats).stats;
    assert_eq!(stats.len(), 1);
    let memory = stats[0].memory.clone().and_then(|memory| memory.working_set_bytes).expect("memory");
    assert!(memory.value > 0);
    let of_pod = api::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let of_pod = daemon.ask(runtime::POD_SANDBOX_STATS, &of_pod).stats.and_then(|stats| stats.linux);
    assert!(of_pod.expect("stats").network.is_some());

    // Processes beside it, in time and not.
    let said = daemon.exec(&id, "echo hi; echo no >&2; exit 4");
    assert_eq!((&said.stdout[..], &said.stderr[..], said.exit_code), (&b"hi\n"[..], &b"no\n"[..], 4));
    let late = exec_sync(&id, "busybox sleep 1000", 1);
    assert_eq!(daemon.refusal(runtime::EXEC_SYNC, &late).0, Code::DEADLINE_EXCEEDED);

    // A log that is moved away is followed by a new one.
    let log = daemon.folder.join("logs/main/0.log");
    std::fs::rename(&log, log.with_extension("old")).expect("the log is there");
    daemon.ask(runtime::REOPEN_CONTAINER_LOG, &api::ReopenContainerLogRequest { container_id: id.clone() });

    let listed = |filter| {
        let request = api::ListContainersRequest { filter: Some(filter) };
        daemon.ask(runtime::LIST_CONTAINERS, &request).containers.len()
    };
    let filter = |state| api::ContainerFilter {
        id: id[..12].to_owned(),
        state: Some(api::ContainerStateValue { state }),
        pod_sandbox_id: pod.clone(),
        label_selector: labels("main"),
    };
    assert_eq!((listed(filter(ContainerState::Running)), listed(filter(ContainerState::Exited))), (1, 0));
    daemon.ask(runtime::STOP_CONTAINER, &api::StopContainerRequest { container_id: id.clone(), timeout: 30 });
    let ended = daemon.status(&id);
    assert_eq!((ended.state, ended.exit_code, ended.reason.as_str()), (ContainerState::Exited, 3, "Error"));
    assert!(ended.finished_at >= ended.started_at);
    assert_eq!(daemon.logged("main/0.log"), "stdout F bye\n");

    // What cannot start says so, and stays to be looked at.
    let mut bad = container("bad", "");
    bad.command = vec!["/nonexistent".to_owned()];
    let bad = daemon.create(&pod, bad);
    let (_, why) =
        daemon.refusal(runtime::START_CONTAINER, &api::StartContainerRequest { container_id: bad.clone() });
    assert!(why.contains("/nonexistent"), "{why}");
    let failed = daemon.status(&bad);
    assert_eq!(
        (failed.state, failed.exit_code, failed.reason.as_str()),
        (ContainerState::Exited, 128, "StartError")
    );

    for _ in 0..2 {
        daemon.ask(runtime::REMOVE_CONTAINER, &api::RemoveContainerRequest { container_id: id.clone() });
    }
    let gone = api::ContainerStatusRequest { container_id: id.clone(), verbose: false };
    assert_eq!(daemon.refusal(runtime::CONTAINER_STATUS, &gone).0, Code::NOT_FOUND);
    daemon.remove(&pod);
    let gone = api::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    assert_eq!(daemon.refusal(runtime::POD_SANDBOX_STATUS, &gone).0, Code::NOT_FOUND);

    // All of that was told meanwhile, in its order.
    let mut of_main = Vec::new();
    while of_main.last() != Some(&api::ContainerEventType::Deleted) {
        let next = daemon.threads.block_on(async { tokio::time::timeout(LIMIT, events.next()).await });
        let event =
            api::ContainerEventResponse::decode(&next.expect("in time").expect("an event")).expect("one");
        if event.container_id == id {
            of_main.push(event.container_event_type);
        }
    }
    use api::ContainerEventType::{Created, Deleted, Started, Stopped};
    assert_eq!(of_main, [Created, Started, Stopped, Deleted]);
}

fn a_new_daemon_finds_everything(cluster: &Cluster) {
    let mut daemon = Daemon::start(cluster, "cri-again");
    let pod = daemon.run_sandbox(&sandbox(&daemon, "stays"));
    let (running, waiting, ended) = (
        daemon.create(&pod, container("running", "echo begun; exec busybox sleep 1000")),
        daemon.create(&pod, container("waiting", "echo later; exec busybox sleep 1000")),
        daemon.create(&pod, container("ended", "exit 5")),
    );
    daemon.start_container(&running);
    daemon.start_container(&ended);
    cluster.wait_for("the end of one", || daemon.status(&ended).state == ContainerState::Exited);
    let before = [&running, &waiting, &ended].map(|id| daemon.status(id));
    let ip = daemon.sandbox_status(&pod).network.expect("a network").ip;
    daemon.kill_and_restart();
    assert_eq!([&running, &waiting, &ended].map(|id| daemon.status(id)), before);
    let status = daemon.sandbox_status(&pod);
    assert_eq!((status.state, status.network.expect("a network").ip), (PodSandboxState::Ready, ip));
    assert_eq!(status.annotations["note"], "kept");
    // What was only made is started by the new one.
    daemon.start_container(&waiting);
    cluster.wait_for("its log", || daemon.logged("waiting/0.log") == "stdout F later\n");
    assert_eq!(daemon.exec(&running, "echo hi").stdout, b"hi\n");

    // The end of a sandbox is the end of its containers; they can still be looked at.
    daemon.ask(runtime::STOP_POD_SANDBOX, &api::StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
    assert_eq!(daemon.sandbox_status(&pod).state, PodSandboxState::NotReady);
    let killed = daemon.status(&running);
    assert_eq!((killed.state, killed.exit_code), (ContainerState::Exited, 137));
    let late = api::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container("late", "")),
        sandbox_config: None,
    };
    assert_eq!(daemon.refusal(runtime::CREATE_CONTAINER, &late).0, Code::FAILED_PRECONDITION);
    daemon.kill_and_restart();
    assert_eq!(daemon.status(&running), killed);
    daemon.remove(&pod);
    let all = daemon.ask(runtime::LIST_POD_SANDBOX, &api::ListPodSandboxRequest::default()).items;
    assert_eq!(all, []);
    let left = std::fs::read_dir(daemon.folder.join("data/cri/containers")).expect("the records").count();
    assert_eq!(left, 0);
}

/// Speaks `v4.channel.k8s.io` over a WebSocket: types what it is told, prints what comes on each channel.
const WEBSOCKET: &str = r#"
import os,socket,struct,sys,urllib.parse
url = urllib.parse.urlparse(sys.argv[1])
s = socket.create_connection((url.hostname, url.port))
protocol = sys.argv[2]
s.sendall((f"GET {url.path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n").encode())
f = s.makefile("rb")
first = f.readline().decode()
if " 101 " not in first: print(first.strip()); sys.exit()
while f.readline().strip(): pass
def say(data):
    mask = os.urandom(4)
    s.sendall(bytes([0x82, 0x80 | len(data)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
if len(sys.argv) > 3: say(b"\0" + sys.argv[3].encode())
got = {}
while True:
    head = f.read(2)
    if len(head) < 2 or head[0] & 15 == 8: break
    n = head[1] & 127
    if n == 126: n = struct.unpack(">H", f.read(2))[0]
    data = f.read(n)
    if data: got[data[0]] = got.get(data[0], b"") + data[1:]
    if len(sys.argv) > 4 and sys.argv[4].encode() in got.get(0, b""): break
for channel in sorted(got): print(channel, got[channel])
"#;

fn streams_are_joined_by_url(cluster: &Cluster) {
    let daemon = Daemon::start(cluster, "cri-streams");
    let pod = daemon.run_sandbox(&sandbox(&daemon, "talks"));
    let mut config = container("main", "while read line; do echo said $line; done");
    config.stdin = true;
    let main = daemon.create(&pod, config);
    let web =
        "busybox mkdir -p /tmp/w; echo page > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w";
    let mut config = container("web", web);
    config.linux = Some(api::LinuxContainerConfig {
        resources: None,
        security_context: Some(api::LinuxContainerSecurityContext {
            run_as_user: Some(api::Int64Value { value: 0 }),
            ..Default::default()
        }),
    });
    let web = daemon.create(&pod, config);
    daemon.start_container(&main);
    daemon.start_container(&web);
    let talk = |url: &str, protocol: &str, more: &[&str]| {
        must(inside(&daemon.netns, "python3").args(["-c", WEBSOCKET, url, protocol]).args(more))
    };
    let exec = api::ExecRequest {
        container_id: main.clone(),
        cmd: ["/bin/busybox", "sh", "-c", "read line; echo got $line; echo bad >&2; exit 6"]
            .map(str::to_owned)
            .into(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let url = daemon.ask(runtime::EXEC, &exec).url;
    let said = talk(&url, "v4.channel.k8s.io", &["word\n"]);
    assert!(said.contains(r"1 b'got word\n'") && said.contains(r"2 b'bad\n'"), "{said}");
    assert!(said.contains(r#""reason":"ExitCode""#) && said.contains(r#""message":"6""#), "{said}");
    let again = talk(&url, "v4.channel.k8s.io", &[]);
    assert!(again.contains(" 404 "), "a URL is good once: {again}");

    let attach =
        api::AttachRequest { container_id: main.clone(), stdin: true, stdout: true, ..Default::default() };
    let url = daemon.ask(runtime::ATTACH, &attach).url;
    // The input's end ends the container, and that the connection.
    let mut attached = inside(&daemon.netns, "python3");
    let mut attached = attached
        .args(["-c", WEBSOCKET, &url, "v4.channel.k8s.io", "hello\n"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    cluster.wait_for("its answer", || daemon.logged("main/0.log").contains("said hello"));
    let stop = api::StopContainerRequest { container_id: main.clone(), timeout: 0 };
    daemon.ask(runtime::STOP_CONTAINER, &stop);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut attached.stdout.take().expect("a pipe"), &mut said).expect("text");
    attached.wait().expect("it is ours");
    assert!(said.contains(r"1 b'said hello\n'"), "{said}");

    let forward = api::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080] };
    cluster.wait_for("the page", || {
        let url = daemon.ask(runtime::PORT_FORWARD, &forward).url;
        let page = talk(&url, "v4.channel.k8s.io", &["GET / HTTP/1.0\r\n\r\n", "page"]);
        page.contains("200 OK")
    });
    daemon.remove(&pod);
}

fn images_and_the_runtime_itself(cluster: &Cluster) {
    let daemon = Daemon::start(cluster, "cri-about");
    let version = daemon.ask(runtime::VERSION, &api::VersionRequest::default());
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("0.1.0", "gantry"));
    assert_eq!(version.runtime_api_version, "v1");
    // What older kubelets call it.
    let old = runtime::VERSION.path.replace(".v1.", ".v1alpha2.");
    let answer = daemon.threads.block_on(daemon.channel.unary(&old, &[], LIMIT)).expect("an answer");
    assert_eq!(api::VersionResponse::decode(&answer).expect("a version").runtime_api_version, "v1alpha2");
    let status = daemon.ask(runtime::STATUS, &api::StatusRequest { verbose: true });
    let conditions = status.status.expect("a status").conditions;
    let told: Vec<_> = conditions.iter().map(|c| (c.r#type.as_str(), c.status)).collect();
    assert_eq!(told, [("RuntimeReady", true), ("NetworkReady", true)]);
    assert!(status.info["config"].contains("10.77.0.0/24"), "{:?}", status.info);
    let config = daemon.ask(runtime::RUNTIME_CONFIG, &api::RuntimeConfigRequest {}).linux.expect("linux");
    assert_eq!(config.cgroup_driver, api::CgroupDriver::Cgroupfs);

    // A range of addresses that is told later, and kept.
    let cidr = |range: &str| api::UpdateRuntimeConfigRequest {
        runtime_config: Some(api::RuntimeConfig {
            network_config: Some(api::NetworkConfig { pod_cidr: range.to_owned() }),
        }),
    };
    daemon.ask(runtime::UPDATE_RUNTIME_CONFIG, &cidr("10.78.0.0/24"));
    let pod = daemon.run_sandbox(&sandbox(&daemon, "moved"));
    let ip = daemon.sandbox_status(&pod).network.expect("a network").ip;
    assert!(ip.starts_with("10.78.0."), "{ip}");
    let (code, why) = daemon.refusal(runtime::UPDATE_RUNTIME_CONFIG, &cidr("10.79.0.0/24"));
    assert_eq!(code, Code::FAILED_PRECONDITION, "{why}");
    daemon.remove(&pod);
    let mut config = sandbox(&daemon, "host");
    let linux = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).expect("a context");
    linux.namespace_options.as_mut().expect("options").network = api::NamespaceMode::Node;
    let host = daemon.run_sandbox(&config);
    assert_eq!(daemon.sandbox_status(&host).network.expect("a network").ip, "");
    daemon.remove(&host);

    let image = |name: &str| Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
    let listed = daemon.ask(images::LIST_IMAGES, &api::ListImagesRequest::default()).images;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].repo_tags, ["docker.io/library/busybox:1"]);
    assert_eq!(listed[0].uid.as_ref().map(|uid| uid.value), Some(7));
    let of = |name: &str| {
        daemon
            .ask(images::IMAGE_STATUS, &api::ImageStatusRequest { image: image(name), verbose: false })
            .image
    };
    assert_eq!(of("busybox:1").as_ref(), Some(&listed[0]));
    assert_eq!(of(&listed[0].id).as_ref(), Some(&listed[0]));
    assert_eq!(of("nothing:1"), None);
    let pull = api::PullImageRequest { image: image("127.0.0.1:1/none:1"), ..Default::default() };
    let (_, why) = daemon.refusal(images::PULL_IMAGE, &pull);
    assert!(why.contains("127.0.0.1:1/none:1"), "{why}");
    let disk = daemon.ask(images::IMAGE_FS_INFO, &api::ImageFsInfoRequest {}).image_filesystems;
    let used = disk[0].used_bytes.as_ref().expect("a number").value;
    assert!(used >= listed[0].size, "{used} < {}", listed[0].size);
    for _ in 0..2 {
        daemon.ask(images::REMOVE_IMAGE, &api::RemoveImageRequest { image: image(&listed[0].id) });
    }
    assert_eq!(of("busybox:1"), None);
    let unknown = daemon.refusal(runtime::LIST_METRIC_DESCRIPTORS, &api::ListMetricDescriptorsRequest {});
    assert_eq!(unknown.0, Code::UNIMPLEMENTED);
}
