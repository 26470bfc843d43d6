//! Messages on the wire: a byte that says whether it is compressed, the length (4, big-endian), the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message and what precedes it.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Puts messages together out of the pieces in which they come.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        let Some(head) = self.0.first_chunk::<5>() else { return Ok(None) };
        if head[0] != 0 {
            return Err("it is compressed, which nobody asked for");
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.0.len() - 5 < length {
            return Ok(None);
        }
        self.0.advance(5);
        Ok(Some(self.0.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_whole_however_they_are_cut() {
        let bytes = [frame(b"one"), frame(b""), frame(&[7; 300])].concat();
        for size in [1, 2, 7, 400] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.push(piece);
                while let Some(message) = frames.next().unwrap() {
                    found.push(message.to_vec());
                }
            }
            assert_eq!(found, [b"one".to_vec(), Vec::new(), vec![7; 300]], "pieces of {size}");
        }
    }
}
