//! What sandboxes and containers may and get on Linux.

use std::collections::BTreeMap;

use crate::wire::{enums, messages};

enums! {
    /// Whose a namespace is.
    NamespaceMode { Pod, Container = 1, Node = 2, Target = 3 }

    /// Whether the groups that an image gives its user count.
    SupplementalGroupsPolicy { Merge, Strict = 1 }

    /// Where a security profile comes from.
    ProfileType { RuntimeDefault, Unconfined = 1, Localhost = 2 }
}

messages! {
    /// A number that may be missing.
    Int64Value { 1 value: i64 }

    /// A number that may be missing.
    UInt64Value { 1 value: u64 }

    IdMapping { 1 host_id: u32, 2 container_id: u32, 3 length: u32 }

    UserNamespace { 1 mode: NamespaceMode, 2 uids: Vec<IdMapping>, 3 gids: Vec<IdMapping> }

    NamespaceOption {
        1 network: NamespaceMode,
        2 pid: NamespaceMode,
        3 ipc: NamespaceMode,
        4 target_id: String,
        5 userns_options: Option<UserNamespace>,
    }

    SecurityProfile { 1 profile_type: ProfileType, 2 localhost_ref: String }

    SeLinuxOption { 1 user: String, 2 role: String, 3 r#type: String, 4 level: String }

    LinuxSandboxSecurityContext {
        1 namespace_options: Option<NamespaceOption>,
        2 selinux_options: Option<SeLinuxOption>,
        3 run_as_user: Option<Int64Value>,
        8 run_as_group: Option<Int64Value>,
        4 readonly_rootfs: bool,
        5 supplemental_groups: Vec<i64>,
        11 supplemental_groups_policy: SupplementalGroupsPolicy,
        6 privileged: bool,
        9 seccomp: Option<SecurityProfile>,
        10 apparmor: Option<SecurityProfile>,
        7 seccomp_profile_path: String,
    }

    LinuxPodSandboxConfig {
        1 cgroup_parent: String,
        2 security_context: Option<LinuxSandboxSecurityContext>,
        3 sysctls: BTreeMap<String, String>,
        4 overhead: Option<LinuxContainerResources>,
        5 resources: Option<LinuxContainerResources>,
    }

    LinuxContainerResources {
        1 cpu_period: i64,
        2 cpu_quota: i64,
        3 cpu_shares: i64,
        4 memory_limit_in_bytes: i64,
        5 oom_score_adj: i64,
        6 cpuset_cpus: String,
        7 cpuset_mems: String,
        8 hugepage_limits: Vec<HugepageLimit>,
        9 unified: BTreeMap<String, String>,
        10 memory_swap_limit_in_bytes: i64,
    }

    HugepageLimit { 1 page_size: String, 2 limit: u64 }

    Capability {
        1 add_capabilities: Vec<String>,
        2 drop_capabilities: Vec<String>,
        3 add_ambient_capabilities: Vec<String>,
    }

    LinuxContainerSecurityContext {
        1 capabilities: Option<Capability>,
        2 privileged: bool,
        3 namespace_options: Option<NamespaceOption>,
        4 selinux_options: Option<SeLinuxOption>,
        5 run_as_user: Option<Int64Value>,
        12 run_as_group: Option<Int64Value>,
        6 run_as_username: String,
        7 readonly_rootfs: bool,
        8 supplemental_groups: Vec<i64>,
        17 supplemental_groups_policy: SupplementalGroupsPolicy,
        11 no_new_privs: bool,
        13 masked_paths: Vec<String>,
        14 readonly_paths: Vec<String>,
        15 seccomp: Option<SecurityProfile>,
        16 apparmor: Option<SecurityProfile>,
        9 apparmor_profile: String,
        10 seccomp_profile_path: String,
    }

    LinuxContainerConfig {
        1 resources: Option<LinuxContainerResources>,
        2 security_context: Option<LinuxContainerSecurityContext>,
    }

    LinuxContainerUser { 1 uid: i64, 2 gid: i64, 3 supplemental_groups: Vec<i64> }
}
