//! Addresses and ranges (apiserver, `pkg/cel/library/ip.go`, `cidr.go`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Opaque, Value, quoted};

pub(super) const TABLE: &[Function] = &[
    Function("isIP", Call::Plain(is_ip), &["is_ip (string) bool"]),
    Function("ip", Call::Plain(ip), &["string_to_ip (string) net.IP", "cidr_ip net.CIDR.() net.IP"]),
    Function("ip.isCanonical", Call::Plain(is_canonical), &["ip_is_canonical (string) bool"]),
    Function("family", Call::Plain(family), &["family net.IP.() int"]),
    Function("isUnspecified", Call::Plain(is_unspecified), &["is_unspecified net.IP.() bool"]),
    Function("isLoopback", Call::Plain(is_loopback), &["is_loopback net.IP.() bool"]),
    Function(
        "isLinkLocalMulticast",
        Call::Plain(is_link_local_multicast),
        &["is_link_local_multicast net.IP.() bool"],
    ),
    Function(
        "isLinkLocalUnicast",
        Call::Plain(is_link_local_unicast),
        &["is_link_local_unicast net.IP.() bool"],
    ),
    Function("isGlobalUnicast", Call::Plain(is_global_unicast), &["is_global_unicast net.IP.() bool"]),
    Function("isCIDR", Call::Plain(is_cidr), &["is_cidr (string) bool"]),
    Function("cidr", Call::Plain(cidr), &["string_to_cidr (string) net.CIDR"]),
    Function(
        "containsIP",
        Call::Plain(contains_ip),
        &["cidr_contains_ip_string net.CIDR.(string) bool", "cidr_contains_ip_ip net.CIDR.(net.IP) bool"],
    ),
    Function(
        "containsCIDR",
        Call::Plain(contains_cidr),
        &["cidr_contains_cidr_string net.CIDR.(string) bool", "cidr_contains_cidr net.CIDR.(net.CIDR) bool"],
    ),
    Function("masked", Call::Plain(masked), &["masked net.CIDR.() net.CIDR"]),
    Function("prefixLength", Call::Plain(prefix_length), &["prefix_length net.CIDR.() int"]),
];

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// How many bits belong to the network.
    pub bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let fault = |why: &str| Err(format!("netip.ParsePrefix({}): {why}", quoted(text)));
        let Some((address, bits)) = text.rsplit_once('/') else { return fault("no '/'") };
        let ip = parse_ip(address)?;
        let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|b| b.is_ascii_digit()));
        match bits.parse::<u8>() {
            Ok(bits) if plain && bits <= if ip.is_ipv4() { 32 } else { 128 } => Ok(Self { ip, bits }),
            Ok(_) if plain => fault("prefix length out of range"),
            _ => fault(&format!("bad bits after slash: {}", quoted(bits))),
        }
    }

    fn masked(self) -> Self {
        Self { ip: mask(self.ip, self.bits), bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && mask(self.ip, self.bits) == mask(ip, self.bits)
    }
}

fn mask(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(a) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(a) & keep).into()
        }
        IpAddr::V6(a) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(a) & keep).into()
        }
    }
}

/// Neither zones nor IPv4 written as IPv6 are taken.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') {
        return Err(format!("IP address {} with zone value is not allowed", quoted(text)));
    }
    let ip: IpAddr = text.parse().map_err(|_| format!("ParseAddr({}): unable to parse IP", quoted(text)))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {} is not allowed", quoted(text)))
        }
        ip => Ok(ip),
    }
}

fn ip_of(text: &str) -> Outcome<IpAddr> {
    parse_ip(text).or_else(|why| {
        fail(format!("IP Address {} parse error during conversion from string: {why}", quoted(text)))
    })
}

fn cidr_of(text: &str) -> Outcome<Cidr> {
    Cidr::parse(text)
        .or_else(|why| fail(format!("network address parse error during conversion from string: {why}")))
}

fn is_ip<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::Bool(parse_ip(s).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ip<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(ip_of(s)?.into()),
        [Value::Opaque(Opaque::Cidr(c))] => Ok(c.ip.into()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_canonical<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::Bool(ip_of(s)?.to_string() == **s)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn family<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Ip(ip))] => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn test<'a>(args: &[Value<'a>], holds: fn(IpAddr) -> bool) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Ip(ip))] => Ok(Value::Bool(holds(*ip))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_unspecified<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, |ip| ip.is_unspecified())
}

fn is_loopback<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, |ip| ip.is_loopback())
}

fn is_link_local_multicast<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, |ip| match ip {
        IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
        IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
    })
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_unicast<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, link_local_unicast)
}

fn is_global_unicast<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    test(args, |ip| {
        let broadcast = matches!(ip, IpAddr::V4(a) if a.is_broadcast());
        !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip))
    })
}

fn is_cidr<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::Bool(Cidr::parse(s).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::Opaque(Opaque::Cidr(cidr_of(s)?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Cidr(c)), Value::Opaque(Opaque::Ip(ip))] => Ok(Value::Bool(c.contains(*ip))),
        [Value::Opaque(Opaque::Cidr(c)), Value::String(s)] => Ok(Value::Bool(c.contains(ip_of(s)?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (outer, inner) = match args {
        [Value::Opaque(Opaque::Cidr(a)), Value::Opaque(Opaque::Cidr(b))] => (a, *b),
        [Value::Opaque(Opaque::Cidr(a)), Value::String(s)] => (a, cidr_of(s)?),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Bool(outer.contains(inner.ip) && outer.bits <= inner.bits))
}

fn masked<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Cidr(c))] => Ok(Value::Opaque(Opaque::Cidr(c.masked()))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn prefix_length<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Cidr(c))] => Ok(Value::Int(c.bits.into())),
        _ => Err(EvalError::no_such_overload()),
    }
}
