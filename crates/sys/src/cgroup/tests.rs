//! On trees of plain files, and device programs on the real v2 tree.

use super::*;

const HYBRID: &str = "\
25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs rw
26 25 0:23 / ROOT/cpu rw - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / ROOT/memory rw - cgroup cgroup rw,memory
28 25 0:25 / ROOT/cpuset rw - cgroup cgroup rw,cpuset
29 25 0:26 / ROOT/my\\040pids rw - cgroup cgroup rw,pids
30 25 0:27 / ROOT/systemd rw - cgroup cgroup rw,name=systemd
31 25 0:28 / ROOT/unified rw - cgroup2 cgroup2 rw
32 25 0:29 / ROOT/perf rw - cgroup cgroup rw,perf_event
33 25 0:24 / ROOT/again rw - cgroup cgroup rw,memory
";

fn hybrid(root: &Path) -> Arc<Hierarchies> {
    Arc::new(Hierarchies::from_mountinfo(&HYBRID.replace("ROOT", root.to_str().unwrap())).unwrap())
}

fn unified(root: &Path) -> Arc<Hierarchies> {
    let text = format!("31 25 0:28 / {} rw - cgroup2 cgroup2 rw", root.display());
    Arc::new(Hierarchies::from_mountinfo(&text).unwrap())
}

fn put(path: impl AsRef<Path>, text: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn get(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_hybrid_machine_is_v1() {
    let all = hybrid(Path::new("/x"));
    assert!(!all.is_v2());
    let roots: Vec<_> = all.resource().iter().map(|h| h.root.to_str().unwrap()).collect();
    assert_eq!(roots, ["/x/cpu", "/x/memory", "/x/cpuset", "/x/my pids"]);
    assert_eq!(all.resource()[0].option(), "cpu,cpuacct");
    assert_eq!(all.tracking().len(), 2);
    assert!(Hierarchies::from_mountinfo("nothing").is_err());
}

#[test]
fn a_process_is_found_in_each_hierarchy() {
    let (all, text) = (hybrid(Path::new("/x")), "9:name=systemd:/a.slice/b\n4:memory:/m:1\n0::/\n");
    let paths: Vec<_> = all.tracking().iter().map(|h| h.path_in(text)).collect();
    assert_eq!(paths, [Some("/a.slice/b"), Some("/")]);
    assert_eq!(all.resource()[1].path_in(text), Some("/m:1"));
}

#[test]
fn groups_stay_below_their_root() {
    let all = hybrid(Path::new("/x"));
    assert_eq!(all.group("/a/../b/./c//").path(), "a/b/c");
}

#[test]
fn v1_limits_go_to_their_controllers() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["cpu", "memory", "cpuset", "my pids"] {
        fs::create_dir_all(root.join(name).join("g/p")).unwrap();
    }
    for file in [
        "cpu/g/p/cpu.shares",
        "cpu/g/p/cpu.cfs_period_us",
        "cpu/g/p/cpu.cfs_quota_us",
        "memory/g/p/memory.limit_in_bytes",
        "memory/g/p/memory.memsw.limit_in_bytes",
        "my pids/g/p/pids.max",
        "cpuset/g/p/cpuset.cpus",
    ] {
        put(root.join(file), "");
    }
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory: Some(1 << 20),
        pids: Some(7),
        cpus: Some("0".into()),
        ..Limits::default()
    };
    hybrid(root).group("g/p").limit(&limits).unwrap();
    assert_eq!(get(root.join("cpu/g/p/cpu.shares")), "512");
    assert_eq!(get(root.join("cpu/g/p/cpu.cfs_quota_us")), "50000");
    assert_eq!(get(root.join("memory/g/p/memory.memsw.limit_in_bytes")), "1048576");
    assert_eq!(get(root.join("my pids/g/p/pids.max")), "7");
    assert_eq!(get(root.join("cpuset/g/p/cpuset.cpus")), "0");
}

#[test]
fn v1_cpusets_begin_with_their_parents() {
    let dir = tempfile::tempdir().unwrap();
    let cpuset = Hierarchy { root: dir.path().into(), controllers: vec!["cpuset".into()] };
    put(dir.path().join("cpuset.cpus"), "0-1\n");
    put(dir.path().join("cpuset.mems"), "0\n");
    for group in ["a", "a/b"] {
        put(dir.path().join(group).join("cpuset.cpus"), "");
        put(dir.path().join(group).join("cpuset.mems"), "");
    }
    // Somebody else has made `a` and not told it anything yet.
    cpuset.prepare(&dir.path().join("a/b")).unwrap();
    for group in ["a", "a/b"] {
        assert_eq!(get(dir.path().join(group).join("cpuset.cpus")), "0-1");
        assert_eq!(get(dir.path().join(group).join("cpuset.mems")), "0");
    }
    // What somebody has narrowed stays so.
    put(dir.path().join("a/cpuset.cpus"), "1");
    cpuset.prepare(&dir.path().join("a")).unwrap();
    assert_eq!(get(dir.path().join("a/cpuset.cpus")), "1");
}

#[test]
fn v2_opens_controllers_on_the_way_down() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root.join("cgroup.controllers"), "cpuset cpu io memory pids rdma\n");
    put(root.join("cgroup.subtree_control"), "memory\n");
    let all = unified(root);
    assert!(all.is_v2());
    all.group("g/p/c").create().unwrap();
    assert!(root.join("g/p/c").is_dir());
    assert_eq!(get(root.join("cgroup.subtree_control")), "+cpuset +cpu +io +pids");
}

/// Somebody was killed, or is busy, between the two steps of making a parent.
#[test]
fn v2_opens_a_parent_that_is_there_already() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root.join("g/cgroup.controllers"), "cpu memory\n");
    put(root.join("g/cgroup.subtree_control"), "");
    unified(root).group("g/p").create().unwrap();
    assert_eq!(get(root.join("g/cgroup.subtree_control")), "+cpu +memory");
}

#[test]
fn v2_limits_and_usage() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("c");
    for file in ["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max", "memory.oom.group"] {
        put(at.join(file), "");
    }
    put(
        at.join("cpu.stat"),
        "usage_usec 1500\nuser_usec 1\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\n",
    );
    put(at.join("memory.current"), "4096\n");
    put(
        at.join("memory.stat"),
        "anon 1024\nfile 5\ninactive_file 2048\nfile_mapped 4\npgfault 8\npgmajfault 6\n",
    );
    put(at.join("memory.swap.current"), "16\n");
    put(at.join("memory.peak"), "8192\n");
    put(at.join("pids.current"), "3\n");
    put(at.join("memory.events"), "low 0\noom 2\noom_kill 1\noom_group_kill 0\n");
    put(
        at.join("memory.pressure"),
        "some avg10=0.25 avg60=0.00 avg300=0.00 total=80\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=70\n",
    );
    let group = unified(dir.path()).group("c");
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_quota_us: Some(-1),
        memory: Some(4096),
        pids: Some(9),
        ..Limits::default()
    };
    group.limit(&limits).unwrap();
    group.end_together().unwrap();
    assert_eq!(get(at.join("memory.swap.max")), "", "whoever is limited may swap all the same");
    group.deny_swap().unwrap();
    assert_eq!(get(at.join("cpu.weight")), "100");
    assert_eq!(get(at.join("cpu.max")), "max 100000");
    assert_eq!((get(at.join("memory.max")), get(at.join("memory.swap.max"))), ("4096".into(), "0".into()));
    assert_eq!(get(at.join("memory.oom.group")), "1");
    let usage = Usage {
        cpu_ns: 1_500_000,
        memory: 4096,
        inactive_file: 2048,
        rss: 1024,
        cache: 5,
        mapped_file: 4,
        swap: 16,
        page_faults: 8,
        major_page_faults: 6,
        pids: 3,
    };
    assert_eq!((group.usage(), usage.working_set()), (Some(usage), 2048));
    let details = group.details();
    assert_eq!((details.cpu_user_ns, details.memory_peak, details.oom_kills), (1000, 8192, 1));
    assert_eq!((details.periods, details.throttled_periods, details.throttled_ns), (9, 2, 7000));
    assert_eq!(group.oom_kills(), 1);
    let memory = details.pressures.memory.unwrap();
    assert_eq!((memory.some.total_us, memory.some.avg10, memory.full.total_us), (80, 25, 70));
    assert_eq!(details.pressures.io, None);
}

/// As a 6.18 kernel wrote them.
#[test]
fn v1_usage() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root.join("cpu/g/cpuacct.usage"), "1234567890\n");
    put(root.join("cpu/g/cpuacct.stat"), "user 70\nsystem 53\n");
    put(root.join("cpu/g/cpu.stat"), "nr_periods 12\nnr_throttled 3\nthrottled_time 4500000\n");
    put(root.join("memory/g/memory.usage_in_bytes"), "9437184\n");
    put(root.join("memory/g/memory.max_usage_in_bytes"), "9999999\n");
    put(root.join("memory/g/memory.failcnt"), "4\n");
    put(root.join("memory/g/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
    let stat = "cache 1\nrss 2\npgfault 3\ninactive_file 4\nhierarchical_memory_limit 9223372036854771712\n\
        total_cache 4096\ntotal_rss 5000000\ntotal_mapped_file 2048\ntotal_swap 512\ntotal_pgfault 77\n\
        total_pgmajfault 5\ntotal_inactive_file 1048576\n";
    put(root.join("memory/g/memory.stat"), stat);
    put(root.join("my pids/g/pids.current"), "6\n");
    put(root.join("my pids/g/cgroup.procs"), &format!("{}\n", std::process::id()));
    let _sockets = std::os::unix::net::UnixStream::pair().unwrap();
    let group = hybrid(root).group("g");
    let usage = group.usage().unwrap();
    assert_eq!((usage.cpu_ns, usage.memory, usage.working_set()), (1_234_567_890, 9_437_184, 8_388_608));
    assert_eq!((usage.rss, usage.cache, usage.mapped_file, usage.swap), (5_000_000, 4096, 2048, 512));
    assert_eq!((usage.page_faults, usage.major_page_faults, usage.pids), (77, 5, 6));
    let want = Details {
        cpu_user_ns: 700_000_000,
        cpu_system_ns: 530_000_000,
        periods: 12,
        throttled_periods: 3,
        throttled_ns: 4_500_000,
        memory_peak: 9_999_999,
        memory_failures: 4,
        oom_kills: 2,
        processes: 1,
        ..Details::default()
    };
    let found = group.details();
    assert!(found.sockets >= 2 && found.file_descriptors > found.sockets, "{found:?}");
    assert_eq!(Details { file_descriptors: 0, sockets: 0, ..found }, want);
    assert_eq!(hybrid(root).group("nowhere").usage(), None);
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let group = unified(dir.path()).group("a/b");
    group.remove(Duration::ZERO).unwrap();
    fs::create_dir_all(dir.path().join("a/b/c/d")).unwrap();
    group.remove(Duration::ZERO).unwrap();
    assert!(!dir.path().join("a/b").exists() && dir.path().join("a").exists());
}

/// Needs root and a v2 tree somewhere (a hybrid machine's will do: device programs need no controller).
#[test]
fn the_kernel_takes_device_programs() {
    let all = Hierarchies::detect().unwrap();
    let tree = all.resource().iter().chain(all.tracking()).find(|h| h.controllers.is_empty());
    let Some(tree) = tree else { return };
    let all = unified(&tree.root);
    let group = all.group(&format!("gantry-sys-test-{}", std::process::id()));
    if fs::create_dir(tree.root.join(group.path())).is_err() {
        // Not root.
        return;
    }
    let result = group.limit_devices(&default_rules());
    group.remove(Duration::from_secs(1)).unwrap();
    result.unwrap();
}

#[test]
fn huge_pages_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { huge_pages: [("2MB".to_owned(), 4 << 20)].into(), ..Limits::default() };
    let text = format!("26 25 0:23 / {}/huge rw - cgroup cgroup rw,hugetlb", dir.path().display());
    let all = Arc::new(Hierarchies::from_mountinfo(&text).unwrap());
    let v1 = dir.path().join("huge/pod");
    put(v1.join("hugetlb.2MB.limit_in_bytes"), "");
    all.group("pod").limit(&limits).unwrap();
    assert_eq!(get(v1.join("hugetlb.2MB.limit_in_bytes")), "4194304");
    put(v1.join("hugetlb.2MB.rsvd.limit_in_bytes"), "");
    all.group("pod").limit(&limits).unwrap();
    assert_eq!(get(v1.join("hugetlb.2MB.rsvd.limit_in_bytes")), "4194304");
    // A size that the kernel does not have.
    let other = Limits { huge_pages: [("1GB".to_owned(), 0)].into(), ..Limits::default() };
    assert!(all.group("pod").limit(&other).is_err());

    let root = dir.path().join("v2");
    let all = unified(&root);
    put(root.join("pod/hugetlb.2MB.max"), "max");
    put(root.join("pod/hugetlb.2MB.rsvd.max"), "max");
    all.group("pod").limit(&limits).unwrap();
    assert_eq!(get(root.join("pod/hugetlb.2MB.max")), "4194304");
    assert_eq!(get(root.join("pod/hugetlb.2MB.rsvd.max")), "4194304");
    all.group("pod").limit(&other).unwrap();
}
