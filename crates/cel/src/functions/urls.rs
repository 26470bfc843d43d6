//! URLs (apiserver, `pkg/cel/library/urls.go`; golang, `net/url`, `ParseRequestURI`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Key, Opaque, Str, Value, quoted};

pub(super) const TABLE: &[Function] = &[
    Function("url", Call::Plain(url), &["string_to_url (string) kubernetes.URL"]),
    Function("isURL", Call::Plain(is_url), &["is_url_string (string) bool"]),
    Function("getScheme", Call::Plain(scheme), &["url_get_scheme kubernetes.URL.() string"]),
    Function("getHost", Call::Plain(host), &["url_get_host kubernetes.URL.() string"]),
    Function("getHostname", Call::Plain(hostname), &["url_get_hostname kubernetes.URL.() string"]),
    Function("getPort", Call::Plain(port), &["url_get_port kubernetes.URL.() string"]),
    Function("getEscapedPath", Call::Plain(path), &["url_get_escaped_path kubernetes.URL.() string"]),
    Function("getQuery", Call::Plain(query), &["url_get_query kubernetes.URL.() map(string, list(string))"]),
];

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Parses an absolute URL or an absolute path; the error is Go's.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fault = |why: &str| Err(format!("parse {}: {why}", quoted(text)));
        if text.is_empty() {
            return fault("empty url");
        }
        if text.chars().any(|c| c < ' ' || c == '\u{7f}') {
            return fault("net/url: invalid control character in URL");
        }
        let scheme_len = text
            .bytes()
            .enumerate()
            .take_while(|(i, b)| {
                b.is_ascii_alphabetic() || (*i > 0 && (b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')))
            })
            .count();
        let has_scheme = scheme_len > 0 && text.as_bytes().get(scheme_len) == Some(&b':');
        let (scheme, rest) = if has_scheme {
            (text[..scheme_len].to_ascii_lowercase(), &text[scheme_len + 1..])
        } else if text.starts_with(':') {
            return fault("missing protocol scheme");
        } else {
            (String::new(), text)
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut this = Self {
            scheme,
            user: String::new(),
            host: String::new(),
            path: String::new(),
            query: query.into(),
        };
        if !rest.starts_with('/') {
            if this.scheme.is_empty() {
                return fault("invalid URI for request");
            }
            return Ok(this);
        }
        let path = match rest.strip_prefix("//") {
            Some(after) if !(this.scheme.is_empty() && rest.starts_with("///")) && has_scheme => {
                let end = after.find('/').unwrap_or(after.len());
                let (user, host) = after[..end].rsplit_once('@').unwrap_or(("", &after[..end]));
                if let Err(why) = check_host(host) {
                    return fault(&why);
                }
                (this.user, this.host) = (user.to_owned(), host.to_owned());
                &after[end..]
            }
            _ => rest,
        };
        if let Some(bad) = bad_escape(path) {
            return fault(&format!("invalid URL escape {}", quoted(bad)));
        }
        this.path = escaped(path);
        Ok(this)
    }

    fn hostname(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.rsplit_once(':').map_or(&self.host, |(host, _)| host),
        }
    }

    fn port(&self) -> &str {
        let after = match self.host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(_, after)| after),
            None => self.host.find(':').map_or("", |at| &self.host[at..]),
        };
        after.strip_prefix(':').unwrap_or_default()
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if let Some(rest) = host.strip_prefix('[') {
        let Some((_, after)) = rest.split_once(']') else { return Err("missing ']' in host".into()) };
        after
    } else {
        host.find(':').map_or("", |at| &host[at..])
    };
    let numeric = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(numeric) {
        return Err(format!("invalid port {} after host", quoted(port)));
    }
    match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(c) => Err(format!("invalid character {} in host name", quoted(&c.to_string()))),
        None => Ok(()),
    }
}

/// A percent sign that is not followed by two hexadecimal digits.
fn bad_escape(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|i| bytes[*i] == b'%').find_map(|i| {
        let right = bytes.get(i + 1..i + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        (!right).then(|| text.get(i..(i + 3).min(text.len())).unwrap_or(&text[i..]))
    })
}

/// A path with what needs it escaped.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
        if plain {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// A piece of a query without its escapes, or `None` if they are wrong.
fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = text.get(i + 1..i + 3)?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                i += 2;
            }
            b => out.push(b),
        }
        i += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn url<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text)] => match Url::parse(text) {
            Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
            Err(why) => fail(format!("URL parse error during conversion from string: {why}")),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_url<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> &str) -> Outcome<Value<'a>> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => Ok(Value::text(of(url))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn scheme<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |u| &u.scheme)
}

fn host<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |u| &u.host)
}

fn hostname<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, Url::hostname)
}

fn port<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, Url::port)
}

fn path<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |u| &u.path)
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::Opaque(Opaque::Url(url))] = args else { return Err(EvalError::no_such_overload()) };
    let mut values: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
            values.entry(key).or_default().push(Value::text(value));
        }
    }
    let entries = values.into_iter().map(|(k, v)| (Key::String(Str::Shared(k.into())), Value::list(v)));
    Ok(Value::map(entries))
}
