//! Which devices processes may use: a list on v1, a program on v2.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result};

/// One kind of use that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    /// `None` is all.
    pub major: Option<u32>,
    /// `None` is all.
    pub minor: Option<u32>,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making nodes.
    pub mknod: bool,
}

impl DeviceRule {
    /// Everything with this device.
    pub const fn all_of(kind: char, major: Option<u32>, minor: Option<u32>) -> Self {
        Self { kind, major, minor, read: true, write: true, mknod: true }
    }

    pub(super) fn v1(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let letter = |on: bool, letter: &'static str| if on { letter } else { "" };
        format!(
            "{} {}:{} {}{}{}",
            self.kind,
            number(self.major),
            number(self.minor),
            letter(self.read, "r"),
            letter(self.write, "w"),
            letter(self.mknod, "m")
        )
    }
}

/// What every container may use: any node may be made; null, zero, full, random, terminals may be used
/// (opencontainers/runc, `libcontainer/specconv/spec_linux.go`, `AllowedDevices`).
pub fn default_rules() -> Vec<DeviceRule> {
    let make = |kind| DeviceRule { kind, major: None, minor: None, read: false, write: false, mknod: true };
    let mut rules = vec![make('c'), make('b')];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(DeviceRule::all_of('c', Some(major), Some(minor)));
    }
    rules.push(DeviceRule::all_of('c', Some(136), None));
    rules
}

/// `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Of `linux/bpf.h` and `linux/bpf_common.h`.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ATTACH_ALLOW_MULTI: u32 = 2;

/// The program: 1 in register 0 allows, 0 denies. Its argument is `struct bpf_cgroup_dev_ctx`.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let insn = |code, to: u8, from: u8, offset, immediate| Insn {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    };
    // 2 = access, 3 = kind, 4 = major, 5 = minor.
    let mut all = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
        insn(MOVE, 3, 2, 0, 0),
        insn(AND, 3, 0, 0, 0xffff),
        insn(RIGHT, 2, 0, 0, 16),
    ];
    for rule in rules {
        let mut checks: Vec<(u8, i32)> = Vec::new();
        match rule.kind {
            'b' => checks.push((3, 1)),
            'c' => checks.push((3, 2)),
            _ => {}
        }
        let numbers = [(4, rule.major), (5, rule.minor)];
        checks.extend(numbers.into_iter().filter_map(|(register, n)| Some((register, n? as i32))));
        let denied = (!rule.mknod as i32) | (!rule.read as i32) << 1 | (!rule.write as i32) << 2;
        let access = if denied == 0 { 0 } else { 3 };
        let mut left = checks.len() + access + 2;
        for (register, value) in checks {
            left -= 1;
            all.push(insn(JUMP_UNLESS_EQUAL, register, 0, left as i16, value));
        }
        if denied != 0 {
            all.push(insn(MOVE, 1, 2, 0, 0));
            all.push(insn(AND, 1, 0, 0, denied));
            all.push(insn(JUMP_UNLESS_EQUAL, 1, 0, 2, 0));
        }
        all.push(insn(MOVE_IMMEDIATE, 0, 0, 0, 1));
        all.push(insn(EXIT, 0, 0, 0, 0));
    }
    all.push(insn(MOVE_IMMEDIATE, 0, 0, 0, 0));
    all.push(insn(EXIT, 0, 0, 0, 0));
    all
}

/// The part of `union bpf_attr` that loading needs.
#[repr(C)]
#[derive(Default)]
struct LoadArgs {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching needs.
#[repr(C)]
struct AttachArgs {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Attaches a program that allows what `rules` say to the v2 cgroup whose directory `dir` is.
pub(super) fn attach(dir: &OwnedFd, rules: &[DeviceRule]) -> Result<()> {
    let insns = program(rules);
    let load = LoadArgs {
        kind: TYPE_CGROUP_DEVICE,
        count: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadArgs::default()
    };
    // SAFETY: the instructions and the license outlive the call, and the size is that of the arguments.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<LoadArgs>()) };
    if fd < 0 {
        return Err(Error::last("load", "the device program"));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let attach = AttachArgs {
        target: dir.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ATTACH_ALLOW_MULTI,
    };
    // SAFETY: the arguments are descriptors and numbers, and the size is theirs.
    if unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<AttachArgs>()) } == 0 {
        return Ok(());
    }
    Err(Error::last("attach", "the device program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_the_words_of_v1() {
        assert_eq!(DeviceRule::all_of('c', Some(1), None).v1(), "c 1:* rwm");
        assert_eq!(default_rules()[0].v1(), "c *:* m");
    }

    #[test]
    fn jumps_lead_to_the_next_rule() {
        let code = program(&[DeviceRule::all_of('c', Some(1), Some(3))]);
        // Six to unpack, three checks, allow, deny.
        assert_eq!(code.len(), 6 + 3 + 2 + 2);
        assert_eq!(code[6..9].iter().map(|insn| insn.offset).collect::<Vec<_>>(), [4, 3, 2]);
        assert_eq!(size_of::<Insn>(), 8);
    }
}
