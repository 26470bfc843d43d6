//! One request, and how it is sent.

use std::convert::Infallible;
use std::fmt;
use std::io;

use apiserver::{Body, BoxError};
use auth::User;
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

/// For whom the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Master,
    /// Somebody known who may do nothing.
    Nobody,
    /// A node's agent.
    Node,
    /// Whatever the headers say.
    Headers,
}

impl Whom {
    pub(crate) fn user(self) -> Option<User> {
        match self {
            Self::Master => Some(User::authenticated("admin", [User::MASTERS.to_owned()])),
            Self::Nobody => Some(User::authenticated("nobody", [])),
            Self::Node => Some(User::authenticated("system:node:n", ["system:nodes".to_owned()])),
            Self::Headers => None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) whom: Whom,
    /// The body comes in pieces of this size.
    pub(crate) pieces: Option<usize>,
    /// The body breaks off with an error.
    pub(crate) breaks: bool,
    /// Given up after so many polls.
    pub(crate) polls: Option<usize>,
    pub(crate) mutated: bool,
}

impl Shot {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            whom: Whom::Master,
            pieces: None,
            breaks: false,
            polls: None,
            mutated: false,
        }
    }

    pub(crate) fn media(mut self, media: &str, body: Vec<u8>) -> Self {
        self.headers.push(("content-type".to_owned(), media.as_bytes().to_vec()));
        self.body = body;
        self
    }

    fn target(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let mark = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{mark}{}", self.path, self.query.join("&"))
    }

    /// The request, if it is one that a connection could bring.
    pub(crate) fn request(&self) -> Option<Request<Body>> {
        let uri: Uri = self.target().parse().ok()?;
        let mut request = Request::new(self.sent_body());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(request)
    }

    fn sent_body(&self) -> Body {
        let bytes = Bytes::from(self.body.clone());
        let Some(size) = self.pieces.filter(|_| !bytes.is_empty()).or(self.breaks.then_some(16)) else {
            return Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync();
        };
        let most = bytes.len() / 200 + size.max(1);
        let mut frames: Vec<Result<Frame<Bytes>, BoxError>> =
            bytes.chunks(most).map(|piece| Ok(Frame::data(bytes.slice_ref(piece)))).collect();
        if self.breaks {
            frames.truncate(frames.len() / 2);
            frames.push(Err(Box::new(io::Error::other("the connection is gone"))));
        }
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }
}

impl fmt::Display for Shot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = |text: &str| -> String {
            let short: String = text.chars().take(700).collect();
            if short.len() < text.len() { format!("{short}… ({} bytes)", text.len()) } else { short }
        };
        write!(f, "{:?} {} {}", self.whom, self.method, cut(&self.target()))?;
        for (name, value) in &self.headers {
            write!(f, " {name}: {}", cut(&String::from_utf8_lossy(value)))?;
        }
        write!(f, " {}", cut(&String::from_utf8_lossy(&self.body)))?;
        if self.breaks || self.pieces.is_some() || self.polls.is_some() {
            write!(f, " [breaks {} pieces {:?} polls {:?}]", self.breaks, self.pieces, self.polls)?;
        }
        Ok(())
    }
}
