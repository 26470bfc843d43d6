//! The handle of a node's network.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nlink::netlink::nftables::Family;
use nlink::netlink::{Connection, Nftables, Route};
use parking_lot::Mutex;

use crate::attach::Plan;
use crate::error::Attempt;
use crate::ipam::Ipam;
use crate::rules::{self, Published};
use crate::{HostPort, NetworkConfig, NetworkError, bridge, host_interface, nft};

/// How long interfaces may take to go with their namespace.
const LINGER: Duration = Duration::from_secs(5);

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

/// One namespace's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its next hop, which is also the node.
    pub gateway: Ipv4Addr,
    /// The hardware address of its `eth0`.
    pub mac: [u8; 6],
    /// The node's end of its pair of interfaces.
    pub host_if: String,
}

/// An attachment the node has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Who.
    pub id: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The node's end of its pair of interfaces.
    pub host_if: String,
    /// The ports of the node that lead to it.
    pub ports: Vec<HostPort>,
}

/// The network of one node. Clones share it.
///
/// It acts in the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    config: NetworkConfig,
    route: Connection<Route>,
    nft: Connection<Nftables>,
    ipam: Mutex<Ipam>,
    /// The ports in the kernel. Held over each change of them, so that the two agree.
    ports: tokio::sync::Mutex<Vec<Published>>,
}

impl Network {
    /// Makes the bridge, its address, forwarding and the packet rules, or mends what differs. What an earlier run
    /// attached stays attached.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        config.check()?;
        let ipam = Ipam::open(&config.data_dir, config.pod_cidr)?;
        let route = Connection::<Route>::new().attempt("open netlink for", &config.bridge)?;
        let nft = nft::connect().attempt("open nftables for", &config.bridge)?;
        bridge::ensure(&route, &config).await?;
        let ports = tokio::sync::Mutex::new(rules::ensure(&nft, &config).await?);
        let inner = Inner { config, route, nft, ipam: Mutex::new(ipam), ports };
        let network = Self { inner: Arc::new(inner) };
        network.mend_routes().await?;
        Ok(network)
    }

    /// Routes go when the gateway's address goes, and pairs stay: puts back what an outage of the bridge took.
    async fn mend_routes(&self) -> Result<(), NetworkError> {
        let inner = &*self.inner;
        let attached = self.attached().await;
        if attached.is_empty() {
            return Ok(());
        }
        let name = &inner.config.bridge;
        let pairs: HashMap<String, u32> = self.pairs().await?.into_iter().collect();
        let routes = inner.route.get_routes_for_table(MAIN_TABLE).await.attempt("list routes of", name)?;
        let there: HashSet<_> = routes.iter().filter_map(|r| Some((*r.destination()?, r.oif()?))).collect();
        for Attached { ip, host_if, .. } in &attached {
            let Some(index) = pairs.get(host_if) else { continue };
            if !there.contains(&(IpAddr::V4(*ip), *index)) {
                Plan { config: &inner.config, host_if, ip: *ip }.outside(&inner.route, *index).await?;
            }
        }
        Ok(())
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &NetworkConfig {
        &self.inner.config
    }

    /// Joins a network namespace: `eth0` with an address, a default route, `lo` up. Doing it again mends what is
    /// missing and answers the same. An id keeps its address until it is detached.
    pub async fn attach(&self, id: &str, netns: &Path) -> Result<Attachment, NetworkError> {
        let inner = &*self.inner;
        let known = self.address(id).is_some();
        let ip = inner.ipam.lock().allocate(id)?;
        let host_if = host_interface(&inner.config.bridge, id);
        let plan = Plan { config: &inner.config, host_if: &host_if, ip };
        if let Err(error) = plan.run(&inner.route, netns).await {
            if !known {
                // Nobody will detach what was never attached.
                let _ = inner.route.del_link_if_exists(host_if.as_str()).await;
                let _ = inner.ipam.lock().release(id);
            }
            return Err(error);
        }
        Ok(Attachment { ip, gateway: inner.config.gateway(), mac: bridge::mac(ip), host_if })
    }

    /// Removes the interfaces and published ports of an id and frees its address. Unknown ids and namespaces that
    /// are gone already are fine.
    pub async fn detach(&self, id: &str) -> Result<(), NetworkError> {
        let inner = &*self.inner;
        let host_if = host_interface(&inner.config.bridge, id);
        inner.route.del_link_if_exists(host_if.as_str()).await.attempt("remove interface", &host_if)?;
        self.free(id).await
    }

    /// [`Self::detach`] for an id whose namespace has just ended: its interfaces go with it. The kernel removes those
    /// of many namespaces at once, whereas to remove one by hand takes a grace period (some 20 ms) during which nobody
    /// else can change an interface. Should something hold the namespace, they are removed after a while.
    pub async fn release(&self, id: &str) -> Result<(), NetworkError> {
        let inner = &*self.inner;
        let host_if = host_interface(&inner.config.bridge, id);
        let link = inner.route.get_link_by_name(&host_if).await.attempt("look up interface", &host_if)?;
        self.free(id).await?;
        if let Some(link) = link {
            let (network, index) = (self.clone(), link.ifindex());
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                // By its index, which no other interface has had since: the id may be attached again by now.
                if let Err(error) = remove_link(&network.inner.route, index, &host_if).await {
                    tracing::warn!(%error, "an interface has outlived its pod");
                }
            });
        }
        Ok(())
    }

    async fn free(&self, id: &str) -> Result<(), NetworkError> {
        if let Some(addr) = self.address(id) {
            self.set_ports(addr, &[]).await?;
        }
        self.inner.ipam.lock().release(id)?;
        Ok(())
    }

    /// Publishes ports of the node for an attached id, in place of those it had. All or none.
    pub async fn publish(&self, id: &str, ports: &[HostPort]) -> Result<(), NetworkError> {
        let addr = self.address(id).ok_or_else(|| NetworkError::NotAttached(id.to_owned()))?;
        self.set_ports(addr, ports).await
    }

    async fn set_ports(&self, target: Ipv4Addr, ports: &[HostPort]) -> Result<(), NetworkError> {
        let inner = &*self.inner;
        let mut all = inner.ports.lock().await;
        for port in ports {
            let clash = |p: &&Published| {
                let (a, b) = (&p.port, port);
                p.target != target
                    && (a.protocol, a.host_port) == (b.protocol, b.host_port)
                    && (a.host_ip == b.host_ip || a.host_ip.is_none() || b.host_ip.is_none())
            };
            if let Some(taken) = all.iter().find(clash) {
                let owner = taken.target;
                return Err(NetworkError::PortTaken { port: port.host_port, protocol: port.protocol, owner });
            }
        }
        let wanted: HashSet<HostPort> = ports.iter().copied().collect();
        let (mine, mut after): (Vec<_>, Vec<_>) = all.iter().copied().partition(|p| p.target == target);
        let remove: Vec<_> = mine.iter().copied().filter(|p| !wanted.contains(&p.port)).collect();
        let add: Vec<_> = wanted
            .iter()
            .map(|port| Published { port: *port, target })
            .filter(|p| !mine.contains(p))
            .collect();
        if remove.is_empty() && add.is_empty() {
            return Ok(());
        }
        let off = (!mine.is_empty() && wanted.is_empty()).then_some(target);
        let on = (mine.is_empty() && !wanted.is_empty()).then_some(target);
        let table = inner.config.table();
        rules::change(&inner.nft, &table, &remove, &add, off, on)
            .await
            .attempt("publish ports in", &table)?;
        after.extend(wanted.into_iter().map(|port| Published { port, target }));
        *all = after;
        Ok(())
    }

    /// The address an id holds.
    pub fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.inner.ipam.lock().address(id)
    }

    /// Everything that holds an address.
    pub async fn attached(&self) -> Vec<Attached> {
        let inner = &*self.inner;
        let ports = inner.ports.lock().await;
        let ipam = inner.ipam.lock();
        ipam.entries()
            .map(|(id, ip)| Attached {
                id: id.to_owned(),
                ip,
                host_if: host_interface(&inner.config.bridge, id),
                ports: ports.iter().filter(|p| p.target == ip).map(|p| p.port).collect(),
            })
            .collect()
    }

    /// Detaches every id that is not in `keep`, and removes pairs that belong to none of them.
    /// Returns the ids detached.
    pub async fn gc(&self, keep: &HashSet<String>) -> Result<Vec<String>, NetworkError> {
        let inner = &*self.inner;
        let mut gone = Vec::new();
        for attached in self.attached().await {
            if !keep.contains(&attached.id) {
                self.detach(&attached.id).await?;
                gone.push(attached.id);
            }
        }
        let known: HashSet<String> = self.attached().await.into_iter().map(|a| a.host_if).collect();
        for (name, index) in self.pairs().await? {
            if !known.contains(&name) {
                remove_link(&inner.route, index, &name).await?;
            }
        }
        Ok(gone)
    }

    /// Removes everything made here: pairs, bridge, packet rules, address records.
    pub async fn destroy(&self) -> Result<(), NetworkError> {
        let inner = &*self.inner;
        for (name, index) in self.pairs().await? {
            remove_link(&inner.route, index, &name).await?;
        }
        let bridge = &inner.config.bridge;
        inner.route.del_link_if_exists(bridge.as_str()).await.attempt("remove bridge", bridge)?;
        let table = inner.config.table();
        let mut ports = inner.ports.lock().await;
        inner.nft.del_table_if_exists(table.as_str(), Family::Ip).await.attempt("remove table", &table)?;
        ports.clear();
        drop(ports);
        let mut ipam = inner.ipam.lock();
        let ids: Vec<String> = ipam.entries().map(|(id, _)| id.to_owned()).collect();
        for id in ids {
            ipam.release(&id)?;
        }
        Ok(())
    }

    /// The node's ends of all pairs.
    async fn pairs(&self) -> Result<Vec<(String, u32)>, NetworkError> {
        let inner = &*self.inner;
        let links = inner.route.get_links().await.attempt("list interfaces of", &inner.config.bridge)?;
        let group = inner.config.group();
        let pairs = links.iter().filter(|l| l.group() == Some(group) && l.kind() == Some("veth"));
        Ok(pairs.map(|l| (l.name_or("?").to_owned(), l.ifindex())).collect())
    }
}

async fn remove_link(conn: &Connection<Route>, index: u32, name: &str) -> Result<(), NetworkError> {
    match conn.del_link_by_index(index).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => other.attempt("remove interface", name),
    }
}
