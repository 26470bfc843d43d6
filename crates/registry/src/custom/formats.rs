//! Text formats (kubernetes/kube-openapi, `pkg/validation/strfmt`; kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/validation/formats.go`).

/// The formats that are checked or at least known; others are ignored, with a warning.
const KNOWN: [&str; 31] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "date-time",
    "int32",
    "int64",
    "float",
    "double",
    "k8s-short-name",
    "k8s-long-name",
];

/// Whether a format is known.
pub(super) fn is_known(format: &str) -> bool {
    KNOWN.contains(&format)
}

/// Whether a text is of a format; unknown formats take everything.
pub(super) fn fits(format: &str, text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    match format {
        "date-time" | "datetime" => date_time(text),
        "date" => date(text),
        "duration" => duration(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "email" => email(text),
        "hostname" => hostname(text),
        "uri" => uri(text),
        "byte" => types::is_base64(text),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "rgbcolor" => rgb(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => ssn(text),
        "k8s-short-name" => types::dns_label(text).is_none(),
        "k8s-long-name" => types::dns_subdomain(text).is_none(),
        _ => true,
    }
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_digit())
}

fn date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339, with a space or a missing zone where Go's layouts allow them.
fn date_time(text: &str) -> bool {
    if !text.is_char_boundary(10) || text.len() < 16 || !date(&text[..10]) {
        return false;
    }
    let rest = &text[10..];
    if !rest.starts_with(['T', 't']) || rest.contains('[') {
        return false;
    }
    text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok()
}

/// Go's durations, and words such as `2 hours`.
fn duration(text: &str) -> bool {
    let text = text.trim();
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if body.is_empty() {
        return false;
    }
    if body == "0" {
        return true;
    }
    let mut rest = body;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return false;
        }
        rest = rest[end..].trim_start_matches(' ');
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(rest.len());
        let unit = &rest[..end];
        let known = matches!(
            unit,
            "ns" | "us"
                | "µs"
                | "μs"
                | "ms"
                | "s"
                | "m"
                | "h"
                | "d"
                | "w"
                | "nano"
                | "nanos"
                | "nanosecond"
                | "nanoseconds"
                | "micros"
                | "microsecond"
                | "microseconds"
                | "millis"
                | "millisecond"
                | "milliseconds"
                | "sec"
                | "second"
                | "seconds"
                | "min"
                | "minute"
                | "minutes"
                | "hr"
                | "hour"
                | "hours"
                | "day"
                | "days"
                | "wk"
                | "week"
                | "weeks"
        );
        if !known {
            return false;
        }
        rest = rest[end..].trim_start_matches(' ');
    }
    true
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    !length.is_empty()
        && length.bytes().all(|b| b.is_ascii_digit())
        && length.parse::<u32>().is_ok_and(|n| n <= most)
}

fn mac(text: &str) -> bool {
    let hex = |part: &str, size: usize| part.len() == size && part.bytes().all(|b| b.is_ascii_hexdigit());
    let split = |by: char, size: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(by).collect();
        counts.contains(&parts.len()) && parts.iter().all(|p| hex(p, size))
    };
    split(':', 2, &[6, 8, 20]) || split('-', 2, &[6, 8, 20]) || split('.', 4, &[3, 4, 10])
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    // Each dash may be missing.
    text.matches('-').count() <= 4
        && plain.len() == 32
        && plain.bytes().all(|b| b.is_ascii_hexdigit())
        && version.is_none_or(|v| plain[12..].starts_with(v))
        && match version {
            Some('4' | '5') => plain[16..].starts_with(['8', '9', 'a', 'b', 'A', 'B']),
            _ => true,
        }
}

fn email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(open), Some(_)) => &text[open + 1..text.len() - 1],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let sound = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..")
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (quoted || sound(local) && local.chars().all(atom)) && sound(domain) && domain.chars().all(atom)
}

fn hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    (1..=255).contains(&name.len()) && name.split('.').all(label)
}

/// What Go's `url.ParseRequestURI` takes: an absolute URI or an absolute path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let bytes = text.as_bytes();
    let sound_escapes = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'%')
        .all(|(i, _)| bytes.get(i + 1..i + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)));
    if text.starts_with('/') {
        return sound_escapes;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    scheme_ok && sound_escapes && !host.is_some_and(|h| h.contains([' ', '<', '>', '"']))
}

fn rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or_default().split(',').map(str::trim).collect();
    parts.len() == 3
        && parts.iter().all(|p| {
            (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u8>().is_ok()
        })
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn isbn10(text: &str) -> bool {
    let text = plain(text);
    text.len() == 10 && text.get(..9).is_some_and(|nine| digits(nine, 9)) && {
        let value = |(i, b): (usize, u8)| {
            (10 - i as u32) * if b == b'X' { 10 } else { u32::from(b.wrapping_sub(b'0')) }
        };
        matches!(text.as_bytes()[9], b'0'..=b'9' | b'X')
            && text.bytes().enumerate().map(value).sum::<u32>() % 11 == 0
    }
}

fn isbn13(text: &str) -> bool {
    let text = plain(text);
    digits(&text, 13)
        && text
            .bytes()
            .enumerate()
            .map(|(i, b)| u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 3 })
            .sum::<u32>()
            % 10
            == 0
}

/// Thirteen to nineteen digits that add up (Luhn).
fn credit_card(text: &str) -> bool {
    let text = plain(text);
    if !(13..=19).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum = text.bytes().rev().enumerate().map(|(i, b)| {
        let digit = u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 2 };
        if digit > 9 { digit - 9 } else { digit }
    });
    sum.sum::<u32>() % 10 == 0
}

fn ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    matches!(parts.as_slice(), [a, b, c] if digits(a, 3) && digits(b, 2) && digits(c, 4)) || digits(text, 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_what_they_name() {
        for (format, yes, no) in [
            ("date-time", "2026-01-01T00:00:00Z", "2026-01-01"),
            ("date-time", "2026-01-01T00:00:00.123+02:00", "yesterday"),
            ("date", "2026-02-28", "2026-02-30"),
            ("duration", "1h30m", "soon"),
            ("duration", "2 hours", "h"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("uuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae"),
            ("uuid4", "f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            ("email", "a@b.example", "a.b"),
            ("hostname", "a.b-c.example", "-a"),
            ("uri", "https://a.example/x?y", "no uri"),
            ("byte", "YQ==", "!"),
            ("hexcolor", "#ff00aa", "red"),
            ("rgbcolor", "rgb(1,2,255)", "rgb(1,2)"),
            ("isbn10", "0306406152", "0306406153"),
            ("isbn13", "9780306406157", "9780306406158"),
            ("creditcard", "4111111111111111", "4111111111111112"),
            ("ssn", "123-45-6789", "12-345-6789"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("k8s-short-name", "a-b", "a.b"),
        ] {
            assert!(is_known(format) && fits(format, yes), "{format} {yes}");
            assert!(!fits(format, no), "{format} {no}");
        }
        // Ten bytes, the ninth in the middle of a letter.
        assert!(!fits("isbn", "!!a𖫀!®"));
        assert!(fits("made-up", "anything") && !is_known("made-up"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(format in proptest::sample::select(&KNOWN[..]), text in "\\PC{0,24}") {
            let _ = fits(format, &text);
        }
    }
}
