//! Which of the node's own pods run, which end, and which wait for a name: pure.
//!
//! ```text
//! wanted ─► runs ─► not wanted any more, or changed ─► ends ─► gone
//!                                          └─ changed: the new one waits ─────┴─► runs
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use client::Key;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Entry, Source};
use crate::plan::grace_of;
use crate::worker::uid_of;

/// The node's own pods by name.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<Key, Slot>);

/// One name: a pod has it, and another may wait for it.
struct Slot {
    holder: Entry,
    next: Option<Entry>,
}

impl Slot {
    fn is_ending(&self) -> bool {
        self.holder.pod.metadata.deletion_timestamp.is_some()
    }

    /// Begins to end the holder; says whether that is news.
    fn end(&mut self, now: Timestamp) -> bool {
        if self.is_ending() {
            return false;
        }
        let pod = Arc::make_mut(&mut self.holder.pod);
        let grace = pod.spec.as_ref().map_or(0, grace_of);
        pod.metadata.deletion_timestamp = Some(Time(now));
        pod.metadata.deletion_grace_period_seconds = Some(i64::try_from(grace).unwrap_or(i64::MAX));
        true
    }
}

impl Table {
    /// The pod that has this name.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Pod>> {
        self.0.get(key).map(|slot| slot.holder.pod.clone())
    }

    /// Every pod that has its name.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        self.0.values().map(|slot| slot.holder.pod.clone()).collect()
    }

    pub(crate) fn entry(&self, key: &Key, uid: &str) -> Option<Entry> {
        self.0.get(key).map(|slot| slot.holder.clone()).filter(|entry| uid_of(&entry.pod) == uid)
    }

    /// Takes up pods from before. Two of one name can be when an agent was replaced between one's end and the other's
    /// beginning: the first comes first, and the other, which nobody has begun, is asked for again by its manifest.
    pub(crate) fn adopt(&mut self, entries: Vec<Entry>) {
        for holder in entries {
            self.0.entry(Key::of(&*holder.pod)).or_insert(Slot { holder, next: None });
        }
    }

    /// Notes all that a source wants. Gives the names about which something has changed.
    pub(crate) fn want(&mut self, source: Source, entries: Vec<Entry>, now: Timestamp) -> Vec<Key> {
        let mut wanted: BTreeMap<Key, Entry> =
            entries.into_iter().map(|entry| (Key::of(&*entry.pod), entry)).collect();
        let mut changed = Vec::new();
        for (key, slot) in &mut self.0 {
            if slot.holder.source != source {
                // Whoever had the name first keeps it.
                if let Some(late) = wanted.remove(key) {
                    tracing::warn!(pod = %key, place = late.place, "another manifest has this name already");
                }
                continue;
            }
            match wanted.remove(key) {
                Some(entry) if entry.print == slot.holder.print && !slot.is_ending() => slot.next = None,
                next => {
                    slot.next = next;
                    if slot.end(now) {
                        changed.push(key.clone());
                    }
                }
            }
        }
        for (key, holder) in wanted {
            changed.push(key.clone());
            self.0.insert(key, Slot { holder, next: None });
        }
        changed
    }

    /// Notes a pod's status.
    pub(crate) fn report(&mut self, key: &Key, uid: &str, status: PodStatus) {
        if let Some(slot) = self.0.get_mut(key).filter(|slot| uid_of(&slot.holder.pod) == uid) {
            Arc::make_mut(&mut slot.holder.pod).status = Some(status);
        }
    }

    /// A pod has ended: its name is the next one's.
    pub(crate) fn ended(&mut self, key: &Key, uid: &str) {
        let Some(slot) = self.0.get_mut(key).filter(|slot| uid_of(&slot.holder.pod) == uid) else { return };
        match slot.next.take() {
            Some(next) => slot.holder = next,
            None => drop(self.0.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(name: &str, version: &str, source: Source) -> Entry {
        let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": format!("{name}-{version}")},
            "spec": {"containers": [], "terminationGracePeriodSeconds": 7}});
        Entry {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            print: version.to_owned(),
            source,
            place: String::new(),
        }
    }

    fn file(name: &str, version: &str) -> Entry {
        entry(name, version, Source::File)
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    fn uid(table: &Table, name: &str) -> Option<String> {
        table.get(&key(name)).map(|pod| uid_of(&pod).to_owned())
    }

    #[test]
    fn a_changed_pod_waits_for_the_old_ones_end() {
        let mut table = Table::default();
        assert_eq!(table.want(Source::File, vec![file("a", "1"), file("b", "1")], now()).len(), 2);
        assert_eq!(table.want(Source::File, vec![file("a", "1"), file("b", "1")], now()), []);
        assert_eq!(table.want(Source::File, vec![file("a", "2"), file("b", "1")], now()), [key("a")]);
        let ending = table.get(&key("a")).unwrap();
        assert_eq!((uid_of(&ending), ending.metadata.deletion_grace_period_seconds), ("a-1", Some(7)));
        // It is told once, and the last word counts.
        assert_eq!(table.want(Source::File, vec![file("a", "3"), file("b", "1")], now()), []);
        table.ended(&key("a"), "a-1");
        assert_eq!(uid(&table, "a").as_deref(), Some("a-3"));
        assert!(table.get(&key("a")).unwrap().metadata.deletion_timestamp.is_none());
        table.want(Source::File, vec![], now());
        table.ended(&key("a"), "a-3");
        assert_eq!((uid(&table, "a"), uid(&table, "b").as_deref()), (None, Some("b-1")));
    }

    #[test]
    fn what_comes_back_begins_anew() {
        let mut table = Table::default();
        table.want(Source::File, vec![file("a", "1")], now());
        table.report(&key("a"), "a-1", serde_json::from_value(json!({"phase": "Running"})).unwrap());
        table.want(Source::File, vec![], now());
        table.want(Source::File, vec![file("a", "1")], now());
        assert!(table.get(&key("a")).unwrap().metadata.deletion_timestamp.is_some());
        table.ended(&key("a"), "a-1");
        let again = table.get(&key("a")).unwrap();
        assert!(again.metadata.deletion_timestamp.is_none() && again.status.is_none());
    }

    #[test]
    fn sources_leave_each_others_pods_alone() {
        let mut table = Table::default();
        table.want(Source::File, vec![file("a", "1")], now());
        let other = |version| entry("a", version, Source::Url);
        assert_eq!(
            table.want(Source::Url, vec![other("9"), entry("u", "1", Source::Url)], now()),
            [key("u")]
        );
        assert_eq!(table.want(Source::Url, vec![], now()), [key("u")]);
        assert_eq!(uid(&table, "a").as_deref(), Some("a-1"));
        assert!(table.get(&key("a")).unwrap().metadata.deletion_timestamp.is_none());
    }

    #[test]
    fn what_ran_before_goes_on_or_ends() {
        let mut table = Table::default();
        table.adopt(vec![file("a", "1"), file("b", "1")]);
        assert_eq!(table.want(Source::File, vec![file("a", "1")], now()), [key("b")]);
        assert!(table.get(&key("a")).unwrap().metadata.deletion_timestamp.is_none());
        assert!(table.get(&key("b")).unwrap().metadata.deletion_timestamp.is_some());
    }

    proptest! {
        /// Whatever is wanted in whatever order, once all that ends has ended, what runs is what was wanted last.
        #[test]
        fn in_the_end_runs_what_was_wanted_last(
            wishes in prop::collection::vec(
                (prop::collection::btree_map("[abc]", "[12]", 0..3), prop::collection::vec("[abc]", 0..3)), 1..12),
        ) {
            let mut table = Table::default();
            let mut last = BTreeMap::new();
            for (wish, ends) in wishes {
                let entries = wish.iter().map(|(name, version)| file(name, version)).collect();
                table.want(Source::File, entries, now());
                for name in ends {
                    let ending = table.get(&key(&name)).filter(|p| p.metadata.deletion_timestamp.is_some());
                    if let Some(pod) = ending {
                        table.ended(&key(&name), uid_of(&pod));
                    }
                }
                last = wish;
            }
            for pod in table.list().iter().filter(|p| p.metadata.deletion_timestamp.is_some()) {
                table.ended(&Key::of(&**pod), uid_of(pod));
            }
            let runs: BTreeMap<String, String> = table.0.iter()
                .map(|(key, slot)| (key.name().to_owned(), slot.holder.print.clone())).collect();
            prop_assert_eq!(runs, last);
            prop_assert!(table.list().iter().all(|p| p.metadata.deletion_timestamp.is_none()));
        }
    }
}
