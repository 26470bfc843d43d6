//! The bridge: made when absent, mended when it differs.

use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::BridgeLink;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::types::route::RouteScope;
use nlink::netlink::{Connection, Route, sysctl};

use crate::error::Attempt;
use crate::{NetworkConfig, NetworkError};

/// The hardware address that belongs to an IP address. The same pair for ever means that nobody's neighbour table
/// goes stale when an address changes hands.
pub(crate) fn mac(addr: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = addr.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Makes or mends the bridge with its address, and turns forwarding on.
pub(crate) async fn ensure(conn: &Connection<Route>, config: &NetworkConfig) -> Result<(), NetworkError> {
    let (name, gateway) = (config.bridge.as_str(), config.gateway());
    let find = || async { conn.get_link_by_name(name).await.attempt("look up interface", name) };
    let mut link = find().await?;
    if link.is_none() {
        let bridge = BridgeLink::new(name).address(mac(gateway)).stp(false).forward_delay_ms(0);
        match conn.add_link(bridge).await {
            Err(e) if e.is_already_exists() => {}
            other => other.attempt("make bridge", name)?,
        }
        link = find().await?;
    }
    let link = link.ok_or_else(|| NetworkError::NotABridge(name.to_owned()))?;
    if link.kind() != Some("bridge") {
        return Err(NetworkError::NotABridge(name.to_owned()));
    }
    let index = link.ifindex();
    if link.address() != Some(&mac(gateway)[..]) {
        conn.set_link_address_by_index(index, mac(gateway)).await.attempt("set hardware address of", name)?;
    }
    addresses(conn, config, index).await?;
    if !link.is_up() {
        conn.set_link_up_by_index(index).await.attempt("bring up", name)?;
    }
    for net in &config.service_cidrs {
        let route = Ipv4Route::new(net.network(), net.prefix_len()).dev_index(index).scope(RouteScope::Link);
        conn.replace_route(route.prefsrc(gateway)).await.attempt("route service addresses to", name)?;
    }
    settings()
}

/// Exactly one IPv4 address: the gateway's.
async fn addresses(conn: &Connection<Route>, config: &NetworkConfig, index: u32) -> Result<(), NetworkError> {
    let wanted = (config.gateway(), config.pod_cidr.prefix_len());
    let mut there = false;
    for found in conn.get_addresses_by_index(index).await.attempt("read addresses of", &config.bridge)? {
        let (Some(IpAddr::V4(addr)), prefix) = (found.address().copied(), found.prefix_len()) else {
            continue;
        };
        if (addr, prefix) == wanted {
            there = true;
        } else {
            conn.del_address_by_index(index, IpAddr::V4(addr), prefix)
                .await
                .attempt("remove stale address from", &config.bridge)?;
        }
    }
    if !there {
        let address = Ipv4Address::with_index(index, wanted.0, wanted.1);
        match conn.add_address(address).await {
            Err(e) if e.is_already_exists() => {}
            other => other.attempt("add address to", &config.bridge)?,
        }
    }
    Ok(())
}

fn settings() -> Result<(), NetworkError> {
    const FORWARD: &str = "net.ipv4.ip_forward";
    if sysctl::get(FORWARD).ok().as_deref() == Some("1") {
        return Ok(());
    }
    sysctl::set(FORWARD, "1").map_err(|source| NetworkError::Setting {
        key: FORWARD.to_owned(),
        value: "1",
        source,
    })
}
