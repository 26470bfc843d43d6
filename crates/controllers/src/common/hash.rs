/// A short text that stands for a longer one, without letters that make words (kubernetes/apimachinery,
/// `pkg/util/rand/rand.go`, `SafeEncodeString`). Which hash it is matters to nobody, as long as it stays the same.
pub(crate) fn short_hash(text: impl IntoIterator<Item = u8>) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash =
        text.into_iter().fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}
