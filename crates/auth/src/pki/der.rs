//! As much of DER as it takes to put one piece in the place of another.

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// How long the first element is, with and without its head.
fn head(der: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let count = first & 0x7f;
    if !(1..=4).contains(&count) {
        return None;
    }
    let length = der.get(2..2 + count)?.iter().fold(0, |n: usize, byte| n << 8 | usize::from(*byte));
    Some((2 + count, length))
}

/// The elements of a sequence.
pub(super) fn parts(der: &[u8]) -> Option<Vec<&[u8]>> {
    if der.first() != Some(&SEQUENCE) {
        return None;
    }
    let (start, length) = head(der)?;
    let mut rest = der.get(start..start.checked_add(length)?)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (start, length) = head(rest)?;
        let end = start.checked_add(length)?;
        parts.push(rest.get(..end)?);
        rest = &rest[end..];
    }
    Some(parts)
}

fn element(tag: u8, length: usize) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            out.push(0x80 | (bytes.len() - from) as u8);
            out.extend(&bytes[from..]);
        }
    }
    out
}

/// A sequence of elements.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = element(SEQUENCE, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend(*part));
    out
}

/// Bytes as a string of bits.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    let mut out = element(BIT_STRING, bytes.len() + 1);
    out.push(0);
    out.extend(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        ) {
            let strings: Vec<Vec<u8>> = texts.iter().map(|text| bits(text)).collect();
            let refs: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
            let whole = sequence(&refs);
            prop_assert_eq!(parts(&whole), Some(refs));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = parts(&bytes);
        }
    }
}
