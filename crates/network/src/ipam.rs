//! Which address belongs to which id.
//!
//! A record is a symbolic link named by the address whose target is the id: made by one atomic, exclusive system
//! call and stored in the directory's own journal, so it is there whole or not at all, whenever the machine stops.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::NetworkError;

/// Longest id: what a link target holds without a block of its own on every file system, with much to spare.
const ID_MAX: usize = 255;

/// The address book of one node.
#[derive(Debug)]
pub(crate) struct Ipam {
    dir: PathBuf,
    cidr: Ipv4Net,
    by_id: HashMap<String, Ipv4Addr>,
    by_addr: BTreeMap<Ipv4Addr, String>,
    /// Where the search for a free address starts: after the last one given, so that a released address rests.
    next: u32,
}

impl Ipam {
    /// Reads the records under `data_dir`. Records outside `cidr`, left by another configuration, are dropped.
    pub(crate) fn open(data_dir: &Path, cidr: Ipv4Net) -> Result<Self, NetworkError> {
        let dir = data_dir.join("ipam");
        let failed = |attempt, path: &Path| {
            let path = path.to_owned();
            move |source| NetworkError::Records { attempt, path, source }
        };
        std::fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        let mut ipam = Self { dir, cidr, by_id: HashMap::new(), by_addr: BTreeMap::new(), next: 0 };
        for entry in std::fs::read_dir(&ipam.dir).map_err(failed("read", &ipam.dir))? {
            let path = entry.map_err(failed("read", &ipam.dir))?.path();
            let record =
                path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<Ipv4Addr>().ok()).zip(
                    std::fs::read_link(&path)
                        .ok()
                        .and_then(|t| OsString::into_string(t.into_os_string()).ok()),
                );
            match record {
                Some((addr, id)) if ipam.gives_out(addr) && !ipam.by_id.contains_key(&id) => {
                    ipam.by_addr.insert(addr, id.clone());
                    ipam.by_id.insert(id, addr);
                }
                _ => std::fs::remove_file(&path).map_err(failed("remove stray record", &path))?,
            }
        }
        ipam.next = ipam.by_addr.last_key_value().map_or(0, |(addr, _)| u32::from(*addr).wrapping_add(1));
        Ok(ipam)
    }

    fn gives_out(&self, addr: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&u32::from(addr))
    }

    /// After the network's address and the gateway.
    fn first(&self) -> u32 {
        u32::from(self.cidr.network()) + 2
    }

    /// Before the broadcast address.
    fn last(&self) -> u32 {
        u32::from(self.cidr.broadcast()) - 1
    }

    /// The address of `id`, given now if it has none yet.
    pub(crate) fn allocate(&mut self, id: &str) -> Result<Ipv4Addr, NetworkError> {
        if id.is_empty() || id.len() > ID_MAX || id.contains('\0') {
            return Err(NetworkError::BadId(id.to_owned()));
        }
        if let Some(addr) = self.by_id.get(id) {
            return Ok(*addr);
        }
        let (first, last) = (self.first(), self.last());
        let start = if (first..=last).contains(&self.next) { self.next } else { first };
        for candidate in (start..=last).chain(first..start).map(Ipv4Addr::from) {
            if self.by_addr.contains_key(&candidate) {
                continue;
            }
            let path = self.path(candidate);
            let target = OsString::from_vec(id.as_bytes().to_vec());
            match std::os::unix::fs::symlink(target, &path) {
                Ok(()) => {
                    self.next = u32::from(candidate).wrapping_add(1);
                    self.by_addr.insert(candidate, id.to_owned());
                    self.by_id.insert(id.to_owned(), candidate);
                    return Ok(candidate);
                }
                // Somebody else made it since we read the directory: theirs.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(source) => {
                    return Err(NetworkError::Records { attempt: "write address record", path, source });
                }
            }
        }
        Err(NetworkError::NoAddress { cidr: self.cidr, id: id.to_owned() })
    }

    /// Frees the address of `id` and returns it, if it had one.
    pub(crate) fn release(&mut self, id: &str) -> Result<Option<Ipv4Addr>, NetworkError> {
        let Some(addr) = self.by_id.get(id).copied() else { return Ok(None) };
        let path = self.path(addr);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(NetworkError::Records { attempt: "remove address record", path, source });
            }
            _ => {}
        }
        self.by_id.remove(id);
        self.by_addr.remove(&addr);
        Ok(Some(addr))
    }

    pub(crate) fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.by_addr.iter().map(|(addr, id)| (id.as_str(), *addr))
    }

    fn path(&self, addr: Ipv4Addr) -> PathBuf {
        self.dir.join(addr.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn open(dir: &Path, cidr: &str) -> Ipam {
        Ipam::open(dir, cidr.parse().expect("a cidr")).expect("open")
    }

    #[test]
    fn an_id_keeps_its_address_over_restarts() {
        let dir = tempfile::tempdir().expect("dir");
        let mut ipam = open(dir.path(), "10.42.0.0/24");
        let a = ipam.allocate("ns/a").expect("a");
        assert_eq!(a, Ipv4Addr::new(10, 42, 0, 2));
        let b = ipam.allocate("ns/b").expect("b");
        assert_ne!(a, b);
        let mut again = open(dir.path(), "10.42.0.0/24");
        assert_eq!(again.allocate("ns/a").expect("a"), a);
        assert_eq!(again.entries().count(), 2);
        assert_eq!(again.release("ns/a").expect("release"), Some(a));
        assert_eq!(again.release("ns/a").expect("release"), None);
        assert_ne!(again.allocate("ns/c").expect("c"), a, "a released address rests");
    }

    #[test]
    fn a_full_range_says_so_and_recovers() {
        let dir = tempfile::tempdir().expect("dir");
        let mut ipam = open(dir.path(), "10.42.0.0/29");
        for n in 0..5 {
            ipam.allocate(&n.to_string()).expect("free");
        }
        assert!(matches!(ipam.allocate("more"), Err(NetworkError::NoAddress { .. })));
        let freed = ipam.release("3").expect("release");
        assert_eq!(Some(ipam.allocate("more").expect("freed")), freed);
    }

    #[test]
    fn strays_and_foreign_records_are_dropped() {
        let dir = tempfile::tempdir().expect("dir");
        open(dir.path(), "10.1.0.0/24").allocate("old").expect("old");
        std::fs::write(dir.path().join("ipam/10.42.0.9"), b"").expect("torn");
        std::fs::write(dir.path().join("ipam/junk"), b"x").expect("junk");
        assert_eq!(open(dir.path(), "10.42.0.0/24").entries().count(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("ipam")).expect("dir").count(), 0);
    }

    #[test]
    fn refuses_ids_it_cannot_record() {
        let dir = tempfile::tempdir().expect("dir");
        let mut ipam = open(dir.path(), "10.42.0.0/24");
        for id in ["", "a\0b", &"x".repeat(256)] {
            assert!(matches!(ipam.allocate(id), Err(NetworkError::BadId(_))));
        }
        ipam.allocate(&"x".repeat(255)).expect("longest");
        ipam.allocate("../../etc/passwd").expect("an id is no path");
        assert_eq!(open(dir.path(), "10.42.0.0/24").entries().count(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec((any::<bool>(), 0u8..20), 1..60)) {
            let dir = tempfile::tempdir().expect("dir");
            let mut ipam = open(dir.path(), "10.42.0.0/28");
            for (take, id) in steps {
                let id = id.to_string();
                if take { let _ = ipam.allocate(&id); } else { ipam.release(&id).expect("release"); }
                let addrs: HashSet<_> = ipam.entries().map(|(_, a)| a).collect();
                prop_assert_eq!(addrs.len(), ipam.entries().count());
                let again = open(dir.path(), "10.42.0.0/28");
                prop_assert!(again.entries().eq(ipam.entries()));
            }
        }
    }
}
