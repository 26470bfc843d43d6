//! Small parts of nftables rules that this crate and the service proxy share, above `nlink`'s expressions.
//!
//! A concatenated key is laid out in consecutive 32-bit words of the register file, one field after the other, each
//! padded to a whole word; so the loaders take the word to write.

use std::net::Ipv4Addr;

use nlink::netlink::nftables::{
    CmpOp, CtKey, CtStatus, Expr, Family, FibFlags, FibResult, LookupExpr, MetaKey, NFT_MSG_NEWTABLE,
    NFTA_NAT_FAMILY, NFTA_NAT_FLAGS, NFTA_NAT_REG_ADDR_MAX, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MAX,
    NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_TYPE, NFTA_TABLE_NAME, NatFlags, NatType, PayloadBase, RawExpr,
    RawMessage, Register,
};
use nlink::netlink::{Connection, Nftables};

/// The send buffer for transactions: the kernel takes a transaction as one message and refuses what does not fit.
const SEND_BUFFER: usize = 64 << 20;

/// `RTN_LOCAL`: an address of the node itself.
const RTN_LOCAL: u32 = 2;

/// The register at 32-bit word `word` of the register file (0 to 15).
pub fn word(word: usize) -> Register {
    Register::word(word).unwrap_or(Register::Reg32_15)
}

/// A connection to nftables in the calling thread's network namespace that takes large transactions.
pub fn connect() -> nlink::Result<Connection<Nftables>> {
    let conn = Connection::<Nftables>::new()?;
    // Without the privilege to go beyond the system's limit, small transactions still work; a large one then fails
    // with a clear error of its own.
    let _ = nix::sys::socket::setsockopt(conn.socket(), nix::sys::socket::sockopt::SndBufForce, &SEND_BUFFER);
    Ok(conn)
}

/// Loads the IPv4 source address.
pub fn saddr(to: usize) -> Expr {
    Expr::Payload { dreg: word(to), base: PayloadBase::Network, offset: 12, len: 4 }
}

/// Loads the IPv4 destination address.
pub fn daddr(to: usize) -> Expr {
    Expr::Payload { dreg: word(to), base: PayloadBase::Network, offset: 16, len: 4 }
}

/// Loads the transport protocol's number.
pub fn l4proto(to: usize) -> Expr {
    Expr::Meta { dreg: word(to), key: MetaKey::L4Proto }
}

/// Loads the destination port.
pub fn dport(to: usize) -> Expr {
    Expr::Payload { dreg: word(to), base: PayloadBase::Transport, offset: 2, len: 2 }
}

/// Loads a constant.
pub fn constant(to: usize, data: impl Into<Vec<u8>>) -> Expr {
    Expr::Immediate { dreg: word(to), data: data.into() }
}

/// Goes on only if the word equals `data`.
pub fn equals(at: usize, data: impl Into<Vec<u8>>) -> Expr {
    Expr::Cmp { sreg: word(at), op: CmpOp::Eq, data: data.into() }
}

/// Goes on only if the word differs from `data`.
pub fn differs(at: usize, data: impl Into<Vec<u8>>) -> Expr {
    Expr::Cmp { sreg: word(at), op: CmpOp::Neq, data: data.into() }
}

/// Keeps the network part of the address in the word.
pub fn mask(at: usize, prefix: u8) -> Expr {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Expr::Bitwise {
        sreg: word(at),
        dreg: word(at),
        len: 4,
        mask: bits.to_be_bytes().to_vec(),
        xor: vec![0; 4],
    }
}

/// Looks the key at `key` up in a verdict map and does what it says; goes on if the key is not there.
pub fn verdict_of(map: &str, key: usize) -> Expr {
    LookupExpr::new(map, word(key)).dreg(Register::Verdict).into()
}

/// Loads the value of the key at `key`; goes on only if the key is there.
pub fn value_of(map: &str, key: usize, to: usize) -> Expr {
    LookupExpr::new(map, word(key)).dreg(word(to)).into()
}

/// Goes on only if the key at `key` is in the set.
pub fn is_in(set: &str, key: usize) -> Expr {
    LookupExpr::new(set, word(key)).into()
}

/// Rewrites the destination to the address and port in two words. Ends the evaluation of the hook's rules.
// `nlink` has this expression too, but no way to build it from outside with registers.
pub fn dnat(addr: usize, port: usize) -> Expr {
    const NFPROTO_IPV4: u32 = 2;
    let flags = NatFlags::MAP_IPS | NatFlags::PROTO_SPECIFIED;
    let mut data = Vec::with_capacity(56);
    for (attr, value) in [
        (NFTA_NAT_TYPE, NatType::Dnat as u32),
        (NFTA_NAT_FAMILY, NFPROTO_IPV4),
        (NFTA_NAT_REG_ADDR_MIN, word(addr).wire()),
        (NFTA_NAT_REG_ADDR_MAX, word(addr).wire()),
        (NFTA_NAT_REG_PROTO_MIN, word(port).wire()),
        (NFTA_NAT_REG_PROTO_MAX, word(port).wire()),
        (NFTA_NAT_FLAGS, flags.bits()),
    ] {
        data.extend_from_slice(&8u16.to_ne_bytes());
        data.extend_from_slice(&attr.to_ne_bytes());
        data.extend_from_slice(&value.to_be_bytes());
    }
    RawExpr::new("nat", data).into()
}

/// "Make this table unless it is there": what `add_table` is for a table that may exist.
pub fn table_message(table: &str) -> RawMessage {
    const NLM_F_CREATE: u16 = 0x400;
    let mut attrs = Vec::with_capacity(table.len() + 8);
    attrs.extend_from_slice(&((table.len() + 5) as u16).to_ne_bytes());
    attrs.extend_from_slice(&NFTA_TABLE_NAME.to_ne_bytes());
    attrs.extend_from_slice(table.as_bytes());
    attrs.push(0);
    attrs.resize(attrs.len().next_multiple_of(4), 0);
    RawMessage::new(NFT_MSG_NEWTABLE, Family::Ip).flags(NLM_F_CREATE).attrs(attrs)
}

/// Goes on only if the packet's destination is an address of this node.
pub fn local_destination() -> Vec<Expr> {
    vec![
        Expr::Fib { dreg: word(0), result: FibResult::AddrType, flags: FibFlags::DADDR },
        equals(0, RTN_LOCAL.to_ne_bytes()),
    ]
}

/// Goes on only if the connection's destination was rewritten.
pub fn translated() -> Vec<Expr> {
    vec![
        Expr::Ct { dreg: word(0), key: CtKey::Status },
        Expr::Bitwise {
            sreg: word(0),
            dreg: word(0),
            len: 4,
            mask: CtStatus::DST_NAT.bits().to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        differs(0, [0; 4]),
    ]
}

/// A key of whole words, as the register file holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address.
    pub fn addr(self, addr: Ipv4Addr) -> Self {
        self.bytes(&addr.octets())
    }

    /// Adds a port, in network order.
    pub fn port(self, port: u16) -> Self {
        self.bytes(&port.to_be_bytes())
    }

    /// Adds a protocol number.
    pub fn proto(self, proto: u8) -> Self {
        self.bytes(&[proto])
    }

    /// Adds a number in the machine's order.
    pub fn number(self, number: u32) -> Self {
        self.bytes(&number.to_ne_bytes())
    }

    fn bytes(mut self, field: &[u8]) -> Self {
        self.0.extend_from_slice(field);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
