//! Responses and the bodies they carry.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use types::Status;

/// What can go wrong while a body is read.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or response's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The same body; the guard is dropped when the body has been sent, or given up.
pub(crate) fn guarded<G: Send + Unpin + 'static>(body: Body, guard: G) -> Body {
    Guarded { inner: body, _guard: guard }.boxed_unsync()
}

struct Guarded<G> {
    inner: Body,
    _guard: G,
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pub(crate) const JSON: &str = "application/json";

/// A response of one media type.
pub(crate) fn with_type(code: StatusCode, media: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    with_body(code, media, Full::new(bytes.into()))
}

/// The same with a body that may be yet to be made.
pub(crate) fn with_body<B>(code: StatusCode, media: &'static str, body: B) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON response.
pub(crate) fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, JSON, bytes)
}

/// A success with a JSON value.
pub(crate) fn json_value(value: &serde_json::Value) -> Response<Body> {
    json(StatusCode::OK, value.to_string())
}

/// What does not change for an hour.
pub(crate) fn public(media: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_type(StatusCode::OK, media, bytes);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", text)
}

/// The outcome of a request without an object to show.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_json());
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// Shorter bodies go out as they are (`apiserver/pkg/endpoints/handlers/responsewriters/writers.go`,
/// `defaultGzipThresholdBytes`).
const LEAST_TO_COMPRESS: u64 = 128 * 1024;

/// Whether the client reads gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|coding| coding.split(';').next().unwrap_or_default().trim() == "gzip")
}

/// Compresses a long body of ours, as it is read. Streams without an end are left alone, and so is what another server
/// sent.
pub(crate) fn compressed(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let is_long = body.size_hint().exact().is_some_and(|size| size >= LEAST_TO_COMPRESS);
    let is_theirs =
        [header::CONTENT_ENCODING, header::CONTENT_LENGTH].iter().any(|h| parts.headers.contains_key(h));
    if !is_long || is_theirs {
        return Response::from_parts(parts, body);
    }
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    Response::from_parts(
        parts,
        Gzip { plain: body, rest: Bytes::new(), encoder: Some(encoder) }.boxed_unsync(),
    )
}

/// A body that is compressed on the way.
struct Gzip {
    plain: Body,
    /// What was read of it, and is not compressed yet.
    rest: Bytes,
    /// Nothing after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    /// How much is compressed at once, and four times what is sent at once.
    const PIECE: usize = 64 * 1024;

    /// The next piece; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, BoxError>> {
        let Some(encoder) = &mut self.encoder else { return Poll::Ready(Ok(None)) };
        loop {
            if self.rest.is_empty() {
                match ready!(Pin::new(&mut self.plain).poll_frame(cx)).transpose()? {
                    Some(frame) => self.rest = frame.into_data().unwrap_or_default(),
                    None => {
                        let last = self.encoder.take().map(GzEncoder::finish).transpose()?;
                        return Poll::Ready(Ok(last));
                    }
                }
            }
            encoder.write_all(&self.rest.split_to(self.rest.len().min(Self::PIECE)))?;
            let done = encoder.get_mut();
            if done.len() >= Self::PIECE / 4 {
                return Poll::Ready(Ok(Some(std::mem::take(done))));
            }
        }
    }
}

impl HttpBody for Gzip {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let piece = ready!(self.poll_piece(cx)).transpose();
        Poll::Ready(piece.map(|piece| piece.map(|bytes| Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_long_body_is_compressed_piece_by_piece_and_another_servers_left_alone() {
        // What hardly shrinks comes in many pieces.
        let mut state = 1_u64;
        let plain: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(300_000)
        .collect();
        let mut body = compressed(json(StatusCode::OK, plain.clone())).into_body();
        let (mut packed, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            packed.extend_from_slice(&frame.unwrap().into_data().unwrap());
            pieces += 1;
        }
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain && pieces > 2 && body.is_end_stream());

        let mut theirs = json(StatusCode::OK, plain.clone());
        theirs.headers_mut().insert(header::CONTENT_LENGTH, plain.len().into());
        let theirs = compressed(theirs);
        assert!(!theirs.headers().contains_key(header::CONTENT_ENCODING));
        assert!(theirs.into_body().collect().await.unwrap().to_bytes() == plain);
    }
}
