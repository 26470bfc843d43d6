//! How long a request may take (kubernetes/kubernetes, `apiserver/pkg/endpoints/filters/request_deadline.go`).

use std::time::Duration;

use registry::Verb;
use types::{Reason, Status};

use crate::request::Target;

/// The longest time for a request that does not last by nature.
const MOST: Duration = Duration::from_secs(60);

/// The time that a request has; `None` for those that last: watches, logs, connections.
pub(crate) fn of(target: &Target) -> Result<Option<Duration>, Status> {
    let Target::Resource(r) = target else { return Ok(Some(MOST)) };
    if matches!(r.verb, Verb::Watch | Verb::Connect) || r.subresource == "log" {
        return Ok(None);
    }
    let asked = match r.query.get("timeout") {
        None | Some("") => MOST,
        Some(text) => seconds(text).ok_or_else(|| {
            Status::bad_request(format!(
                "invalid timeout specified in the request URL - {text:?} is no duration"
            ))
        })?,
    };
    Ok(Some(if asked.is_zero() { MOST } else { asked.min(MOST) }))
}

/// What a client hears whose request took too long.
pub(crate) fn exceeded() -> Status {
    Status::new(
        Reason::Timeout,
        "Timeout: request did not complete within requested timeout - context deadline exceeded",
    )
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn seconds(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            // Zero needs no unit.
            "" if text == "0" => 0.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        let ok = |text| seconds(text).map(|d| d.as_millis());
        assert_eq!(ok("1m30s"), Some(90_000));
        assert_eq!(ok("1.5s"), Some(1500));
        assert_eq!(ok("500ms"), Some(500));
        assert_eq!(ok("0"), Some(0));
        for bad in ["", "5", "s", "1x", "-1s", "1..s", "9999999999999999999999999h"] {
            assert_eq!(ok(bad), None, "{bad}");
        }
    }
}
