use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Values that many objects have in common, each of them kept once for all.
///
/// The pool holds on to nothing: a value goes with the last one who has it.
#[derive(Debug)]
pub struct Pool<T: ?Sized> {
    hashes: RandomState,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T: ?Sized> {
    values: HashMap<u64, Vec<Weak<T>>>,
    /// How many values there may be before those that are gone are swept out.
    most: usize,
}

/// So few are not worth sweeping.
const FEW: usize = 256;

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { hashes: RandomState::new(), held: Mutex::new(Held { values: HashMap::new(), most: FEW }) }
    }
}

impl<T: ?Sized> Pool<T> {
    /// The pool's own value that `is_same` knows, or else the one that `make` makes. Values that are the same must bring
    /// the same to the hasher in `digest`.
    pub fn share(
        &self,
        digest: impl FnOnce(&mut DefaultHasher),
        is_same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let mut hasher = self.hashes.build_hasher();
        digest(&mut hasher);
        // Nothing is half done when something panics here.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.values.get(&hasher.finish());
        let found = known.into_iter().flatten().filter_map(Weak::upgrade).find(|value| is_same(value));
        found.unwrap_or_else(|| {
            let value = make();
            held.keep(hasher.finish(), &value);
            value
        })
    }
}

impl<T: Hash + Eq> Pool<T> {
    /// The pool's own value that equals this one.
    pub fn get(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        self.share(|hasher| value.hash(hasher), |known| *known == *value, || value.clone())
    }
}

impl Pool<str> {
    /// The pool's own copy of a text.
    pub fn text(&self, text: &str) -> Arc<str> {
        self.share(|hasher| text.hash(hasher), |known| known == text, || text.into())
    }
}

impl<T: ?Sized> Held<T> {
    fn keep(&mut self, digest: u64, value: &Arc<T>) {
        if self.values.len() >= self.most {
            self.values.retain(|_, alike| {
                alike.retain(|value| value.strong_count() > 0);
                !alike.is_empty()
            });
            self.most = FEW.max(self.values.len() * 2);
        }
        let alike = self.values.entry(digest).or_default();
        alike.retain(|value| value.strong_count() > 0);
        alike.push(Arc::downgrade(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_one_and_what_nobody_has_is_gone() {
        let pool = Pool::default();
        let (a, b) = (pool.text("a"), pool.text("b"));
        assert!(Arc::ptr_eq(&a, &pool.text("a")) && !Arc::ptr_eq(&a, &b));
        for n in 0..10 * FEW {
            assert_eq!(*pool.text(&n.to_string()), *n.to_string());
        }
        assert!(pool.held.lock().unwrap().values.len() <= FEW + 1);
        assert!(Arc::ptr_eq(&a, &pool.text("a")), "it was swept out while somebody had it");
    }

    #[test]
    fn one_digest_does_not_make_values_the_same() {
        let pool = Pool::<u32>::default();
        let share = |value: u32| pool.share(|_| {}, |known| *known == value, || Arc::new(value));
        let (one, two) = (share(1), share(2));
        assert_eq!((*one, *two), (1, 2));
        assert!(Arc::ptr_eq(&one, &share(1)) && Arc::ptr_eq(&two, &share(2)));
        let owned = Pool::default();
        assert!(Arc::ptr_eq(&owned.get(vec![7]), &owned.get(vec![7])));
    }
}
