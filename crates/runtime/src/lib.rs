//! Containers: a shim for each sandbox, namespaces, cgroups, overlay snapshots, logs, exec. Knows nothing of
//! Kubernetes.

mod apparmor;
mod client;
mod container;
mod dial;
mod error;
mod exec;
mod hooks;
mod launch;
mod oci;
mod protocol;
mod records;
mod runtime;
mod sandbox;
mod session;
mod shim;
mod spec;
mod status;
mod time;
mod usage;

pub use apparmor::{
    DEFAULT_APPARMOR_PROFILE, has_apparmor, has_default_apparmor_profile, load_default_apparmor_profile,
};
pub use error::{Error, Result};
pub use exec::OutputKind;
pub use launch::{MASKED_PATHS, READONLY_PATHS};
pub use runtime::{Runtime, RuntimeConfig};
pub use session::{Session, Stdio};
pub use shim::shim_main;
pub use spec::{
    Capabilities, ContainerSpec, Device, ExecSpec, Hook, Hooks, IpcMode, Labels, Mount, MountKind,
    NetworkMode, OnceNetwork, OnceSpec, PidMode, Propagation, Resources, Rootfs, SandboxSpec, Seccomp, User,
    UserRange,
};
pub use status::{
    ContainerEvent, ContainerState, ContainerStatus, Exit, Output, Sandbox, SandboxState, SandboxStatus,
};
pub use usage::{ContainerUsage, SandboxUsage};
