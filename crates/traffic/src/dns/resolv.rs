//! The upstream servers, out of a `resolv.conf`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// `systemd-resolved`'s address for the machine's own programs.
const STUB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53));
/// Where it lists the servers behind that.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The servers a `resolv.conf` names, in order.
pub(super) fn servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // An IPv6 address may name its interface; that needs an index and is not supported.
        if let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) {
            let server = SocketAddr::new(ip, 53);
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
    }
    servers
}

/// The servers of the file at `path`, without those that are `ours`. Where the file names only the stub of
/// `systemd-resolved`, the servers behind it are taken, so that a stub that asks us cannot close a circle.
pub(super) fn read(path: &Path, ours: &[IpAddr]) -> std::io::Result<Vec<SocketAddr>> {
    let mut found = servers(&std::fs::read_to_string(path)?);
    if found.iter().any(|s| s.ip() == STUB)
        && let Ok(text) = std::fs::read_to_string(PathBuf::from(BEHIND_STUB))
    {
        found.retain(|s| s.ip() != STUB);
        found.extend(servers(&text));
    }
    found.retain(|s| !ours.contains(&s.ip()) && !s.ip().is_unspecified());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_servers_and_skips_ourselves() {
        let text = "# comment\nsearch x\nnameserver 192.0.2.1\n nameserver\t10.42.0.1 # ours\nnameserver nonsense\n\
                    nameserver 2001:db8::1\nnameserver 192.0.2.1\nnameserver 0.0.0.0\n";
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, text).expect("write");
        let found = read(&path, &[IpAddr::from([10, 42, 0, 1])]).expect("read");
        assert_eq!(found, ["192.0.2.1:53".parse().expect("v4"), "[2001:db8::1]:53".parse().expect("v6")]);
        assert!(read(&dir.path().join("absent"), &[]).is_err());
    }
}
