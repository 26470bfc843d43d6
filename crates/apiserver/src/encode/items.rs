use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use store::Record;

/// How much of a list is written at once.
const CHUNK: usize = 64 * 1024;
const END: &[u8] = b"]}";

/// A list in JSON, written piece by piece as fast as its client reads it: a list of everything there is takes next to
/// no memory of its own (upstream: `StreamingCollectionEncodingToJSON`).
pub(super) struct Items<T> {
    head: Option<String>,
    items: std::vec::IntoIter<T>,
    is_first: bool,
    /// How many bytes are yet to be given.
    left: usize,
    scratch: BytesMut,
}

/// Something that is one object's JSON.
pub(super) trait Json: Unpin {
    fn json(&self) -> &[u8];
}

impl Json for Arc<Record> {
    fn json(&self) -> &[u8] {
        &self.value
    }
}

impl Json for Bytes {
    fn json(&self) -> &[u8] {
        self
    }
}

impl<T: Json> Items<T> {
    /// `head` ends where the first item begins.
    pub(super) fn new(head: String, items: Vec<T>) -> Self {
        let commas = items.len().saturating_sub(1);
        let left =
            head.len() + items.iter().map(|item| item.json().len()).sum::<usize>() + commas + END.len();
        Self { head: Some(head), items: items.into_iter(), is_first: true, left, scratch: BytesMut::new() }
    }

    /// All that is left.
    pub(super) fn rest(mut self) -> Bytes {
        self.piece(usize::MAX)
    }

    /// The next bytes, about as many as asked for: items are not divided.
    fn piece(&mut self, most: usize) -> Bytes {
        let out = &mut self.scratch;
        out.reserve(most.min(self.left));
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while let Some(next) = self.items.as_slice().first().map(Json::json) {
            if !out.is_empty() && out.len() + next.len() >= most {
                break;
            }
            if !std::mem::take(&mut self.is_first) {
                out.extend_from_slice(b",");
            }
            out.extend_from_slice(next);
            self.items.next();
        }
        if self.items.as_slice().is_empty() {
            out.extend_from_slice(END);
        }
        self.left -= out.len();
        out.split().freeze()
    }
}

impl<T: Json> Body for Items<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready((self.left > 0).then(|| Ok(Frame::data(self.piece(CHUNK)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "{\"items\":[";

    proptest! {
        #[test]
        fn pieces_are_the_whole(sizes in proptest::collection::vec(prop_oneof![1usize..5_000, 60_000usize..140_000], 0..40)) {
            let items: Vec<Bytes> = sizes.iter().map(|size| vec![b'1'; *size].into()).collect();
            let whole = Items::new(HEAD.to_owned(), items.clone()).rest();
            let texts: Vec<&str> = items.iter().map(|item| std::str::from_utf8(item).unwrap()).collect();
            let wanted = format!("{HEAD}{}]}}", texts.join(","));
            prop_assert!(whole == wanted);

            let mut body = Items::new(HEAD.to_owned(), items);
            let (mut pieces, mut given) = (Vec::new(), 0);
            prop_assert!(!body.is_end_stream());
            while let Some(Some(Ok(frame))) = futures::FutureExt::now_or_never(body.frame()) {
                let piece = frame.into_data().unwrap();
                given += piece.len();
                prop_assert_eq!(body.size_hint().exact(), Some((whole.len() - given) as u64));
                let largest = sizes.iter().max().copied().unwrap_or_default();
                prop_assert!(piece.len() <= CHUNK.max(largest) + HEAD.len() + END.len() + 1);
                pieces.extend_from_slice(&piece);
            }
            prop_assert!(body.is_end_stream() && pieces == whole);
        }
    }
}
