//! Base64 as Go reads it.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

/// Whether text is base64 in the standard alphabet with padding.
pub fn is_base64(text: &str) -> bool {
    base64_fault(text).is_none()
}

/// The bytes that base64 text stands for, if it is that.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if !is_base64(text) {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    // Leftover bits do not matter to Go.
    const LAX: GeneralPurpose =
        GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    LAX.decode(digits).ok()
}

/// Where text ceases to be base64 in the standard alphabet with padding.
pub(crate) fn base64_fault(text: &str) -> Option<usize> {
    // Go's decoder skips line ends.
    let digits = || text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let Some((at, _)) = digits().find(|(_, byte)| !is_digit(*byte)) else {
        return (digits().count() % 4 != 0).then_some(text.len());
    };
    let before = digits().take_while(|(i, _)| *i < at).count();
    let padding: Vec<u8> = digits().skip(before).map(|(_, byte)| byte).collect();
    let wanted: &[u8] = match before % 4 {
        2 => b"==",
        3 => b"=",
        _ => return Some(at),
    };
    (padding != wanted).then_some(at)
}

/// Bytes as base64 in its usual form, padded.
pub fn encode_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjZA==", "abcd")]
        {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode_base64("!"), None);
    }

    #[test]
    fn base64_is_checked_as_go_does() {
        for good in ["", "YQ==", "YWI=", "YWJj", "YW\nJj", "YQ=\n="] {
            assert_eq!(base64_fault(good), None, "{good:?}");
        }
        for (bad, at) in
            [("a", 1), ("YQ", 2), ("YQ=", 2), ("YQ==YQ==", 2), ("YW-j", 2), ("=", 0), ("YWI==", 3), ("é", 0)]
        {
            assert_eq!(base64_fault(bad), Some(at), "{bad:?}");
        }
    }

    #[test]
    fn what_is_encoded_can_be_decoded() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encode_base64(plain.as_bytes()), encoded);
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_base64(&encode_base64(&all)), Some(all));
    }
}
