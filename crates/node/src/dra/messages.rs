//! The few messages that pass between agent and plugin (`k8s.io/kubelet/pkg/apis/pluginregistration/v1`, `dra/v1`).

use std::collections::BTreeMap;

use grpc::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

/// What a plugin says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PluginInfo {
    /// What sort of plugin it is.
    pub(crate) kind: String,
    /// The driver's name.
    pub(crate) name: String,
    /// Where it is asked; the socket it registered by, if nothing is said.
    pub(crate) endpoint: String,
    /// What it understands.
    pub(crate) versions: Vec<String>,
}

impl PluginInfo {
    pub(crate) fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut info = Self::default();
        Reader::new(message).fields(|field, value| {
            match field {
                1 => info.kind = value.text(),
                2 => info.name = value.text(),
                3 => info.endpoint = value.text(),
                4 => info.versions.push(value.text()),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(info)
    }
}

/// What came of a registration.
pub(crate) fn registration_status(outcome: Result<(), &str>) -> Vec<u8> {
    let mut message = Writer::new();
    message.flag(1, outcome.is_ok()).bytes(2, outcome.err().unwrap_or_default().as_bytes());
    message.finish()
}

/// A claim, as drivers are asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimRef {
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) name: String,
}

/// The question about claims: to prepare them, or to take that back.
pub(crate) fn claims_request(claims: &[ClaimRef]) -> Vec<u8> {
    let mut message = Writer::new();
    for claim in claims {
        message.message(1, |inner| {
            inner.bytes(1, claim.namespace.as_bytes());
            inner.bytes(2, claim.uid.as_bytes());
            inner.bytes(3, claim.name.as_bytes());
        });
    }
    message.finish()
}

/// A device that a driver has prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreparedDevice {
    /// The requests that it is for; for all, if there are none.
    pub(crate) requests: Vec<String>,
    pub(crate) pool: String,
    pub(crate) device: String,
    /// What containers get.
    pub(crate) cdi: Vec<String>,
}

impl PreparedDevice {
    /// Whether it is for a request; no name means all of them.
    pub(crate) fn is_for(&self, request: &str) -> bool {
        let is = |r: &String| r == request || r.split_once('/').is_some_and(|(base, _)| base == request);
        request.is_empty() || self.requests.is_empty() || self.requests.iter().any(is)
    }
}

/// What a driver says of one claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimAnswer {
    /// There are none in answers about taking back.
    pub(crate) devices: Vec<PreparedDevice>,
    /// Nothing, if it went well.
    pub(crate) error: String,
}

/// By the claims' UIDs.
pub(crate) type Answers = BTreeMap<String, ClaimAnswer>;

/// The answer to a question about claims. `error` is the number of the field with the error.
pub(crate) fn answers(message: &[u8], error: u32) -> Result<Answers, WireError> {
    let mut all = Answers::new();
    Reader::new(message).fields(|field, value| {
        if field == 1 {
            let (mut uid, mut found) = (String::new(), ClaimAnswer::default());
            Reader::new(value.bytes()).fields(|field, value| {
                match field {
                    1 => uid = value.text(),
                    2 => found = answer(value.bytes(), error)?,
                    _ => {}
                }
                Ok::<_, WireError>(())
            })?;
            all.insert(uid, found);
        }
        Ok::<_, WireError>(())
    })?;
    Ok(all)
}

fn answer(message: &[u8], error: u32) -> Result<ClaimAnswer, WireError> {
    let mut found = ClaimAnswer::default();
    Reader::new(message).fields(|field, value| {
        if field == error {
            found.error = value.text();
        } else if field == 1 {
            found.devices.push(device(value.bytes())?);
        }
        Ok::<_, WireError>(())
    })?;
    Ok(found)
}

fn device(message: &[u8]) -> Result<PreparedDevice, WireError> {
    let mut device = PreparedDevice::default();
    Reader::new(message).fields(|field, value| {
        match field {
            1 => device.requests.push(value.text()),
            2 => device.pool = value.text(),
            3 => device.device = value.text(),
            4 => device.cdi.push(value.text()),
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_say_is_understood() {
        let mut message = Writer::new();
        message.message(1, |entry| {
            entry.bytes(1, b"u1").message(2, |answer| {
                answer.message(1, |device| {
                    device.bytes(1, b"r").bytes(2, b"p").bytes(3, b"d").bytes(4, b"v/c=x").bytes(4, b"v/c=y");
                });
            });
        });
        message.message(1, |entry| {
            entry.bytes(1, b"u2").message(2, |answer| {
                answer.bytes(2, b"broken");
            });
        });
        let answers = answers(&message.finish(), 2).unwrap();
        let device = PreparedDevice {
            requests: vec!["r".into()],
            pool: "p".into(),
            device: "d".into(),
            cdi: vec!["v/c=x".into(), "v/c=y".into()],
        };
        assert_eq!(answers["u1"], ClaimAnswer { devices: vec![device], error: String::new() });
        assert_eq!(answers["u2"].error, "broken");
        let mut message = Writer::new();
        message.message(1, |entry| {
            entry.bytes(1, b"u").message(2, |answer| {
                answer.bytes(1, b"still in use");
            });
        });
        assert_eq!(super::answers(&message.finish(), 1).unwrap()["u"].error, "still in use");
    }
}
