//! Header blocks: names and values, compressed with a dictionary and one state for each direction of a connection
//! (SPDY Protocol, Draft 3.1, 2.6.10).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;

/// The words the specification's dictionary begins with, each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// And what follows them, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// More headers than this, uncompressed, no client sends.
const MOST: usize = 64 * 1024;

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::with_capacity(1500);
    for word in WORDS.split_ascii_whitespace() {
        let word = word.replace('_', " ");
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
}

/// The reading end of a connection's header compression.
pub(crate) struct Decoder(Decompress);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers in a block; names as they came.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let used = (self.0.total_in() - start) as usize;
            let rest = block.get(used..).unwrap_or_default();
            if out.len() == out.capacity() {
                if out.len() >= MOST {
                    return Err(SpdyError::Headers("they are too long"));
                }
                out.reserve_exact(4096);
            }
            let before = out.len();
            match self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|_| SpdyError::Headers("they are compressed with an unknown dictionary"))?;
                    continue;
                }
                Err(_) => return Err(SpdyError::Headers("they cannot be decompressed")),
            }
            let now_used = (self.0.total_in() - start) as usize;
            let stuck = now_used == used && out.len() == before;
            if now_used == block.len() && out.len() < out.capacity() {
                return Ok(out);
            }
            if stuck && out.len() < out.capacity() {
                return Err(SpdyError::Headers("they are cut short"));
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
    const SHORT: SpdyError = SpdyError::Headers("they are cut short");
    let number = |block: &mut &[u8]| -> Result<usize, SpdyError> {
        let (first, rest) = block.split_first_chunk::<4>().ok_or(SHORT)?;
        *block = rest;
        Ok(u32::from_be_bytes(*first) as usize)
    };
    let count = number(&mut block)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let mut text = || -> Result<String, SpdyError> {
            let len = number(&mut block)?;
            let (text, rest) = block.split_at_checked(len).ok_or(SHORT)?;
            block = rest;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        headers.push((text()?, text()?));
    }
    Ok(headers)
}

/// The writing end of a connection's header compression.
pub(crate) struct Encoder(Compress);

impl Encoder {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // A fresh compressor takes any dictionary.
        let _ = compress.set_dictionary(&dictionary());
        Self(compress)
    }

    pub(crate) fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let rest = &plain[(self.0.total_in() - start) as usize..];
            // Compressing into memory that is there cannot fail.
            let _ = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            if (self.0.total_in() - start) as usize == plain.len() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_specifications() {
        let mut compress = Compress::new(Compression::fast(), true);
        assert_eq!(compress.set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
    }

    fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blocks_share_a_state() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for port in ["80", "8080"] {
            let headers = [("streamtype", "data"), ("port", port), ("requestid", "0")];
            assert_eq!(decoder.decode(&encoder.encode(&headers)).unwrap(), owned(&headers));
        }
        assert_eq!(decoder.decode(&encoder.encode(&[])).unwrap(), []);
    }

    #[test]
    fn a_block_that_swells_is_refused() {
        let huge = "x".repeat(MOST + 4096);
        let block = Encoder::new().encode(&[("a", &huge)]);
        assert!(block.len() < 4096);
        assert!(matches!(Decoder::new().decode(&block), Err(SpdyError::Headers("they are too long"))));
    }

    proptest! {
        #[test]
        fn any_headers_come_through(headers in prop::collection::vec(("[a-z]{0,20}", ".{0,600}"), 0..20)) {
            let borrowed: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(Decoder::new().decode(&Encoder::new().encode(&borrowed)).unwrap(), headers);
        }

        #[test]
        fn rubbish_is_refused_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..300), flip in any::<usize>()) {
            let _ = Decoder::new().decode(&bytes);
            let _ = parse(&bytes);
            let mut block = Encoder::new().encode(&[("streamtype", "error"), ("port", "80")]);
            let at = flip % block.len();
            block[at] ^= 1 << (flip % 8);
            let _ = Decoder::new().decode(&block);
        }
    }
}
