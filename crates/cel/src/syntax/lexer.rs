use crate::error::Issue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tok {
    Eof,
    Ident,
    /// `` `a-b` ``, only after a dot.
    QuotedIdent,
    Int,
    Uint,
    Double,
    /// A string, quotes and prefix included.
    Str,
    /// An operator, bracket or keyword (`in`, `true`, `false`, `null`).
    Sym(&'static str),
}

/// A piece of the text; `start` counts bytes, `offset` code points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'s> {
    pub tok: Tok,
    pub text: &'s str,
    pub offset: u32,
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%", "=", "\u{0}",
];

/// Splits the text. What no token begins with is an issue and is skipped, as ANTLR does.
pub(super) fn lex<'s>(source: &'s str, issues: &mut Vec<Issue>) -> Vec<Token<'s>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut offset: u32 = 0;
    while at < source.len() {
        let rest = &source[at..];
        let Some((tok, len)) = next(rest) else {
            let bad = rest.chars().next().map_or(rest.len(), char::len_utf8);
            let len = if rest.starts_with(['"', '\'']) { rest.find('\n').unwrap_or(rest.len()) } else { bad };
            let text = rest[..len].replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
            issues.push(Issue::new(offset, format!("Syntax error: token recognition error at: '{text}'")));
            offset += rest[..len].chars().count() as u32;
            at += len;
            continue;
        };
        let text = &rest[..len];
        if let Some(tok) = tok {
            tokens.push(Token { tok, text, offset });
        }
        offset += text.chars().count() as u32;
        at += len;
    }
    tokens.push(Token { tok: Tok::Eof, text: "<EOF>", offset });
    tokens
}

/// The token at the front and its length; `Some(None, …)` is white space or a comment.
fn next(rest: &str) -> Option<(Option<Tok>, usize)> {
    let first = *rest.as_bytes().first()?;
    if matches!(first, b' ' | b'\t' | b'\n' | b'\r' | 12) {
        return Some((None, 1));
    }
    if rest.starts_with("//") {
        return Some((None, rest.find('\n').unwrap_or(rest.len())));
    }
    if let Some(len) = string_len(rest) {
        return Some((Some(Tok::Str), len));
    }
    if first.is_ascii_digit() || (first == b'.' && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit)) {
        let (tok, len) = number(rest.as_bytes());
        return Some((Some(tok), len));
    }
    if first.is_ascii_alphabetic() || first == b'_' {
        let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let tok = match &rest[..len] {
            "in" => Tok::Sym("in"),
            "true" => Tok::Sym("true"),
            "false" => Tok::Sym("false"),
            "null" => Tok::Sym("null"),
            _ => Tok::Ident,
        };
        return Some((Some(tok), len));
    }
    if first == b'`' {
        let inner = rest[1..]
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' '))
            .count();
        return (inner > 0 && rest.as_bytes().get(inner + 1) == Some(&b'`'))
            .then_some((Some(Tok::QuotedIdent), inner + 2));
    }
    SYMBOLS.iter().find(|s| rest.starts_with(**s) && **s != "=").map(|s| (Some(Tok::Sym(s)), s.len()))
}

/// The length of the string token at the front, if there is a whole one.
fn string_len(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut prefix = 0;
    let mut raw = false;
    let mut seen_b = false;
    while let Some(b) = bytes.get(prefix) {
        match b {
            b'r' | b'R' if !raw => raw = true,
            b'b' | b'B' if !seen_b && !raw => seen_b = true,
            _ => break,
        }
        prefix += 1;
    }
    let quote = *bytes.get(prefix)?;
    if quote != b'"' && quote != b'\'' {
        return None;
    }
    let triple = bytes.get(prefix..prefix + 3) == Some(&[quote; 3]);
    let mut at = prefix + if triple { 3 } else { 1 };
    loop {
        let b = *bytes.get(at)?;
        if b == b'\\' && !raw {
            bytes.get(at + 1)?;
            at += 2;
        } else if triple && bytes.get(at..at + 3) == Some(&[quote; 3]) {
            return Some(at + 3);
        } else if !triple && b == quote {
            return Some(at + 1);
        } else if !triple && (b == b'\n' || b == b'\r') {
            return None;
        } else {
            at += 1;
        }
    }
}

fn number(bytes: &[u8]) -> (Tok, usize) {
    let run = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let unsigned = |at: usize| matches!(bytes.get(at), Some(b'u' | b'U'));
    if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X')) {
        let hex = bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if hex > 0 {
            let end = 2 + hex;
            return if unsigned(end) { (Tok::Uint, end + 1) } else { (Tok::Int, end) };
        }
    }
    let mut end = run(0);
    let mut double = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        double = true;
        end += 1 + run(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let digits =
            bytes.get(end + 1 + sign..).map_or(0, |r| r.iter().take_while(|b| b.is_ascii_digit()).count());
        if digits > 0 {
            double = true;
            end += 1 + sign + digits;
        }
    }
    if double {
        (Tok::Double, end)
    } else if unsigned(end) {
        (Tok::Uint, end + 1)
    } else {
        (Tok::Int, end)
    }
}
