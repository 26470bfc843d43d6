use std::sync::Arc;

use super::ast::Literal;

/// The value of a string or bytes token, prefix and quotes included.
pub(super) fn string(token: &str) -> Result<Literal, &'static str> {
    let quote = token.find(['"', '\'']).ok_or("invalid string literal")?;
    let (prefix, rest) = token.split_at(quote);
    let raw = prefix.contains(['r', 'R']);
    let bytes = prefix.contains(['b', 'B']);
    let width =
        if rest.len() >= 6 && (rest.starts_with("\"\"\"") || rest.starts_with("'''")) { 3 } else { 1 };
    let body = rest.get(width..rest.len() - width).ok_or("invalid string literal")?;
    let body =
        if body.contains('\r') { body.replace("\r\n", "\n").replace('\r', "\n") } else { body.to_owned() };
    if raw || !body.contains('\\') {
        return Ok(if bytes {
            Literal::Bytes(Arc::from(body.as_bytes()))
        } else {
            Literal::String(body.into())
        });
    }
    if bytes {
        let mut out = Vec::with_capacity(body.len());
        unescape(&body, true, |c| match c {
            Piece::Byte(b) => out.push(b),
            Piece::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        })?;
        Ok(Literal::Bytes(out.into()))
    } else {
        let mut out = String::with_capacity(body.len());
        unescape(&body, false, |c| match c {
            Piece::Byte(b) => out.push(char::from(b)),
            Piece::Char(c) => out.push(c),
        })?;
        Ok(Literal::String(out.into()))
    }
}

enum Piece {
    Byte(u8),
    Char(char),
}

/// Resolves escapes. In bytes, `\x` and octal escapes are single bytes; in strings they are code points.
fn unescape(text: &str, bytes: bool, mut out: impl FnMut(Piece)) -> Result<(), &'static str> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out(Piece::Char(c));
            continue;
        }
        let e = chars.next().ok_or("unable to unescape string")?;
        let mut digits = |first: Option<char>, count: usize, radix: u32| -> Result<u32, &'static str> {
            let mut n = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
            for _ in 0..count {
                let d = chars.next().and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
                n = n * radix + d;
            }
            Ok(n)
        };
        let (code, byte) = match e {
            'a' => (7, false),
            'b' => (8, false),
            'f' => (12, false),
            'n' => (10, false),
            'r' => (13, false),
            't' => (9, false),
            'v' => (11, false),
            '\\' | '\'' | '"' | '`' | '?' => (e as u32, false),
            'x' | 'X' => (digits(None, 2, 16)?, bytes),
            'u' if !bytes => (digits(None, 4, 16)?, false),
            'U' if !bytes => (digits(None, 8, 16)?, false),
            '0'..='3' => (digits(Some(e), 2, 8)?, bytes),
            _ => return Err("unable to unescape string"),
        };
        if byte {
            out(Piece::Byte(code as u8));
        } else {
            out(Piece::Char(char::from_u32(code).ok_or("invalid unicode code point")?));
        }
    }
    Ok(())
}

/// The value of an integer token, with an optional sign before it and `u` after it.
pub(super) fn integer(token: &str, negative: bool) -> Result<Literal, &'static str> {
    let unsigned = token.ends_with(['u', 'U']);
    let digits = token.trim_end_matches(['u', 'U']);
    let fault = if unsigned { "invalid uint literal" } else { "invalid int literal" };
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse::<u64>(),
    }
    .map_err(|_| fault)?;
    if unsigned {
        return if negative { Err(fault) } else { Ok(Literal::Uint(magnitude)) };
    }
    let value = i128::from(magnitude) * if negative { -1 } else { 1 };
    i64::try_from(value).map(Literal::Int).map_err(|_| fault)
}

/// The value of a floating-point token.
pub(super) fn double(token: &str, negative: bool) -> Result<Literal, &'static str> {
    match token.parse::<f64>() {
        Ok(d) if d.is_finite() => Ok(Literal::Double(if negative { -d } else { d })),
        _ => Err("invalid double literal"),
    }
}
