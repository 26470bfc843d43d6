//! What clients call a server that they reach by a socket's path.
//!
//! gRPC in Go calls it by that path (kubelets before 1.25 do), or by the path with percent signs in it. `hyper` takes neither
//! for an authority and resets the stream, and cannot be told otherwise. Nothing here asks for the authority, so that
//! its value is painted over before `hyper` sees it: letters in place of its bytes, not one more or less, so that no
//! length and no later reference to it changes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `PRI * HTTP/2.0…`, which each client begins with.
const PREFACE: usize = 24;
/// Length, type, flags and stream.
const HEAD: usize = 9;
/// The type of frames with headers, and their flags.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Frames that are longer than any server allows are left to `hyper` to refuse.
const LONGEST: usize = 64 << 10;
/// Where `:authority` is in the static table.
const AUTHORITY: usize = 1;

/// A connection whose client may call the server what it likes.
pub(crate) struct AnyAuthority<S> {
    socket: S,
    scanner: Scanner,
    /// Read, and not yet given on.
    ready: BytesMut,
}

impl<S> AnyAuthority<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, scanner: Scanner::default(), ready: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let mut buffer = [0; 8192];
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.scanner.push(read.filled(), &mut this.ready);
        }
        let count = this.ready.len().min(to.remaining());
        to.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// Finds the frames with headers in what a client sends.
struct Scanner {
    /// So many bytes are none of our business.
    pass: usize,
    /// The beginning of a frame, and all of one that has headers.
    frame: BytesMut,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { pass: PREFACE, frame: BytesMut::new() }
    }
}

impl Scanner {
    /// Takes what was read, and gives on what is whole.
    fn push(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while !bytes.is_empty() {
            let passed = self.pass.min(bytes.len());
            out.extend_from_slice(&bytes[..passed]);
            self.pass -= passed;
            bytes = &bytes[passed..];
            let wanted = self.wanted().saturating_sub(self.frame.len()).min(bytes.len());
            self.frame.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.frame.len() < HEAD || self.frame.len() < self.wanted() {
                continue;
            }
            if self.has_headers() {
                // What cannot be read is refused by whoever comes next.
                let _ = paint(&mut self.frame);
            } else {
                self.pass = self.length();
            }
            out.extend_from_slice(&self.frame);
            self.frame.clear();
        }
    }

    /// How much of the frame must be here before it is given on.
    fn wanted(&self) -> usize {
        if self.frame.len() >= HEAD && self.has_headers() { HEAD + self.length() } else { HEAD }
    }

    fn length(&self) -> usize {
        self.frame[..3].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }

    /// Whether the frame, whose head is here, has all headers of a request.
    fn has_headers(&self) -> bool {
        self.frame[3] == HEADERS && self.frame[4] & END_HEADERS != 0 && self.length() <= LONGEST
    }
}

/// Paints over the authority in a frame of headers (RFC 7541, section 6). Names and values need not be understood to
/// be passed over.
fn paint(frame: &mut [u8]) -> Option<()> {
    let flags = frame[4];
    let (mut at, mut end) = (HEAD, frame.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let block = frame.get_mut(at..end)?;
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            // The size of the table.
            0x20..0x40 => (5, false),
            _ => (4, true),
        };
        let (index, next) = integer(block, at, prefix)?;
        at = next;
        if !literal {
            continue;
        }
        if index == 0 {
            let (length, name) = integer(block, at, 7)?;
            at = name.checked_add(length)?;
        }
        let (length, value) = integer(block, at, 7)?;
        let end = value.checked_add(length)?;
        if index == AUTHORITY {
            block.get_mut(value..end)?.fill(b'x');
            // These are letters, not the codes that stand for such.
            block[at] &= 0x7f;
        }
        at = end;
    }
    Some(())
}

/// The number at a place, whose first byte has so many bits of it, and the place behind it.
fn integer(bytes: &[u8], at: usize, prefix: u8) -> Option<(usize, usize)> {
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*bytes.get(at)?) & most;
    let mut next = at + 1;
    if value < most {
        return Some((value, next));
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*bytes.get(next)?);
        next += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, next));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [&[text.len() as u8], text.as_bytes()].concat()
    }

    /// A request for `/a.B/Echo`, as Go sends it; `authority` is how the header is written.
    fn request(stream: u8, authority: &[u8], message: &[u8]) -> Vec<u8> {
        let block = [
            &[0x83, 0x86, 0x04][..],
            &text("/a.B/Echo"),
            authority,
            &[0x0f, 0x10],
            &text("application/grpc"),
        ];
        let data = crate::frame::frame(message);
        [frame(HEADERS, END_HEADERS, stream, &block.concat()), frame(0, 1, stream, &data)].concat()
    }

    #[tokio::test]
    async fn a_server_may_be_called_by_its_path() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let echo = |_, message: bytes::Bytes| async move { Ok(message.to_vec()) };
        tokio::spawn(crate::answer(server, echo));
        let settings = frame(4, 0, 0, &[]);
        let first = [&[0x41][..], &text("%2Frun%2Fx.sock")].concat();
        // The second one says what the first one did, by its place in the table.
        let all = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &settings,
            &request(1, &first, b"one"),
            &request(3, &[0xbe], b"two"),
        ];
        client.write_all(&all.concat()).await.unwrap();
        let mut said = Vec::new();
        while said.len() < 2 {
            let mut head = [0; HEAD];
            client.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            client.read_exact(&mut payload).await.unwrap();
            assert!(!matches!(head[3], 3 | 7), "the server resets or leaves: {head:?}");
            if head[3] == 0 {
                said.push(payload);
            }
        }
        assert_eq!(said, [crate::frame::frame(b"one"), crate::frame::frame(b"two")]);
    }

    proptest! {
        #[test]
        fn nothing_but_the_authority_changes(
            bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..50, flags: u8,
        ) {
            let other = frame(0, 0, 1, &bytes);
            let odd = frame(HEADERS, flags, 1, &bytes);
            let all = [&[b'p'; PREFACE][..], &other, &odd, &other, &request(1, &[0x41, 2, b'%', b'/'], b"m")].concat();
            let mut scanner = Scanner::default();
            let mut out = BytesMut::new();
            all.chunks(cut).for_each(|piece| scanner.push(piece, &mut out));
            prop_assert_eq!(out.len(), all.len());
            let (before, after) = (PREFACE + other.len() + HEAD, PREFACE + other.len() + odd.len());
            prop_assert_eq!(&out[..before], &all[..before]);
            let rest = [&other[..], &request(1, &[0x41, 2, b'x', b'x'], b"m")].concat();
            prop_assert_eq!(&out[after..], &rest[..]);
        }
    }
}
