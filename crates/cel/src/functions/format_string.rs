//! `"…%s…".format([…])` (cel-go, `ext/formatting.go`).

use crate::error::{EvalError, Outcome, fail};
use crate::value::{List, Map, Opaque, Value, double_text};

/// No more digits than this after the point, so that a small text cannot ask for a huge one.
const MOST_PRECISION: usize = 1000;

pub(super) fn format(template: &str, args: &List<'_>) -> Outcome<String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let parsed = after[..digits].parse::<usize>();
            let Ok(parsed) = parsed else {
                return fail(
                    "could not parse formatting clause: error while parsing precision: could not find precision specifier",
                );
            };
            if parsed > MOST_PRECISION {
                return fail(format!("precision {parsed} is above the limit of {MOST_PRECISION}"));
            }
            precision = Some(parsed);
            rest = &after[digits..];
        }
        let Some(verb) = rest.chars().next() else {
            return fail("could not parse formatting clause: unexpected end of string");
        };
        rest = &rest[verb.len_utf8()..];
        if !"sdfeboxX".contains(verb) {
            return fail(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            ));
        }
        let Some(arg) = args.get(next) else { return fail(format!("index {next} out of range")) };
        next += 1;
        clause(&mut out, verb, precision, &arg)?;
    }
    out.push_str(rest);
    Ok(out)
}

fn clause(out: &mut String, verb: char, precision: Option<usize>, arg: &Value<'_>) -> Outcome<()> {
    let wrong = |what: &str| -> EvalError {
        EvalError::failed(format!("error during formatting: {what}, was given {}", arg.type_name()))
    };
    match verb {
        's' => shown(out, arg).map_err(|()| {
            wrong("string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps")
        }),
        'd' => {
            match arg {
                Value::Int(i) => out.push_str(&i.to_string()),
                Value::Uint(u) => out.push_str(&u.to_string()),
                Value::Double(d) if !d.is_finite() => out.push_str(&special(*d)),
                _ => return Err(wrong("decimal clause can only be used on integers")),
            }
            Ok(())
        }
        'f' | 'e' => {
            let precision = precision.unwrap_or(6);
            let number = match arg {
                Value::Double(d) => *d,
                Value::Int(i) => *i as f64,
                Value::Uint(u) => *u as f64,
                Value::String(s) if matches!(&**s, "NaN" | "Infinity" | "-Infinity") => {
                    out.push_str(s);
                    return Ok(());
                }
                _ if verb == 'f' => return Err(wrong("fixed-point clause can only be used on doubles")),
                _ => return Err(wrong("scientific clause can only be used on doubles")),
            };
            out.push_str(&if !number.is_finite() {
                special(number)
            } else if verb == 'f' {
                format!("{number:.precision$}")
            } else {
                let text = format!("{number:.precision$e}");
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let e: i32 = exponent.parse().unwrap_or(0);
                format!("{mantissa}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
            });
            Ok(())
        }
        'b' => {
            match arg {
                Value::Int(i) if *i < 0 => out.push_str(&format!("-{:b}", i.unsigned_abs())),
                Value::Int(i) => out.push_str(&format!("{i:b}")),
                Value::Uint(u) => out.push_str(&format!("{u:b}")),
                Value::Bool(b) => out.push(if *b { '1' } else { '0' }),
                _ => return Err(wrong("only integers and bools can be formatted as binary")),
            }
            Ok(())
        }
        'x' | 'X' => {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let text = match arg {
                Value::Int(i) if *i < 0 => format!("-{:x}", i.unsigned_abs()),
                Value::Int(i) => format!("{i:x}"),
                Value::Uint(u) => format!("{u:x}"),
                Value::String(s) => hex(s.as_bytes()),
                Value::Bytes(b) => hex(b),
                _ => return Err(wrong("only integers, byte buffers, and strings can be formatted as hex")),
            };
            out.push_str(&if verb == 'X' { text.to_uppercase() } else { text });
            Ok(())
        }
        _ => {
            match arg {
                Value::Int(i) if *i < 0 => out.push_str(&format!("-{:o}", i.unsigned_abs())),
                Value::Int(i) => out.push_str(&format!("{i:o}")),
                Value::Uint(u) => out.push_str(&format!("{u:o}")),
                _ => return Err(wrong("octal clause can only be used on integers")),
            }
            Ok(())
        }
    }
}

fn special(d: f64) -> String {
    if d.is_nan() {
        "NaN".into()
    } else if d > 0.0 {
        "Infinity".into()
    } else {
        "-Infinity".into()
    }
}

/// What `%s` shows.
fn shown(out: &mut String, value: &Value<'_>) -> Result<(), ()> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Uint(u) => out.push_str(&u.to_string()),
        Value::Double(d) if !d.is_finite() => out.push_str(&special(*d)),
        Value::Double(d) => out.push_str(&double_text(*d)),
        Value::String(s) => out.push_str(s),
        Value::Bytes(b) => out.push_str(&String::from_utf8_lossy(b)),
        Value::Timestamp(t) => out.push_str(&t.to_string()),
        Value::Duration(d) => out.push_str(&d.seconds_text()),
        Value::Type(t) => out.push_str(t.name()),
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                shown(out, &item)?;
            }
            out.push(']');
        }
        Value::Map(map) => entries(out, map)?,
        Value::Opaque(Opaque::Ip(ip)) => out.push_str(&ip.to_string()),
        Value::Opaque(Opaque::Cidr(cidr)) => out.push_str(&cidr.to_string()),
        _ => return Err(()),
    }
    Ok(())
}

/// A map's entries, sorted by their keys' text.
fn entries(out: &mut String, map: &Map<'_>) -> Result<(), ()> {
    let mut rows = Vec::new();
    for key in map.keys() {
        let value = map.get(&key).ok_or(())?;
        let mut row = (String::new(), String::new());
        shown(&mut row.0, &key.into())?;
        shown(&mut row.1, &value)?;
        rows.push(row);
    }
    rows.sort();
    out.push('{');
    for (i, (key, value)) in rows.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(key);
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
    Ok(())
}
