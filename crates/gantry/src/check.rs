//! `gantry check`: what this machine lacks, what follows from it, and the mend.

use std::path::Path;
use std::process::ExitCode;

use crate::config::ServerArgs;

struct Finding {
    what: &'static str,
    present: bool,
    /// Without it nothing works; else something works less well.
    needed: bool,
    consequence: &'static str,
    mend: &'static str,
}

/// Looks at the machine without changing it. The exit code says whether a cluster can run.
pub fn run(args: &ServerArgs) -> ExitCode {
    let findings = look(args);
    let mut missing = false;
    for f in &findings {
        if f.present {
            println!("[ ok ] {}", f.what);
            continue;
        }
        missing |= f.needed;
        println!("[{}] {}: {}. {}.", if f.needed { "LACK" } else { "warn" }, f.what, f.consequence, f.mend);
    }
    if missing {
        println!("A cluster cannot run here yet.");
        return ExitCode::FAILURE;
    }
    println!("A cluster can run here.");
    ExitCode::SUCCESS
}

fn look(args: &ServerArgs) -> Vec<Finding> {
    let kernel = Kernel::read();
    let exists = |path: &str| Path::new(path).exists();
    let needed =
        |what, present, consequence, mend| Finding { what, present, needed: true, consequence, mend };
    let wished =
        |what, present, consequence, mend| Finding { what, present, needed: false, consequence, mend };
    let module = "Load the kernel module or boot a kernel that has it";
    let controllers = Cgroups::read();
    let mut findings = vec![
        needed(
            "root privileges",
            nix::unistd::geteuid().is_root(),
            "containers cannot be made",
            "Run it with sudo",
        ),
        needed("overlayfs", kernel.filesystem("overlay"), "images cannot be mounted", "Run modprobe overlay"),
    ];
    for (what, file) in [
        ("pid namespaces", "pid"),
        ("network namespaces", "net"),
        ("mount namespaces", "mnt"),
        ("ipc namespaces", "ipc"),
        ("uts namespaces", "uts"),
    ] {
        let present = exists(&format!("/proc/self/ns/{file}"));
        findings.push(needed(what, present, "containers cannot be isolated", "Boot a kernel that has it"));
    }
    findings.extend([
        wished(
            "user namespaces",
            exists("/proc/self/ns/user"),
            "pods with hostUsers: false cannot run",
            "Boot a kernel that has it",
        ),
        wished(
            "idmapped mounts of tmpfs",
            kernel.is_at_least(6, 3),
            "pods with hostUsers: false cannot have Secrets, service account tokens or other volumes in memory",
            "Boot Linux 6.3 or later",
        ),
        wished(
            "cgroup namespaces",
            exists("/proc/self/ns/cgroup"),
            "containers see the host's cgroup paths",
            "Boot a kernel that has it",
        ),
        needed(
            "bridges",
            kernel.has("bridge", "br_add_bridge"),
            "pods cannot be joined to a network",
            module,
        ),
        needed("veth", kernel.has("veth", "veth_newlink"), "pods cannot be joined to a network", module),
        needed("nf_tables", kernel.has("nf_tables", "nft_do_chain"), "Services cannot work", module),
        needed(
            "nf_tables NAT",
            kernel.has("nft_chain_nat", "nft_nat_do_chain"),
            "Services cannot work",
            module,
        ),
        needed(
            "connection tracking",
            kernel.has("nf_conntrack", "nf_conntrack_in"),
            "Services cannot work",
            module,
        ),
        wished(
            "seccomp filters",
            kernel.status("Seccomp_filters:"),
            "containers run without a system call filter",
            "Boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ]);
    for name in ["cpu", "memory", "pids"] {
        let (what, consequence): (&'static str, &'static str) = match name {
            "cpu" => ("cgroup controller cpu", "CPU limits are not enforced"),
            "memory" => ("cgroup controller memory", "memory limits are not enforced"),
            _ => ("cgroup controller pids", "process limits are not enforced"),
        };
        findings.push(wished(
            what,
            controllers.has(name),
            consequence,
            "Enable it on the kernel's command line",
        ));
    }
    let folder = args.data_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(folder)
        .map(|s| s.blocks_available() * s.fragment_size())
        .unwrap_or(u64::MAX);
    findings.push(wished(
        "1 GiB of free space for data",
        free >= 1 << 30,
        "images may not fit",
        "Free some space or choose another --data-dir",
    ));
    findings
}

/// What the kernel says of itself.
#[derive(Default)]
struct Kernel {
    release: String,
    filesystems: String,
    symbols: String,
    modules: String,
    status: String,
}

impl Kernel {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let folder = format!("/lib/modules/{}", release.trim());
        Self {
            filesystems: read("/proc/filesystems"),
            symbols: read("/proc/kallsyms"),
            modules: read(&format!("{folder}/modules.builtin")) + &read(&format!("{folder}/modules.dep")),
            status: read("/proc/self/status"),
            release,
        }
    }

    fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }

    fn filesystem(&self, name: &str) -> bool {
        self.filesystems.lines().any(|l| l.split_whitespace().last() == Some(name)) || self.module(name)
    }

    /// Loaded or built in, or there to be loaded.
    fn has(&self, module: &str, symbol: &str) -> bool {
        let symbol_line = |line: &str| line.split_whitespace().nth(2) == Some(symbol);
        self.symbols.is_empty() || self.symbols.lines().any(symbol_line) || self.module(module)
    }

    fn module(&self, name: &str) -> bool {
        self.modules
            .lines()
            .any(|line| line.split(':').next().unwrap_or(line).contains(&format!("/{name}.ko")))
    }

    fn status(&self, field: &str) -> bool {
        self.status.lines().any(|line| line.starts_with(field))
    }
}

/// Controllers of either version.
struct Cgroups(String);

impl Cgroups {
    fn read() -> Self {
        let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let v1 = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let v1 = v1.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|hierarchy| hierarchy != "0"));
        let v1: Vec<&str> = v1.filter_map(|l| l.split_whitespace().next()).collect();
        Self(format!("{unified} {}", v1.join(" ")))
    }

    fn has(&self, name: &str) -> bool {
        self.0.split_whitespace().any(|c| c == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_by_their_release() {
        let is = |release: &str| Kernel { release: release.into(), ..Kernel::default() }.is_at_least(6, 3);
        assert!(is("6.3.0") && is("6.12.4-amd64") && is("7.0-rc1"));
        assert!(!is("6.1.0-56-cloud-amd64") && !is("5.15.0") && !is(""));
    }
}
