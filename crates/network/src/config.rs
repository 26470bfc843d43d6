//! What a node's network is made from.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::NetworkError;

/// Longest name of an interface: `IFNAMSIZ` less the closing zero byte.
const IFNAME_MAX: usize = 15;

/// How a node's network is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where the address records live (`<data_dir>/ipam`).
    pub data_dir: PathBuf,
    /// Name of the bridge that carries the gateway address, at most 15 bytes.
    pub bridge: String,
    /// The addresses this node gives out. The first one is the gateway.
    pub pod_cidr: Ipv4Net,
    /// MTU of every attachment; the kernel's default (1500) if none.
    pub mtu: Option<u32>,
    /// Destinations besides `pod_cidr` that attachments reach under their own address, such as the pod ranges of
    /// other nodes.
    pub unmasqueraded: Vec<Ipv4Net>,
    /// Virtual ranges (service addresses) whose packets are translated before they leave. They get a route, so that
    /// the node itself can call them without a default route, under the gateway's address.
    pub service_cidrs: Vec<Ipv4Net>,
}

impl NetworkConfig {
    /// The usual network: bridge `gantry0`, default MTU.
    pub fn new(data_dir: impl Into<PathBuf>, pod_cidr: Ipv4Net) -> Self {
        Self {
            data_dir: data_dir.into(),
            bridge: "gantry0".to_owned(),
            pod_cidr,
            mtu: None,
            unmasqueraded: Vec::new(),
            service_cidrs: Vec::new(),
        }
    }

    /// The bridge's own address: the first one of `pod_cidr`.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).wrapping_add(1))
    }

    /// Name of the nftables table this network owns.
    pub(crate) fn table(&self) -> String {
        format!("{}-net", self.bridge)
    }

    /// The interface group of the node's ends of pairs, by which rules and clean-up know them.
    pub(crate) fn group(&self) -> u32 {
        0x6700_0000 | (fnv(self.bridge.bytes()) as u32 & 0x00ff_ffff)
    }

    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        let name = &self.bridge;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > IFNAME_MAX || !name.bytes().all(legal) || name.starts_with('.') {
            return Err(NetworkError::BridgeName(name.clone()));
        }
        if self.pod_cidr.prefix_len() > 29 {
            return Err(NetworkError::CidrTooSmall(self.pod_cidr));
        }
        Ok(())
    }
}

/// Name of the node's end of the pair that joins `id` to `bridge`. It depends on nothing else, so it is found again
/// after a restart.
pub fn host_interface(bridge: &str, id: &str) -> String {
    format!("veth{:011x}", fnv(bridge.bytes().chain([0]).chain(id.bytes())) & 0x0fff_ffff_ffff)
}

/// FNV-1a: names and groups must stay the same over versions, so it is spelled out here.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bridge: &str, cidr: &str) -> NetworkConfig {
        NetworkConfig { bridge: bridge.to_owned(), ..NetworkConfig::new("/x", cidr.parse().expect("a cidr")) }
    }

    #[test]
    fn gateway_is_the_first_address() {
        assert_eq!(config("b", "10.42.7.99/24").gateway(), Ipv4Addr::new(10, 42, 7, 1));
    }

    #[test]
    fn refuses_names_and_ranges_that_cannot_work() {
        assert!(config("gantry0", "10.42.0.0/24").check().is_ok());
        for bridge in ["", "sixteen-bytes-is", "a/b", "a b", ".."] {
            assert!(
                matches!(config(bridge, "10.42.0.0/24").check(), Err(NetworkError::BridgeName(_))),
                "{bridge}"
            );
        }
        assert!(matches!(config("g", "10.42.0.0/30").check(), Err(NetworkError::CidrTooSmall(_))));
    }

    #[test]
    fn host_interface_fits_and_is_stable() {
        assert_eq!(host_interface("gantry0", "pod").len(), IFNAME_MAX);
        assert_eq!(host_interface("gantry0", "pod"), host_interface("gantry0", "pod"));
        assert_ne!(host_interface("gantry0", "pod"), host_interface("gantry1", "pod"));
    }
}
