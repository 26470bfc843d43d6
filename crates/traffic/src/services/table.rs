//! The nftables table: what is always there, how a chain's rules look, and how keys and values are written.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use network::nft::{self, Key};
use nlink::netlink::nftables::{
    BaseChain, Chain as NftChain, ChainName as NftChainName, CtKey, CtState, DynsetExpr, DynsetOp, Expr,
    Family, FibFlags, FibResult, FilterHook, MasqExpr, MetaKey, NFT_REJECT_ICMP_UNREACH, NFT_REJECT_TCP_RST,
    NatHook, NumgenKind, Priority, Rule, Set, SetDataType, SetElement, SetElementData, SetKeyType,
    Transaction, Verdict,
};

use super::ProxyConfig;
use super::rules::{Backend, Chain, Frontend, Mark, NodePort, Pool, Refusal, Slot};
use crate::Protocol;

/// Changed whenever the rules of this file change, so that an older version's table is replaced, not adopted.
const VERSION: u32 = 1;

/// The bit of the packet mark that asks for masquerading; kube-proxy's.
const MASQUERADE: u32 = 0x4000;

/// Most clients remembered, over all Services.
const AFFINITY_SIZE: u32 = 1 << 18;

/// Index of the loopback interface, the first one of every network namespace.
const LOOPBACK: u32 = 1;
const RTN_LOCAL: u32 = 2;
const PORT_UNREACHABLE: u8 = 3;

/// The family of everything here.
pub(super) const FAMILY: Family = Family::Ip;

/// The named sets of one table.
pub(super) struct Sets {
    pub(super) frontends: Set,
    pub(super) node_ports: Set,
    pub(super) refused: Set,
    pub(super) refused_node_ports: Set,
    pub(super) slots: Set,
    pub(super) live: Set,
    pub(super) hairpin: Set,
    affinity: Set,
}

impl Sets {
    pub(super) fn new(table: &str) -> Self {
        use SetKeyType::{InetProto, InetService, Ipv4Addr, Mark};
        let set = |name, key: &[SetKeyType]| {
            Set::new(table, name).family(FAMILY).key_type(SetKeyType::Concat(key.to_vec()))
        };
        let backend = || SetDataType::Value(SetKeyType::Concat(vec![Ipv4Addr, InetService]));
        let frontend = [Ipv4Addr, InetProto, InetService];
        let node_port = [InetProto, InetService];
        Self {
            frontends: set("services", &frontend).vmap(),
            node_ports: set("nodeports", &node_port).vmap(),
            refused: set("refused", &frontend).vmap(),
            refused_node_ports: set("refused-nodeports", &node_port).vmap(),
            slots: set("endpoints", &[Mark, Mark, Mark]).map(backend()),
            live: set("live", &[Mark, Mark, Ipv4Addr, InetService]),
            hairpin: set("hairpin", &[Ipv4Addr, Ipv4Addr]),
            affinity: set("affinity", &[Mark, Mark, Ipv4Addr])
                .map(backend())
                .dynamic()
                .per_element_timeouts()
                .size(AFFINITY_SIZE),
        }
    }
}

/// What the table says of itself: version and configuration. Another text means another table.
pub(super) fn signature(config: &ProxyConfig) -> String {
    let ranges = config.cluster_cidrs.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(",");
    let hash = xxhash_rust::xxh3::xxh3_64(ranges.as_bytes());
    format!("gantry services {VERSION} {hash:016x}")
}

/// The part of the table that does not depend on Services. An earlier table of the name goes in the same transaction.
pub(super) fn scaffold(tx: Transaction, table: &str, config: &ProxyConfig) -> nlink::Result<Transaction> {
    let sets = Sets::new(table);
    let base = |name: &str, base: BaseChain| {
        Ok::<_, nlink::Error>(NftChain::new(table, name)?.family(FAMILY).base(base))
    };
    let plain = |name: &str| Ok::<_, nlink::Error>(NftChain::new(table, name)?.family(FAMILY));
    let mut tx = tx.raw(nft::table_message(table)).del_table(table, FAMILY).add_table_with_comment(
        table,
        FAMILY,
        0,
        Some(&signature(config)),
    );
    let Sets { frontends, node_ports, refused, refused_node_ports, slots, live, hairpin, affinity } = sets;
    for set in [frontends, node_ports, refused, refused_node_ports, slots, live, hairpin, affinity] {
        tx = tx.add_set(set);
    }
    for name in ["mark", "off-cluster", "services-dispatch", "refuse-dispatch", "reject"] {
        tx = tx.add_chain(plain(name)?);
    }
    // Before any other translation of destinations, such as published ports.
    let before_nat = Priority::Custom(Priority::DstNat.to_i32() - 10);
    tx = tx
        .add_chain(base("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?)
        .add_chain(base("output", BaseChain::nat(NatHook::Output, Priority::DstNat))?)
        .add_chain(base("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?)
        .add_chain(base("refuse-prerouting", BaseChain::filter(FilterHook::Prerouting, before_nat))?)
        .add_chain(base("refuse-output", BaseChain::filter(FilterHook::Output, before_nat))?);
    for (chain, exprs) in fixed_rules(config)? {
        tx = tx.add_rule(rule(table, chain, exprs));
    }
    Ok(tx)
}

fn fixed_rules(config: &ProxyConfig) -> nlink::Result<Vec<(&'static str, Vec<Expr>)>> {
    let frontend = || vec![nft::daddr(0), nft::l4proto(1), nft::dport(2)];
    let node_port = || [nft::local_destination(), vec![nft::l4proto(0), nft::dport(1)]].concat();
    let with = |mut exprs: Vec<Expr>, last: Expr| {
        exprs.push(last);
        exprs
    };
    let mut rules = vec![
        ("mark", set_mark(true)),
        ("services-dispatch", with(frontend(), nft::verdict_of("services", 0))),
        ("services-dispatch", with(node_port(), nft::verdict_of("nodeports", 0))),
        ("refuse-dispatch", with(frontend(), nft::verdict_of("refused", 0))),
        ("refuse-dispatch", with(node_port(), nft::verdict_of("refused-nodeports", 0))),
        (
            "reject",
            vec![
                nft::l4proto(0),
                nft::equals(0, [Protocol::Tcp.number()]),
                Expr::Reject { reject_type: NFT_REJECT_TCP_RST, icmp_code: 0 },
            ],
        ),
        ("reject", vec![Expr::Reject { reject_type: NFT_REJECT_ICMP_UNREACH, icmp_code: PORT_UNREACHABLE }]),
        ("prerouting", vec![jump("services-dispatch")?]),
        ("output", vec![jump("services-dispatch")?]),
    ];
    for chain in ["refuse-prerouting", "refuse-output"] {
        rules.push((chain, with(new_connection(), jump("refuse-dispatch")?)));
    }
    for net in &config.cluster_cidrs {
        let inside = [in_range(net), vec![Expr::Verdict(Verdict::Return)]].concat();
        rules.push(("off-cluster", inside));
    }
    // Without ranges nobody can be told a stranger, and nobody is.
    if !config.cluster_cidrs.is_empty() {
        rules.push(("off-cluster", vec![goto("mark")?]));
    }
    // What the node sends to itself comes back whatever its source is.
    let to_itself =
        vec![Expr::Meta { dreg: nft::word(0), key: MetaKey::Oif }, nft::equals(0, LOOPBACK.to_ne_bytes())];
    rules.push(("postrouting", with(to_itself, Expr::Verdict(Verdict::Return))));
    // The mark has done its work: take it off, so that it means nothing to whatever sees the packet next.
    let marked = vec![
        Expr::Meta { dreg: nft::word(0), key: MetaKey::Mark },
        bits(MASQUERADE, 0),
        nft::differs(0, [0; 4]),
    ];
    let unmark = set_mark(false);
    rules.push(("postrouting", [marked, unmark, vec![MasqExpr::new().into()]].concat()));
    let own = vec![nft::saddr(0), nft::daddr(1), nft::is_in("hairpin", 0), MasqExpr::new().into()];
    rules.push(("postrouting", [nft::translated(), own].concat()));
    Ok(rules)
}

/// The rules of a Service's chain.
pub(super) fn chain_rules(chain: &Chain, config: &ProxyConfig) -> nlink::Result<Vec<Vec<Expr>>> {
    Ok(match chain {
        Chain::Balance { pool, mark } => {
            let first = match mark {
                Mark::OffCluster => jump("off-cluster")?,
                Mark::Always => jump("mark")?,
            };
            [vec![vec![first]], draw(pool)].concat()
        }
        Chain::Local { pods, node, pool } => {
            let from_node = vec![
                Expr::Fib { dreg: nft::word(0), result: FibResult::AddrType, flags: FibFlags::SADDR },
                nft::equals(0, RTN_LOCAL.to_ne_bytes()),
                goto(node)?,
            ];
            let mut rules = vec![from_node];
            for net in &config.cluster_cidrs {
                rules.push([in_range(net), vec![goto(pods)?]].concat());
            }
            match pool {
                Some(pool) => rules.extend(draw(pool)),
                None => rules.push(vec![Expr::Verdict(Verdict::Drop)]),
            }
            rules
        }
        Chain::Sources { ranges, next } => {
            let mut rules = Vec::new();
            for net in ranges {
                rules.push([in_range(net), vec![goto(next)?]].concat());
            }
            rules.push(vec![Expr::Verdict(Verdict::Drop)]);
            rules
        }
    })
}

/// Draws an endpoint of the pool and leads the connection there.
fn draw(pool: &Pool) -> Vec<Vec<Expr>> {
    let id = pool_key(pool.id).into_bytes();
    let number =
        |to| Expr::Numgen { dreg: nft::word(to), kind: NumgenKind::Random, modulus: pool.count, offset: 0 };
    let plain =
        vec![nft::constant(0, id.clone()), number(2), nft::value_of("endpoints", 0, 4), nft::dnat(4, 5)];
    let Some(seconds) = pool.affinity else { return vec![plain] };
    let remember = || -> Expr {
        DynsetExpr::new(DynsetOp::Update, "affinity", nft::word(0))
            .sreg_data(nft::word(6))
            .timeout(std::time::Duration::from_secs(u64::from(seconds)))
            .into()
    };
    let client = || vec![nft::constant(0, id.clone()), nft::saddr(2)];
    // Words 0 to 2 are pool and client, 4 to 7 pool and endpoint.
    let known = vec![
        nft::value_of("affinity", 0, 6),
        nft::constant(4, id.clone()),
        nft::is_in("live", 4),
        remember(),
        nft::dnat(6, 7),
    ];
    // An update keeps the value that is there, so a remembered endpoint that has gone is removed first.
    let forget = DynsetExpr::new(DynsetOp::Delete, "affinity", nft::word(0)).sreg_data(nft::word(6)).into();
    let fresh = vec![
        nft::constant(4, id.clone()),
        number(6),
        nft::value_of("endpoints", 4, 6),
        forget,
        remember(),
        nft::dnat(6, 7),
    ];
    // `plain` comes last for when no more clients can be remembered.
    vec![[client(), known].concat(), [client(), fresh].concat(), plain]
}

/// A rule of a chain.
pub(super) fn rule(table: &str, chain: &str, exprs: Vec<Expr>) -> Rule {
    Rule::new(table, chain).family(FAMILY).expressions(exprs)
}

fn jump(chain: &str) -> nlink::Result<Expr> {
    Ok(Expr::Verdict(Verdict::JumpTo(NftChainName::new(chain)?)))
}

fn goto(chain: &str) -> nlink::Result<Expr> {
    Ok(Expr::Verdict(Verdict::GotoTo(NftChainName::new(chain)?)))
}

fn in_range(net: &Ipv4Net) -> Vec<Expr> {
    vec![nft::saddr(0), nft::mask(0, net.prefix_len()), nft::equals(0, net.network().octets())]
}

fn bits(mask: u32, xor: u32) -> Expr {
    Expr::Bitwise {
        sreg: nft::word(0),
        dreg: nft::word(0),
        len: 4,
        mask: mask.to_ne_bytes().to_vec(),
        xor: xor.to_ne_bytes().to_vec(),
    }
}

/// Changes the masquerading bit of the packet mark and leaves the others.
fn set_mark(on: bool) -> Vec<Expr> {
    vec![
        Expr::Meta { dreg: nft::word(0), key: MetaKey::Mark },
        bits(!MASQUERADE, if on { MASQUERADE } else { 0 }),
        Expr::MetaSet { key: MetaKey::Mark, sreg: nft::word(0) },
    ]
}

fn new_connection() -> Vec<Expr> {
    vec![
        Expr::Ct { dreg: nft::word(0), key: CtKey::State },
        bits(CtState::NEW.bits(), 0),
        nft::differs(0, [0; 4]),
    ]
}

fn pool_key(pool: u64) -> Key {
    Key::new().number((pool >> 32) as u32).number(pool as u32)
}

/// A key or value that is written into a set and read back from it.
pub(super) trait Field: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

fn octets(bytes: &[u8], word: usize) -> Option<[u8; 4]> {
    bytes.get(word * 4..word * 4 + 4)?.try_into().ok()
}

fn port(bytes: &[u8], word: usize) -> Option<u16> {
    octets(bytes, word).map(|[a, b, ..]| u16::from_be_bytes([a, b]))
}

fn pool(bytes: &[u8]) -> Option<u64> {
    let half = |word| octets(bytes, word).map(|b| u64::from(u32::from_ne_bytes(b)));
    Some(half(0)? << 32 | half(1)?)
}

impl Field for Frontend {
    fn encode(&self) -> Vec<u8> {
        Key::new().addr(self.ip).proto(self.protocol.number()).port(self.port).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        let protocol = Protocol::from_number(octets(b, 1)?[0])?;
        Some(Self { ip: Ipv4Addr::from(octets(b, 0)?), protocol, port: port(b, 2)? })
    }
}

impl Field for NodePort {
    fn encode(&self) -> Vec<u8> {
        Key::new().proto(self.protocol.number()).port(self.port).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        Some(Self { protocol: Protocol::from_number(octets(b, 0)?[0])?, port: port(b, 1)? })
    }
}

impl Field for Slot {
    fn encode(&self) -> Vec<u8> {
        pool_key(self.pool).number(self.index).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        Some(Self { pool: pool(b)?, index: u32::from_ne_bytes(octets(b, 2)?) })
    }
}

impl Field for Backend {
    fn encode(&self) -> Vec<u8> {
        Key::new().addr(self.ip).port(self.port).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        Some(Self { ip: Ipv4Addr::from(octets(b, 0)?), port: port(b, 1)? })
    }
}

impl Field for (u64, Backend) {
    fn encode(&self) -> Vec<u8> {
        pool_key(self.0).addr(self.1.ip).port(self.1.port).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        Some((pool(b)?, Backend::decode(b.get(8..)?)?))
    }
}

/// The pair of an address with itself.
impl Field for Ipv4Addr {
    fn encode(&self) -> Vec<u8> {
        Key::new().addr(*self).addr(*self).into_bytes()
    }
    fn decode(b: &[u8]) -> Option<Self> {
        octets(b, 0).map(Ipv4Addr::from)
    }
}

/// What a map's element leads to.
pub(super) trait Value: Sized + PartialEq {
    fn put(&self, element: SetElement) -> nlink::Result<SetElement>;
    fn get(element: &SetElement) -> Option<Self>;
}

impl Value for () {
    fn put(&self, element: SetElement) -> nlink::Result<SetElement> {
        Ok(element)
    }
    fn get(_: &SetElement) -> Option<Self> {
        Some(())
    }
}

impl Value for Backend {
    fn put(&self, element: SetElement) -> nlink::Result<SetElement> {
        Ok(element.value(SetElement::new(self.encode())))
    }
    fn get(element: &SetElement) -> Option<Self> {
        match element.data()? {
            SetElementData::Value(bytes) => Self::decode(bytes),
            _ => None,
        }
    }
}

impl Value for super::ChainName {
    fn put(&self, element: SetElement) -> nlink::Result<SetElement> {
        Ok(element.verdict(Verdict::GotoTo(NftChainName::new(&**self)?)))
    }
    fn get(element: &SetElement) -> Option<Self> {
        match element.data()? {
            SetElementData::Verdict(Verdict::GotoTo(chain)) => Some(chain.as_str().into()),
            _ => None,
        }
    }
}

impl Value for Refusal {
    fn put(&self, element: SetElement) -> nlink::Result<SetElement> {
        Ok(element.verdict(match self {
            Self::Reject => Verdict::GotoTo(NftChainName::new("reject")?),
            Self::Drop => Verdict::Drop,
        }))
    }
    fn get(element: &SetElement) -> Option<Self> {
        match element.data()? {
            SetElementData::Verdict(Verdict::Drop) => Some(Self::Drop),
            SetElementData::Verdict(Verdict::GotoTo(_)) => Some(Self::Reject),
            _ => None,
        }
    }
}
