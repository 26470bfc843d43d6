//! As much of HTTP/1 as a page needs: the head of one request.

use std::io::Read;

/// No head of ours is longer.
const LONGEST_HEAD: usize = 8 * 1024;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The forms of answer that the client takes, in lower case.
    pub accept: String,
}

/// A request that gets no page.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the connection ended before the request did")]
    Ended,
    #[error("the request did not come in time, or not at all: {0}")]
    Read(#[from] std::io::Error),
    #[error("the request's head is longer than {LONGEST_HEAD} bytes")]
    TooLong,
    #[error("this is not an HTTP/1 request")]
    NotHttp,
}

/// Reads the head of a request; whatever comes behind it is left.
pub fn read(from: &mut impl Read) -> Result<Request, RequestError> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return Err(RequestError::Ended);
        }
        // The end may lie across two pieces.
        let searched = head.len().saturating_sub(3);
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head[searched..].windows(4).position(|w| w == b"\r\n\r\n") {
            head.truncate(searched + end);
            return parse(&head);
        }
        if head.len() > LONGEST_HEAD {
            return Err(RequestError::TooLong);
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, RequestError> {
    let text = str::from_utf8(head).map_err(|_| RequestError::NotHttp)?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (first.next(), first.next(), first.next(), first.next())
    else {
        return Err(RequestError::NotHttp);
    };
    let token = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic());
    if !token || !target.starts_with('/') || !version.starts_with("HTTP/1.") {
        return Err(RequestError::NotHttp);
    }
    let mut accept = String::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(RequestError::NotHttp)?;
        if name.eq_ignore_ascii_case("accept") {
            accept = value.trim().to_ascii_lowercase();
        }
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    Ok(Request { method: method.into(), path: path.into(), accept })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Request, RequestError> {
        read(&mut text.as_bytes())
    }

    /// Gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (into[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn reads_what_matters() {
        let head = "GET /api?x=1 HTTP/1.1\r\nHost: h\r\nACCEPT: Text/HTML, */*\r\n\r\nrest";
        let wanted = Request { method: "GET".into(), path: "/api".into(), accept: "text/html, */*".into() };
        assert_eq!(of(head).unwrap(), wanted);
        assert_eq!(read(&mut Drip(head.as_bytes())).unwrap(), wanted);
    }

    #[test]
    fn refuses_the_rest() {
        for bad in ["\r\n\r\n", "GET /\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET x HTTP/1.1\r\n\r\n"] {
            assert!(matches!(of(bad), Err(RequestError::NotHttp)), "{bad:?}");
        }
        assert!(matches!(of("GET / HTTP/1.1\r\nnonsense\r\n\r\n"), Err(RequestError::NotHttp)));
        assert!(matches!(of("GET / HTTP/1.1\r\n"), Err(RequestError::Ended)));
        assert!(matches!(of(&"x".repeat(20_000)), Err(RequestError::TooLong)));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = read(&mut &bytes[..]);
            let _ = read(&mut &[&b"GET / HTTP/1.1\r\n"[..], &bytes, b"\r\n\r\n"].concat()[..]);
        }
    }
}
