use std::io::{self, BufRead, BufReader, Read};

/// How a stream is compressed, seen from its first bytes; media types lie too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A zstd frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Whether a stream is compressed in a way that is known but not supported.
pub(crate) fn unsupported(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        _ => None,
    }
}

/// Undoes the compression of `stream`, whatever it is.
pub(crate) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let first = peek(&mut stream)?;
    let compression = Compression::of(&first);
    Ok((
        compression,
        match compression {
            Compression::None => Box::new(stream),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
        },
    ))
}

/// The first bytes of the stream, at most six, without taking them.
pub(crate) fn peek(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let buffer = stream.fill_buf()?;
    Ok(buffer[..buffer.len().min(6)].to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(bytes: &[u8]) -> (Compression, Vec<u8>) {
        let (compression, mut stream) = decompress(bytes).unwrap();
        let mut out = Vec::new();
        stream.read_to_end(&mut out).unwrap();
        (compression, out)
    }

    #[test]
    fn sees_the_compression() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let mut gzip = gzip.finish().unwrap();
        assert_eq!(all(&gzip), (Compression::Gzip, b"hello".to_vec()));
        // Several members are one stream.
        gzip.extend(gzip.clone());
        assert_eq!(all(&gzip).1, b"hellohello");
        assert_eq!(all(&zstd::encode_all(&b"hello"[..], 1).unwrap()), (Compression::Zstd, b"hello".to_vec()));
        assert_eq!(all(b"hello"), (Compression::None, b"hello".to_vec()));
        assert_eq!(all(b""), (Compression::None, vec![]));
    }
}
