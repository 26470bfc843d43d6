//! Responses and the bodies they carry.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
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

pub(crate) const JSON: &str = "application/json";

/// A response of one media type.
pub(crate) fn with_type(code: StatusCode, media: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
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

/// Compresses a long body that is all there. Streams are left alone.
pub(crate) async fn compressed(response: Response<Body>) -> Response<Body> {
    if response.body().size_hint().exact().is_none_or(|size| size < LEAST_TO_COMPRESS) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body that is all there has one frame, and nothing to wait for.
    let Ok(plain) = body.collect().await else {
        return status(&Status::internal("the response's body could not be read"));
    };
    let plain = plain.to_bytes();
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    let Ok(bytes) = encoder.write_all(&plain).and_then(|()| encoder.finish()) else {
        return Response::from_parts(parts, full(plain));
    };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, full(bytes))
}
