//! Joining one network namespace to the node: a pair of interfaces, and on both ends a route and the hardware
//! address of the other one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use nlink::netlink::devconf::Ipv4Devconf;
use nlink::netlink::link::{LinkCreateExt, VethLink};
use nlink::netlink::namespace::Netns;
use nlink::netlink::neigh::Neighbor;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::types::route::RouteScope;
use nlink::netlink::{Connection, Route};

use crate::bridge::mac;
use crate::error::Attempt;
use crate::{NetworkConfig, NetworkError};

/// Name of the interface inside.
const INSIDE: &str = "eth0";
/// Index of the loopback interface, the first one of every network namespace.
const LOOPBACK: u32 = 1;

/// What to make.
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a NetworkConfig,
    pub(crate) host_if: &'a str,
    pub(crate) ip: Ipv4Addr,
}

/// The two ends of a pair, by their indices in their namespaces.
struct Pair {
    host: u32,
    inside: u32,
}

impl Plan<'_> {
    /// Makes whatever is missing.
    pub(crate) async fn run(&self, conn: &Connection<Route>, path: &Path) -> Result<(), NetworkError> {
        let namespace = |source| NetworkError::Namespace { path: path.to_owned(), source };
        let netns = Netns::from_path(path).map_err(namespace)?;
        let inside = Connection::<Route>::new_in(&netns).map_err(namespace)?;
        let pair = match self.find(conn, &inside).await? {
            Some(pair) => pair,
            None => {
                self.make(conn, &netns).await?;
                let pair = self.find(conn, &inside).await?;
                pair.ok_or_else(|| NetworkError::NotAttached(self.host_if.to_owned()))?
            }
        };
        self.outside(conn, pair.host).await?;
        self.inside(&inside, pair.inside).await
    }

    async fn make(&self, conn: &Connection<Route>, netns: &Netns) -> Result<(), NetworkError> {
        // Each end's hardware address belongs to its IP address, so that the other end knows it without asking.
        let veth = || {
            let veth = VethLink::new(self.host_if, INSIDE)
                .address(mac(self.config.gateway()))
                .peer_address(mac(self.ip))
                .peer_netns_fd(netns);
            match self.config.mtu {
                Some(mtu) => veth.mtu(mtu).peer_mtu(mtu),
                None => veth,
            }
            .up()
        };
        match conn.add_link(veth()).await {
            Err(e) if e.is_already_exists() => {
                // A leftover: its other end is in a namespace that is not this one, or is no pair of ours.
                conn.del_link_if_exists(self.host_if)
                    .await
                    .attempt("remove stale interface", self.host_if)?;
                conn.add_link(veth()).await.attempt("make interface", self.host_if)
            }
            other => other.attempt("make interface", self.host_if),
        }
    }

    /// The pair, if it exists and its other end is in this namespace.
    async fn find(
        &self,
        conn: &Connection<Route>,
        inside: &Connection<Route>,
    ) -> Result<Option<Pair>, NetworkError> {
        let host = conn.get_link_by_name(self.host_if).await.attempt("look up interface", self.host_if)?;
        let Some(host) = host else { return Ok(None) };
        let peer = inside.get_link_by_name(INSIDE).await.attempt("look up interface", INSIDE)?;
        let Some(peer) = peer else { return Ok(None) };
        // Each end of a pair names the index of the other one; the hardware address tells two pairs apart that
        // happen to have the same indices in different namespaces.
        let pair = peer.link() == Some(host.ifindex())
            && host.link() == Some(peer.ifindex())
            && peer.address() == Some(&mac(self.ip)[..]);
        Ok(pair.then(|| Pair { host: host.ifindex(), inside: peer.ifindex() }))
    }

    /// The node's end.
    pub(crate) async fn outside(&self, conn: &Connection<Route>, index: u32) -> Result<(), NetworkError> {
        conn.set_link_group_by_index(index, self.config.group())
            .await
            .attempt("set group of", self.host_if)?;
        // `route_localnet`: the node's calls to 127.0.0.1:<published port> are led inside.
        let settings = [(Ipv4Devconf::Forwarding, 1), (Ipv4Devconf::RouteLocalnet, 1)];
        conn.set_ipv4_devconf_by_index(index, &settings).await.attempt("set forwarding of", self.host_if)?;
        conn.set_link_up_by_index(index).await.attempt("bring up", self.host_if)?;
        conn.replace_neighbor(Neighbor::with_index_v4(index, self.ip).lladdr(mac(self.ip)).permanent())
            .await
            .attempt("add neighbour to", self.host_if)?;
        let route = Ipv4Route::new(self.ip, 32).dev_index(index).scope(RouteScope::Link);
        conn.replace_route(route.prefsrc(self.config.gateway())).await.attempt("add route to", self.host_if)
    }

    async fn inside(&self, conn: &Connection<Route>, index: u32) -> Result<(), NetworkError> {
        let gateway = self.config.gateway();
        conn.set_link_up_by_index(LOOPBACK).await.attempt("bring up", "lo")?;
        conn.replace_address_by_index(index, IpAddr::V4(self.ip), 32)
            .await
            .attempt("add address to", INSIDE)?;
        conn.set_link_up_by_index(index).await.attempt("bring up", INSIDE)?;
        conn.replace_neighbor(Neighbor::with_index_v4(index, gateway).lladdr(mac(gateway)).permanent())
            .await
            .attempt("add neighbour to", INSIDE)?;
        // The next hop is not in the /32, so it is declared to be on the link.
        conn.replace_route(Ipv4Route::new(gateway, 32).dev_index(index).scope(RouteScope::Link))
            .await
            .attempt("add route to gateway on", INSIDE)?;
        conn.replace_route(Ipv4Route::default_route().gateway(gateway).dev_index(index))
            .await
            .attempt("add default route on", INSIDE)
    }
}
