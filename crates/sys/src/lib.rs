//! System calls: namespaces, mounts, cgroups, processes, terminals, capabilities.
//!
//! This is the only crate with `unsafe` code; each block says why it is sound. What is here does one thing each
//! and knows nothing of containers.
#![allow(unsafe_code)]

mod alloc;
mod beneath;
mod block;
mod caps;
pub mod cgroup;
mod copies;
mod error;
mod fd;
mod mount;
mod mount_table;
mod namespace;
mod overlay;
mod process;
mod remove;
mod seccomp;
mod signal;
mod socket;
mod syscalls;
mod terminal;
mod watched;

pub use alloc::{Allocator, allocate_with_mimalloc, use_huge_pages};
pub use beneath::{bind_handle, make_beneath, open_beneath, open_folder, open_in_root};
pub use block::{
    LoopDevice, attach_loop, detach_loop, find_loop, grow_ext4, mount_device, reflink, refresh_loop, sync_fs,
};
pub use caps::CapSet;
pub use copies::{copy_sparse, freeze, thaw};
pub use error::{Error, Result};
pub use fd::{Poller, copy_fd, pipe, read_some, set_nonblocking, set_pipe_size, write_some};
pub use mount::{
    FsBuilder, MountAttr, MountPropagation, MountTree, OpenedTarget, Outside, bind_file, detach, is_on_proc,
    make_node, make_root_slave, open_target, pivot_into, set_root_readonly, step_into,
};
pub use mount_table::{few_mounts, is_mount_root, mount_of, mount_points};
pub use namespace::{Namespaces, join, loopback_up, open_own, set_hostname, unshare};
pub use overlay::{overlay, overlay_to_read};
pub use process::{
    Forked, Waited, become_session_leader, close_from, close_on_exec_from, die_with_parent, exec, exit_now,
    fork, fork_beside, heap_small, heap_trim, kill, kill_group, kill_pidfd, no_new_privileges, pid,
    pidfd_open, process_start, reap_for_ever, replace_stdio, reset_signals, set_dumpable, set_fs_ids,
    set_ids, set_rlimit, set_subreaper, set_umask, thread_count, wait_any, wait_for, wait_pidfd,
};
pub use remove::remove_tree;
pub use seccomp::{FilterInsn, install_filter};
pub use signal::{SignalFd, parse_signal};
pub use socket::{Received, recv_with_fds, send_with_fds};
pub use syscalls::{syscall_names, syscall_number};
pub use terminal::{open_terminal, set_controlling, set_size, terminal_number};
pub use watched::WatchedFd;
