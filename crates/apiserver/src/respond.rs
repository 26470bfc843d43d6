//! Responses and the bodies they carry.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
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
