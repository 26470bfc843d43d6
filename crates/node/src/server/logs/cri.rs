//! Lines of a log in the CRI format (kubernetes/kubernetes, `staging/src/k8s.io/cri-client/pkg/logs/logs.go`).

use base::Timestamp;

/// One line: `<time> <stream> <tags> <text>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stream: &'a str,
    /// The text goes on in the next line of the same stream.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// Reads a line without its end; `None` if it is none of ours.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok().filter(|word| !word.is_empty());
    let (time, stream, tags) = (word()?, word()?, word()?);
    let text = parts.next()?;
    let partial = tags.split(':').next() == Some("P");
    matches!(stream, "stdout" | "stderr").then_some(Line { time, stream, partial, text })
}

impl Line<'_> {
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_shim_writes() {
        let line = parse(b"2026-01-01T00:00:00.5Z stderr P two  words ").unwrap();
        assert_eq!((line.stream, line.partial, line.text), ("stderr", true, &b"two  words "[..]));
        assert_eq!(line.at().unwrap().to_string(), "2026-01-01T00:00:00.5Z");
        assert_eq!(parse(b"t stdout F:extra ").unwrap().text, b"");
        for wrong in ["", "t", "t stdout F", "t other F x", " stdout F x"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_none(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes).map(|line| line.at());
        }
    }
}
