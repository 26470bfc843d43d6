use std::cell::RefCell;
use std::sync::Mutex;

/// Where random names and identifiers come from.
pub trait Ids: Send + Sync + 'static {
    /// 128 random bits.
    fn bits(&self) -> u128;

    /// A version 4 UUID in its usual text form, as used for object UIDs.
    fn uid(&self) -> String {
        uuid::Builder::from_random_bytes(self.bits().to_be_bytes()).into_uuid().to_string()
    }

    /// `len` (at most 25) random characters for generated names.
    ///
    /// The alphabet leaves out vowels and look-alikes, as upstream does
    /// (kubernetes/kubernetes, `apimachinery/pkg/util/rand/rand.go`, `String`).
    fn suffix(&self, len: usize) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.bits();
        (0..len.min(25))
            .map(|_| {
                let at = (bits % 27) as usize;
                bits /= 27;
                ALPHABET[at] as char
            })
            .collect()
    }

    /// 64 random hexadecimal digits, as used for container identifiers.
    fn hex64(&self) -> String {
        format!("{:032x}{:032x}", self.bits(), self.bits())
    }
}

/// Identifiers from the operating system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn bits(&self) -> u128 {
        /// Random bytes got but not used: asking the system costs a microsecond, for few as for many.
        struct Pool {
            bytes: [u8; 1024],
            used: usize,
        }
        thread_local! {
            static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; 1024], used: 1024 }) };
        }
        POOL.with_borrow_mut(|pool| {
            if pool.used == pool.bytes.len() {
                getrandom::fill(&mut pool.bytes).expect("the system has a source of random bytes");
                pool.used = 0;
            }
            let (bits, _) = pool.bytes[pool.used..].split_first_chunk().expect("a multiple of 16 bytes");
            pool.used += 16;
            u128::from_ne_bytes(*bits)
        })
    }
}

/// Identifiers that follow from a seed, for tests.
#[derive(Debug)]
pub struct SeededIds(Mutex<u64>);

impl SeededIds {
    /// The same seed gives the same identifiers in the same order.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Ids for SeededIds {
    fn bits(&self) -> u128 {
        // SplitMix64, twice.
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let mut next = || {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        (u128::from(next()) << 64) | u128::from(next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_use_the_safe_alphabet_and_differ() {
        let (a, b) = (RandomIds.suffix(5), RandomIds.suffix(5));
        assert_eq!(a.len(), 5);
        assert!(a.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)), "{a}");
        assert_ne!((a, RandomIds.suffix(20)), (b, RandomIds.suffix(20)));
    }

    #[test]
    fn a_seed_repeats() {
        assert_eq!(SeededIds::new(7).uid(), SeededIds::new(7).uid());
        assert_eq!(RandomIds.hex64().len(), 64);
    }
}
