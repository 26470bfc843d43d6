//! Which events are new, which are one more of the same, and which are too many.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use base::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventKind;

/// Similar events within this time are combined from the eleventh on, and one object may have a burst of 25 and
/// then one each five minutes (client-go, `tools/record/events_cache.go`).
const SIMILAR_SECONDS: i64 = 600;
const SIMILAR: usize = 10;
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// How much is remembered at most, of each sort.
const REMEMBERED: usize = 4096;

/// Names one row of equal events.
pub(super) type Id = u64;

pub(super) enum Verdict {
    Drop,
    Write {
        id: Id,
        message: String,
        /// The event that is there already, with the count it now has.
        known: Option<Known>,
    },
}

#[derive(Clone)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) count: i32,
}

#[derive(Default)]
pub(super) struct Correlator {
    buckets: HashMap<u64, (f64, Timestamp)>,
    similar: HashMap<u64, (HashSet<u64>, Timestamp)>,
    known: HashMap<Id, Known>,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Forgets everything rather than growing without end; the price is a few events more.
fn bound<T>(map: &mut HashMap<u64, T>) {
    if map.len() >= REMEMBERED {
        map.clear();
    }
}

impl Correlator {
    pub(super) fn judge(
        &mut self,
        about: &ObjectReference,
        kind: EventKind,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> Verdict {
        let object = (&about.kind, &about.namespace, &about.name, &about.uid);
        if !self.has_room(hash(object), now) {
            return Verdict::Drop;
        }
        let group = hash((object, &about.field_path, kind, reason));
        let combined = self.is_one_of_many(group, hash(message), now);
        let (id, message) = if combined {
            (group, format!("(combined from similar events): {message}"))
        } else {
            (hash((group, message)), message.to_owned())
        };
        let known = self.known.get_mut(&id).map(|known| {
            known.count = known.count.saturating_add(1);
            known.clone()
        });
        Verdict::Write { id, message, known }
    }

    /// An event was written.
    pub(super) fn written(&mut self, id: Id, name: String) {
        bound(&mut self.known);
        self.known.insert(id, Known { name, count: 1 });
    }

    /// The event that was there is gone.
    pub(super) fn restart(&mut self, id: &Id) {
        self.known.remove(id);
    }

    fn has_room(&mut self, object: u64, now: Timestamp) -> bool {
        bound(&mut self.buckets);
        let (tokens, last) = self.buckets.entry(object).or_insert((BURST, now));
        let passed = now.duration_since(*last).as_secs_f64().max(0.0);
        (*tokens, *last) = ((*tokens + passed / REFILL_SECONDS).min(BURST), now);
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn is_one_of_many(&mut self, group: u64, message: u64, now: Timestamp) -> bool {
        bound(&mut self.similar);
        let (messages, last) = self.similar.entry(group).or_insert_with(|| (HashSet::new(), now));
        if now.duration_since(*last).as_secs() > SIMILAR_SECONDS {
            messages.clear();
        }
        *last = now;
        if messages.len() < SIMILAR {
            messages.insert(message);
            return false;
        }
        !messages.contains(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> ObjectReference {
        ObjectReference { name: Some(name.into()), ..Default::default() }
    }

    #[test]
    fn equal_events_are_counted_and_similar_ones_combined() {
        let (mut c, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let say = |c: &mut Correlator, message: &str| match c.judge(
            &about("p"),
            EventKind::Warning,
            "Failed",
            message,
            now,
        ) {
            Verdict::Drop => panic!("dropped {message}"),
            Verdict::Write { id, message, known } => {
                if known.is_none() {
                    c.written(id, "e".into());
                }
                (message, known.map_or(1, |k| k.count))
            }
        };
        assert_eq!(say(&mut c, "a"), ("a".into(), 1));
        assert_eq!(say(&mut c, "a"), ("a".into(), 2));
        for n in 0..9 {
            assert_eq!(say(&mut c, &n.to_string()).1, 1);
        }
        assert_eq!(say(&mut c, "x"), ("(combined from similar events): x".into(), 1));
        assert_eq!(say(&mut c, "y"), ("(combined from similar events): y".into(), 2));
        assert_eq!(say(&mut c, "a"), ("a".into(), 3));
    }

    #[test]
    fn floods_are_dropped_for_one_object_only() {
        let (mut c, now) = (Correlator::default(), Timestamp::UNIX_EPOCH);
        let mut written = 0;
        for _ in 0..100 {
            let verdict = c.judge(&about("p"), EventKind::Normal, "r", "m", now);
            written += usize::from(matches!(verdict, Verdict::Write { .. }));
        }
        assert_eq!(written, 25);
        let other = c.judge(&about("q"), EventKind::Normal, "r", "m", now);
        assert!(matches!(other, Verdict::Write { .. }));
    }
}
