//! Images that nobody uses (kubernetes/kubernetes, `pkg/kubelet/images/image_gc_manager.go`) and what pods that are over
//! have left.
//!
//! An image that was built or imported here has no registry to come back from, and stays.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base::Timestamp;
use runtime::ContainerState;

use crate::plan::is_over;
use crate::settings::KubeletSettings;
use crate::stats::FileSystem;
use crate::worker::{Agent, uid_of};

/// When each image was first seen, and last used, by id.
pub(super) type Uses = HashMap<String, (Timestamp, Timestamp)>;

/// One image, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unused {
    pub(super) id: String,
    pub(super) size: u64,
    pub(super) seen: Timestamp,
    pub(super) used: Timestamp,
}

/// Which images go, the longest unused first, until so many bytes are won: pure. Those past the greatest age go in any
/// case.
pub(super) fn choose(
    mut images: Vec<Unused>,
    need: u64,
    least_age: Duration,
    most_age: Duration,
    now: Timestamp,
) -> Vec<(String, &'static str)> {
    let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or(Duration::ZERO);
    images.sort_by(|a, b| (a.used, a.seen, &a.id).cmp(&(b.used, b.seen, &b.id)));
    let (mut chosen, mut won) = (Vec::new(), 0u64);
    for image in images {
        if !most_age.is_zero() && since(image.used) > most_age {
            won = won.saturating_add(image.size);
            chosen.push((image.id, "age"));
        } else if won < need && since(image.seen) >= least_age {
            won = won.saturating_add(image.size);
            chosen.push((image.id, "space"));
        }
    }
    chosen
}

/// How many bytes are to be won, if the file system is too full.
pub(super) fn need(settings: &KubeletSettings, disk: &FileSystem) -> u64 {
    let used = disk.capacity.saturating_sub(disk.available);
    let part = |percent: u8| (u128::from(disk.capacity) * u128::from(percent) / 100) as u64;
    if disk.capacity == 0 || used < part(settings.image_gc_high_threshold_percent) {
        return 0;
    }
    used - part(settings.image_gc_low_threshold_percent).min(used)
}

impl Agent {
    /// Notes which images are in use, and gives the others.
    async fn unused_images(&self, uses: &mut Uses) -> Vec<Unused> {
        let (runtime, now) = (&self.runtime, self.clock.now());
        let all = runtime.sandboxes();
        let runs = all.iter().flat_map(|sandbox| runtime.containers(&sandbox.spec.id));
        let named: HashSet<String> = runs.map(|run| run.image).collect();
        let (images, in_use) = match self.images.list(named).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "cannot list the images");
                return Vec::new();
            }
        };
        uses.retain(|id, _| images.iter().any(|image| image.id.to_string() == *id));
        let mut unused = Vec::new();
        for image in images {
            let id = image.id.to_string();
            let (seen, used) = uses.entry(id.clone()).or_insert((now, now));
            if in_use.contains(&id) {
                *used = now;
            } else if !image.digests.is_empty() {
                unused.push(Unused { id, size: image.size, seen: *seen, used: *used });
            }
        }
        unused
    }

    /// Removes images that are too old, and as many unused ones as the file system needs. `all` removes all unused
    /// ones.
    pub(super) async fn collect_images(&self, uses: &mut Uses, all: bool) {
        let settings = &self.config.kubelet;
        let unused = self.unused_images(uses).await;
        let folder = self.images.folder().await;
        let disk = FileSystem::of(folder.as_deref().unwrap_or(&self.config.data_dir)).unwrap_or_default();
        let wanted = if all { u64::MAX } else { need(settings, &disk) };
        let least = if all { Duration::ZERO } else { settings.image_minimum_gc_age };
        let chosen = choose(unused, wanted, least, settings.image_maximum_gc_age, self.clock.now());
        if chosen.is_empty() {
            return;
        }
        let gone = self.images.remove(chosen.iter().map(|(id, _)| id.clone()).collect()).await;
        let gone: Vec<&'static str> =
            chosen.iter().filter(|(id, _)| gone.contains(id)).map(|(_, why)| *why).collect();
        tracing::info!(wanted = chosen.len(), removed = gone.len(), "unused images were removed");
        self.meters.note(|counted| {
            gone.iter().for_each(|why| *counted.images_removed.entry(why).or_default() += 1);
        });
    }

    /// Removes the containers of pods that are over, with what they wrote.
    pub(super) async fn collect_containers(&self) {
        for pod in self.pods.list().iter().filter(|pod| is_over(pod)) {
            for run in self.runtime.containers(uid_of(pod)) {
                if matches!(run.state, ContainerState::Exited(_))
                    && let Err(error) = self.runtime.remove_container(&run.id).await
                {
                    tracing::warn!(container = run.id, %error, "cannot clear an ended container away");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str, size: u64, seen: i64, used: i64) -> Unused {
        Unused { id: id.into(), size, seen: at(seen), used: at(used) }
    }

    fn chosen(images: Vec<Unused>, need: u64, most: u64) -> Vec<(String, &'static str)> {
        choose(images, need, Duration::from_secs(120), Duration::from_secs(most), at(1000))
    }

    #[test]
    fn the_longest_unused_go_until_there_is_room() {
        let all = || {
            vec![
                image("new", 10, 950, 10),
                image("b", 10, 0, 500),
                image("a", 10, 0, 100),
                image("c", 10, 0, 900),
            ]
        };
        let ids = |list: Vec<(String, &'static str)>| list.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(chosen(all(), 15, 0)), ["a", "b"]);
        assert!(chosen(all(), 0, 0).is_empty());
        assert_eq!(chosen(all(), 0, 600), [("new".to_owned(), "age"), ("a".to_owned(), "age")]);
    }

    #[test]
    fn room_is_needed_from_the_high_mark_to_the_low_one() {
        let settings = KubeletSettings::default();
        let disk = |available| FileSystem { capacity: 1000, available, ..FileSystem::default() };
        assert_eq!(need(&settings, &disk(151)), 0);
        assert_eq!(need(&settings, &disk(150)), 50);
        assert_eq!(need(&settings, &disk(0)), 200);
        assert_eq!(need(&settings, &FileSystem::default()), 0);
    }

    proptest! {
        #[test]
        fn no_more_than_needed(sizes in prop::collection::vec(1u64..50, 0..12), need in 0u64..200) {
            let all: Vec<_> = sizes.iter().enumerate().map(|(n, size)| image(&n.to_string(), *size, 0, n as i64)).collect();
            let gone = chosen(all, need, 0);
            let won: u64 = sizes[..gone.len()].iter().sum();
            prop_assert!(won >= need.min(sizes.iter().sum()));
            if let Some((_, rest)) = sizes[..gone.len()].split_last() { prop_assert!(rest.iter().sum::<u64>() < need); }
        }
    }
}
