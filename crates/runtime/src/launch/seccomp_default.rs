//! The default profile: every system call known by name, except those that need a capability the container lacks
//! and those that no container gets.
//!
//! The choice follows moby/profiles, `seccomp/default_linux.go`, `DefaultProfile`.

use sys::CapSet;

use super::seccomp::{Action, Argument, Compare, Profile, Rule};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Each group is allowed with any of the capabilities named first.
const WITH_CAPABILITY: [(&[&str], &[&str]); 12] = [
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "listmount",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "statmount",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday", "stime"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
];

/// Two more groups, apart for their size.
const WITH_OTHER_CAPABILITY: [(&[&str], &[&str]); 2] =
    [(&["SYS_TTY_CONFIG"], &["vhangup"]), (&["DAC_READ_SEARCH"], &["open_by_handle_at"])];

/// Old, host-wide or hard to confine.
const NEVER: [&str; 37] = [
    "_sysctl",
    "add_key",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "getpmsg",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "putpmsg",
    "query_module",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "uretprobe",
    "uprobe",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
    "vm86",
    "vm86old",
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// Those of `personality` that change nothing dangerous: Linux, Linux 32-bit, with old version numbers, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

/// The profile for a container with these capabilities.
pub(super) fn profile(capabilities: CapSet) -> Profile {
    let admin = capabilities.has("SYS_ADMIN");
    let allowed = |name: &str| {
        let mut groups = WITH_CAPABILITY.iter().chain(&WITH_OTHER_CAPABILITY);
        match groups.find(|(_, names)| names.contains(&name)) {
            Some((needs, _)) => needs.iter().any(|need| capabilities.has(need)),
            None => !NEVER.contains(&name),
        }
    };
    let special = |name: &&str| match *name {
        "clone" | "clone3" => !admin,
        "personality" | "socket" => true,
        _ => false,
    };
    let plain = sys::syscall_names().filter(|name| !special(name) && allowed(name));
    let mut rules = vec![Rule::new(Action::Allow, plain, Vec::new())];
    for value in PERSONALITIES {
        rules.push(Rule::new(
            Action::Allow,
            ["personality"],
            vec![Argument { index: 0, compare: Compare::Equal, value }],
        ));
    }
    let other_family = Argument { index: 0, compare: Compare::NotEqual, value: AF_VSOCK };
    rules.push(Rule::new(Action::Allow, ["socket"], vec![other_family]));
    if !admin {
        let no_namespace = Argument { index: 0, compare: Compare::Masked(NEW_NAMESPACES), value: 0 };
        rules.push(Rule::new(Action::Allow, ["clone"], vec![no_namespace]));
        // Its flags are in memory, where a filter cannot look; libraries fall back to `clone`.
        rules.push(Rule::new(Action::Errno(ENOSYS), ["clone3"], Vec::new()));
    }
    Profile { default: Action::Errno(EPERM), rules }
}
