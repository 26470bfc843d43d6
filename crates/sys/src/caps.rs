//! Capabilities.

use crate::error::{Error, Result};

/// In the order of `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// All that the running kernel knows.
    pub fn all() -> Self {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .unwrap_or(NAMES.len() as u32 - 1)
            .min(62);
        Self((1 << (last + 1)) - 1)
    }

    /// These, by name with or without `CAP_`; `ALL` is all.
    pub fn named<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut set = Self::EMPTY;
        for name in names {
            let name = name.as_ref().to_ascii_uppercase();
            let short = name.strip_prefix("CAP_").unwrap_or(&name);
            if short == "ALL" {
                set = set.with(Self::all());
                continue;
            }
            let bit = NAMES
                .iter()
                .position(|known| *known == short)
                .ok_or_else(|| Error::Invalid { what: "capability", text: name.clone() })?;
            set.0 |= 1 << bit;
        }
        Ok(set)
    }

    /// These and those.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those in both.
    pub fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the capability of this name (without `CAP_`) is in it.
    pub fn has(self, name: &str) -> bool {
        NAMES.iter().position(|known| *known == name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    /// Their names, without `CAP_`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }

    /// Nobody started from here on can have more than these.
    pub fn bound(self) -> Result<()> {
        let all = Self::all().0;
        for bit in 0..63 {
            if all & (1 << bit) != 0 && self.0 & (1 << bit) == 0 {
                // SAFETY: takes numbers only.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit as libc::c_ulong, 0, 0, 0) } != 0 {
                    return Err(Error::last("drop capability", NAMES.get(bit).copied().unwrap_or("unknown")));
                }
            }
        }
        Ok(())
    }

    /// Makes these the effective and permitted capabilities of this process, and none inheritable.
    pub fn apply(self) -> Result<()> {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let low = Data { effective: self.0 as u32, permitted: self.0 as u32, inheritable: 0 };
        let high =
            Data { effective: (self.0 >> 32) as u32, permitted: (self.0 >> 32) as u32, inheritable: 0 };
        let data = [low, high];
        // SAFETY: version 3 takes a header and two data elements; the kernel only writes the header's version.
        if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } == 0 {
            return Ok(());
        }
        Err(Error::last("set", "capabilities"))
    }

    /// The effective capabilities of this process.
    pub fn effective() -> Result<Self> {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let mut data = [Data::default(); 2];
        // SAFETY: version 3 takes a header and room for two data elements.
        if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } == 0 {
            return Ok(Self(u64::from(data[0].effective) | u64::from(data[1].effective) << 32));
        }
        Err(Error::last("get", "capabilities"))
    }
}

const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct` of `linux/capability.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_sets() {
        let set = CapSet::named(["NET_ADMIN", "cap_bpf"]).unwrap();
        assert!(set.has("NET_ADMIN") && set.has("BPF") && !set.has("CHOWN"));
        assert_eq!(set.0, 1 << 12 | 1 << 39);
        assert_eq!(CapSet::named(["ALL"]).unwrap(), CapSet::all());
        assert!(CapSet::named(["NOPE"]).is_err());
        assert_eq!(CapSet::all().without(CapSet::all()), CapSet::EMPTY);
    }

    #[test]
    fn structures_are_as_the_kernel_has_them() {
        assert_eq!((size_of::<Header>(), size_of::<Data>()), (8, 12));
    }
}
