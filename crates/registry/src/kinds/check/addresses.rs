//! IP addresses and ranges of them.

use std::net::IpAddr;

use types::{FieldErrors, Path};

/// An address as Go reads it: zeros may lead in an IPv4 address.
pub(in super::super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

/// An address with a prefix length.
pub(in super::super) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = parse_ip(ip)?;
    let bits: u8 = bits.parse().ok().filter(|_| bits.bytes().all(|b| b.is_ascii_digit()))?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// The text is an address.
pub(in super::super) fn ip(text: &str, path: &Path<'_>, errors: &mut FieldErrors) -> Option<IpAddr> {
    let ip = parse_ip(text);
    if ip.is_none() {
        errors.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    ip
}

/// The text is an address with a prefix length.
pub(in super::super) fn cidr(text: &str, path: &Path<'_>, errors: &mut FieldErrors) -> Option<(IpAddr, u8)> {
    let cidr = parse_cidr(text);
    if cidr.is_none() {
        errors.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    cidr
}

/// Whether there are exactly two addresses, one of each family.
pub(in super::super) fn is_dual_stack(ips: &[IpAddr]) -> bool {
    ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6)
}

/// An address others can reach (`ValidateNonSpecialIP`).
pub(in super::super) fn reachable_ip(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(ip) = parse_ip(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_ip("010.0.0.1"), Some(IpAddr::from([10, 0, 0, 1])));
        for bad in ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "a.b.c.d", "::g", "1.2.3.+4"] {
            assert_eq!(parse_ip(bad), None, "{bad}");
        }
        assert!(parse_cidr("10.0.0.0/8").is_some() && parse_cidr("10.0.0.0/33").is_none());
        assert!(parse_cidr("::/129").is_none() && parse_cidr("10.0.0.0/+8").is_none());
    }
}
