//! The nftables table of a node's network: masquerading, published ports, and the guard that `route_localnet`
//! makes necessary. Made in one transaction; an equal table that is there already is left alone.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nlink::netlink::nftables::{
    BaseChain, Chain, Expr, Family, FilterHook, MasqExpr, MetaKey, NatHook, Priority, Rule, Set, SetDataType,
    SetElement, SetElementData, SetKeyType, Verdict,
};
use nlink::netlink::{Connection, Nftables};

use crate::error::Attempt;
use crate::nft::{self, Key};
use crate::{HostPort, NetworkConfig, NetworkError, Protocol};

/// Changed whenever the rules below change, so that an older version's table is replaced.
const VERSION: u32 = 1;

/// The table's named sets.
pub(crate) struct Sets {
    /// protocol . port → address . port, for every address of the node.
    any: Set,
    /// address . protocol . port → address . port.
    one: Set,
    /// address . address of every attachment with published ports, which may call itself by way of the node.
    hairpin: Set,
}

/// A published port as the kernel holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) port: HostPort,
    pub(crate) target: Ipv4Addr,
}

impl Sets {
    pub(crate) fn new(table: &str) -> Self {
        let target =
            || SetDataType::Value(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService]));
        let set = |name| Set::new(table, name).family(Family::Ip);
        Self {
            any: set("hostports")
                .key_type(SetKeyType::Concat(vec![SetKeyType::InetProto, SetKeyType::InetService]))
                .map(target()),
            one: set("hostports-ip")
                .key_type(SetKeyType::Concat(vec![
                    SetKeyType::Ipv4Addr,
                    SetKeyType::InetProto,
                    SetKeyType::InetService,
                ]))
                .map(target()),
            hairpin: set("hairpin")
                .key_type(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::Ipv4Addr])),
        }
    }

    fn of(&self, port: &HostPort) -> &Set {
        if port.host_ip.is_some() { &self.one } else { &self.any }
    }
}

fn key(port: &HostPort) -> Key {
    let key = port.host_ip.map_or_else(Key::new, |ip| Key::new().addr(ip));
    key.proto(port.protocol.number()).port(port.host_port)
}

fn element(published: &Published) -> SetElement {
    let value = Key::new().addr(published.target).port(published.port.container_port);
    SetElement::new(key(&published.port).into_bytes()).value(SetElement::new(value.into_bytes()))
}

fn hairpin(addr: Ipv4Addr) -> SetElement {
    SetElement::new(Key::new().addr(addr).addr(addr).into_bytes())
}

/// What the table says of itself: version and configuration. Another text means another table.
fn signature(config: &NetworkConfig) -> String {
    let mut text = format!("gantry-net {VERSION} {}", config.pod_cidr);
    for net in &config.unmasqueraded {
        text.push_str(&format!(",{net}"));
    }
    // A comment holds at most 127 bytes; a long list of ranges is told by its hash.
    if text.len() > 120 {
        let tail = crate::host_interface("", &text);
        text.truncate(80);
        text.push_str(&tail);
    }
    text
}

/// Makes the table, keeping ports that an earlier one had published. Returns the published ports.
pub(crate) async fn ensure(
    conn: &Connection<Nftables>,
    config: &NetworkConfig,
) -> Result<Vec<Published>, NetworkError> {
    let table = config.table();
    let existing = conn.list_tables_in(Family::Ip).await.attempt("list tables for", &table)?;
    let existing = existing.into_iter().find(|t| t.name == table);
    let published = match &existing {
        Some(_) => published(conn, &table).await?,
        None => Vec::new(),
    };
    let signature = signature(config);
    if existing.is_some_and(|t| t.comment.as_deref() == Some(&signature)) {
        return Ok(published);
    }
    build(conn, config, &signature, &published).await.attempt("make table", &table)?;
    Ok(published)
}

/// The ports the kernel has, read back. A table of another shape yields none.
async fn published(conn: &Connection<Nftables>, table: &str) -> Result<Vec<Published>, NetworkError> {
    let mut all = Vec::new();
    for name in ["hostports", "hostports-ip"] {
        let elements = match conn.list_set_elements(table, name, Family::Ip).await {
            Err(e) if e.is_not_found() => continue,
            other => other.attempt("read published ports of", table)?,
        };
        all.extend(elements.iter().filter_map(parse));
    }
    Ok(all)
}

fn parse(element: &SetElement) -> Option<Published> {
    let octets = |b: &[u8]| <[u8; 4]>::try_from(b).ok().map(Ipv4Addr::from);
    let number = |b: &[u8]| Some(u16::from_be_bytes([*b.first()?, *b.get(1)?]));
    let (host_ip, rest) = match element.key().len() {
        8 => (None, element.key()),
        12 => (Some(octets(&element.key()[..4])?), &element.key()[4..]),
        _ => return None,
    };
    let Some(SetElementData::Value(value)) = element.data() else { return None };
    Some(Published {
        port: HostPort {
            protocol: Protocol::from_number(*rest.first()?)?,
            host_ip,
            host_port: number(rest.get(4..)?)?,
            container_port: number(value.get(4..)?)?,
        },
        target: octets(value.get(..4)?)?,
    })
}

async fn build(
    conn: &Connection<Nftables>,
    config: &NetworkConfig,
    signature: &str,
    published: &[Published],
) -> nlink::Result<()> {
    let table = config.table();
    let sets = Sets::new(&table);
    let base = |name: &str, base: BaseChain| {
        Ok::<_, nlink::Error>(Chain::new(&*table, name)?.family(Family::Ip).base(base))
    };
    let rule = |chain: &str, exprs| Rule::new(&table, chain).family(Family::Ip).expressions(exprs);
    let mut tx = conn
        .transaction()
        // Created first so that the deletion finds one on every kernel.
        .raw(nft::table_message(&table))
        .del_table(&table, Family::Ip)
        .add_table_with_comment(&table, Family::Ip, 0, Some(signature))
        .add_set(sets.any.clone())
        .add_set(sets.one.clone())
        .add_set(sets.hairpin.clone())
        .add_chain(base("guard", BaseChain::filter(FilterHook::Prerouting, Priority::Raw))?)
        .add_chain(base("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?)
        .add_chain(base("output", BaseChain::nat(NatHook::Output, Priority::DstNat))?)
        .add_chain(base("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?);

    // `route_localnet` on the pairs lets the node's own calls to 127.0.0.1 be led into an attachment. It would also
    // let an attachment reach services that listen only on the node's 127.0.0.1, so that is cut off here
    // (CVE-2020-8558 in kube-proxy).
    let group = config.group().to_ne_bytes();
    let loopback = || vec![nft::mask(0, 8), nft::equals(0, [127, 0, 0, 0])];
    let mut exprs = vec![Expr::Meta { dreg: nft::word(0), key: MetaKey::IifGroup }, nft::equals(0, group)];
    exprs.push(nft::daddr(0));
    exprs.extend(loopback());
    exprs.push(Expr::Verdict(Verdict::Drop));
    tx = tx.add_rule(rule("guard", exprs));

    for chain in ["prerouting", "output"] {
        let lookup = |map, key| vec![nft::value_of(map, key, 8), nft::dnat(8, 9)];
        let mut exprs = vec![nft::daddr(0), nft::l4proto(1), nft::dport(2)];
        exprs.extend(lookup("hostports-ip", 0));
        tx = tx.add_rule(rule(chain, exprs));
        let mut exprs = nft::local_destination();
        exprs.extend([nft::l4proto(0), nft::dport(1)]);
        exprs.extend(lookup("hostports", 0));
        tx = tx.add_rule(rule(chain, exprs));
    }

    // The node's calls to its own 127.0.0.1 get an address the attachment can answer.
    let mut exprs =
        vec![Expr::Meta { dreg: nft::word(0), key: MetaKey::OifGroup }, nft::equals(0, group), nft::saddr(0)];
    exprs.extend(loopback());
    exprs.push(MasqExpr::new().into());
    tx = tx.add_rule(rule("postrouting", exprs));
    // So does an attachment that reached itself through a published port.
    let mut exprs = nft::translated();
    exprs.extend([nft::saddr(0), nft::daddr(1), nft::is_in("hairpin", 0), MasqExpr::new().into()]);
    tx = tx.add_rule(rule("postrouting", exprs));
    tx = tx.add_rule(rule("postrouting", masquerade(config)));

    for published in published {
        tx = tx.add_set_elements(sets.of(&published.port), &[element(published)]);
    }
    let mut targets: Vec<_> = published.iter().map(|p| p.target).collect();
    targets.sort_unstable();
    targets.dedup();
    let targets: Vec<_> = targets.into_iter().map(hairpin).collect();
    if !targets.is_empty() {
        tx = tx.add_set_elements(&sets.hairpin, &targets);
    }
    tx.commit(conn).await
}

/// Whoever leaves the node's range for somewhere that does not know the way back goes under the node's address.
fn masquerade(config: &NetworkConfig) -> Vec<Expr> {
    let network = |net: &Ipv4Net| net.network().octets();
    let mut exprs = vec![
        nft::saddr(0),
        nft::mask(0, config.pod_cidr.prefix_len()),
        nft::equals(0, network(&config.pod_cidr)),
    ];
    let multicast: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
    for net in config.unmasqueraded.iter().chain([&config.pod_cidr, &multicast]) {
        exprs.extend([nft::daddr(0), nft::mask(0, net.prefix_len()), nft::differs(0, network(net))]);
    }
    exprs.push(MasqExpr::new().into());
    exprs
}

/// Replaces published ports: one transaction.
pub(crate) async fn change(
    conn: &Connection<Nftables>,
    table: &str,
    remove: &[Published],
    add: &[Published],
    hairpin_off: Option<Ipv4Addr>,
    hairpin_on: Option<Ipv4Addr>,
) -> nlink::Result<()> {
    let sets = Sets::new(table);
    let mut tx = conn.transaction();
    for gone in remove {
        tx = tx.del_set_elements(sets.of(&gone.port), &[SetElement::new(key(&gone.port).into_bytes())]);
    }
    for new in add {
        tx = tx.add_set_elements(sets.of(&new.port), &[element(new)]);
    }
    if let Some(addr) = hairpin_off {
        tx = tx.del_set_elements(&sets.hairpin, &[hairpin(addr)]);
    }
    if let Some(addr) = hairpin_on {
        tx = tx.add_set_elements(&sets.hairpin, &[hairpin(addr)]);
    }
    tx.commit(conn).await
}
