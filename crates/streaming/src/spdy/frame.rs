//! Frames (SPDY Protocol, Draft 3.1, 2.2): what there is of the protocol besides header compression.

use bytes::{BufMut, Bytes, BytesMut};

use super::SpdyError;

const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
/// No control frame is longer.
const MOST_CONTROL: u32 = 64 * 1024;

/// The eight bytes that every frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Data { id: u32, last: bool, len: u32 },
    Control { kind: u16, last: bool, len: u32 },
}

impl Head {
    pub(crate) fn parse(bytes: [u8; 8]) -> Result<Self, SpdyError> {
        let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let last = bytes[4] & FIN != 0;
        let len = u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]);
        if word >> 31 == 0 {
            return Ok(Self::Data { id: word, last, len });
        }
        let (version, kind) = ((word >> 16 & 0x7fff) as u16, word as u16);
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if len > MOST_CONTROL {
            return Err(SpdyError::Long(len));
        }
        Ok(Self::Control { kind, last, len })
    }
}

/// A control frame that means something to us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control<'a> {
    /// A new stream, with its compressed headers.
    SynStream {
        id: u32,
        headers: &'a [u8],
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, windows and the like: no client of this protocol here depends on them.
    Other,
}

impl<'a> Control<'a> {
    pub(crate) fn parse(kind: u16, payload: &'a [u8]) -> Result<Self, SpdyError> {
        let number =
            || payload.first_chunk::<4>().map(|first| u32::from_be_bytes(*first)).ok_or(SpdyError::Short);
        let id = || number().map(|number| number & 0x7fff_ffff);
        Ok(match kind {
            // Stream, associated stream, priority and slot, headers.
            SYN_STREAM => Self::SynStream { id: id()?, headers: payload.get(10..).ok_or(SpdyError::Short)? },
            RST_STREAM => Self::Reset { id: id()? },
            // All 32 bits count here.
            PING => Self::Ping { id: number()? },
            GO_AWAY => Self::GoAway,
            _ => Self::Other,
        })
    }
}

fn control(kind: u16, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + payload.len());
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(payload.len() as u32);
    frame.extend_from_slice(payload);
    frame.freeze()
}

pub(crate) fn syn_reply(id: u32, headers: &[u8]) -> Bytes {
    control(SYN_REPLY, &[&id.to_be_bytes(), headers].concat())
}

pub(crate) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// Refuses a stream.
pub(crate) fn refuse(id: u32) -> Bytes {
    const REFUSED_STREAM: u32 = 3;
    control(RST_STREAM, &[id.to_be_bytes(), REFUSED_STREAM.to_be_bytes()].concat())
}

/// The head of a data frame; `len` is less than 2²⁴.
pub(crate) fn data_head(id: u32, len: usize, last: bool) -> [u8; 8] {
    let ([a, b, c, d], [_, x, y, z]) = (id.to_be_bytes(), (len as u32).to_be_bytes());
    [a, b, c, d, u8::from(last), x, y, z]
}

#[cfg(test)]
pub(crate) fn syn_stream(id: u32, headers: &[u8]) -> Bytes {
    control(SYN_STREAM, &[&id.to_be_bytes()[..], &[0; 6], headers].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads() {
        assert_eq!(Head::parse(data_head(5, 300, true)).unwrap(), Head::Data { id: 5, last: true, len: 300 });
        let frame = ping(7);
        let head = Head::parse(frame[..8].try_into().unwrap()).unwrap();
        assert_eq!(head, Head::Control { kind: PING, last: false, len: 4 });
        assert_eq!(Control::parse(PING, &frame[8..]).unwrap(), Control::Ping { id: 7 });
        assert!(matches!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(SpdyError::Version(2))));
        assert!(matches!(Head::parse([0x80, 3, 0, 1, 0, 0xff, 0, 0]), Err(SpdyError::Long(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(head in any::<[u8; 8]>(), payload in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Head::Control { kind, .. }) = Head::parse(head) {
                let _ = Control::parse(kind, &payload);
            }
            for kind in 0..10 {
                let _ = Control::parse(kind, &payload);
            }
        }
    }
}
