//! The last two points of everything, and what was used between them (kubernetes-sigs/metrics-server,
//! `pkg/storage/{node,pod,types}.go`).

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;

use crate::exposition::{Point, Scrape};

/// What is used now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Used {
    /// Until when.
    pub(crate) at: Timestamp,
    /// Over how long.
    pub(crate) window: Duration,
    /// Nanoseconds of CPU time in each second.
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
}

/// A container that began so long ago has a rate since its beginning, without an earlier point.
const FRESH_LEAST: Duration = Duration::from_secs(10);
/// And one that began longer ago needs two points.
const FRESH_MOST: Duration = Duration::from_secs(60);
/// Two points that are nearer to each other say too little.
const LEAST: Duration = Duration::from_millis(1000);

/// Of something: the last point, and one before.
#[derive(Clone, Copy, Debug)]
struct Course {
    last: Point,
    before: Option<Point>,
}

impl Course {
    fn next(old: Option<&Self>, point: Point) -> Self {
        let Some(old) = old else { return Self { last: point, before: None } };
        let restarted = point.began != old.last.began || point.cpu_ns < old.last.cpu_ns;
        if restarted {
            return Self { last: point, before: None };
        }
        match elapsed(old.last.at, point.at) {
            Some(time) if time >= LEAST => Self { last: point, before: Some(old.last) },
            // The same once more.
            _ => *old,
        }
    }

    fn used(&self) -> Option<Used> {
        let Point { at, began, cpu_ns, memory } = self.last;
        let (window, more) = match self.before {
            Some(before) => (elapsed(before.at, at)?, cpu_ns.saturating_sub(before.cpu_ns)),
            None => {
                let age = elapsed(began?, at)?;
                (FRESH_LEAST..=FRESH_MOST).contains(&age).then_some((age, cpu_ns))?
            }
        };
        let cpu = u128::from(more) * 1_000_000_000 / window.as_nanos().max(1);
        Some(Used { at, window, cpu: u64::try_from(cpu).ok()?, memory })
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(to.duration_since(from)).ok()
}

#[derive(Default)]
struct NodeCourse {
    node: Option<Course>,
    pods: HashMap<(String, String), HashMap<String, Course>>,
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Samples {
    nodes: HashMap<String, NodeCourse>,
    /// Where each pod is.
    places: HashMap<(String, String), String>,
}

/// How much is known of the nodes that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is none.
    Nothing,
    /// Of some it is not known yet how fast they use CPU time.
    Half,
    Whole,
}

impl Samples {
    pub(crate) fn progress(&self) -> Progress {
        let known = |node: &NodeCourse| node.node.as_ref().is_none_or(|course| course.before.is_some());
        match self.nodes.is_empty() {
            true => Progress::Nothing,
            false if self.nodes.values().all(known) => Progress::Whole,
            false => Progress::Half,
        }
    }

    /// Takes note of what a node said. What it does not tell of any more is gone.
    pub(crate) fn note(&mut self, node: &str, scrape: Scrape) {
        let old = self.nodes.remove(node).unwrap_or_default();
        let pods: HashMap<_, HashMap<_, _>> = scrape
            .pods
            .into_iter()
            .map(|(key, containers)| {
                let before = old.pods.get(&key);
                let course = |(name, point): (String, Point)| {
                    let course = Course::next(before.and_then(|b| b.get(&name)), point);
                    (name, course)
                };
                (key, containers.into_iter().map(course).collect())
            })
            .collect();
        self.places.retain(|key, place| place != node || pods.contains_key(key));
        for key in pods.keys() {
            self.places.insert(key.clone(), node.to_owned());
        }
        let course = scrape.node.map(|point| Course::next(old.node.as_ref(), point));
        self.nodes.insert(node.to_owned(), NodeCourse { node: course, pods });
    }

    /// Forgets nodes that are not among these.
    pub(crate) fn keep(&mut self, nodes: &[String]) {
        self.nodes.retain(|name, _| nodes.contains(name));
        let nodes = &self.nodes;
        self.places.retain(|_, place| nodes.contains_key(place));
    }

    /// Forgets what a node said: it says nothing any more.
    pub(crate) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
        self.places.retain(|_, place| place != node);
    }

    /// What a node uses.
    pub(crate) fn node(&self, name: &str) -> Option<Used> {
        self.nodes.get(name)?.node.as_ref()?.used()
    }

    /// What each container of a pod uses, by name; nothing unless all are known.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(String, Used)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let containers = self.nodes.get(self.places.get(&key)?)?.pods.get(&key)?;
        let used: Option<Vec<_>> =
            containers.iter().map(|(name, course)| Some((name.clone(), course.used()?))).collect();
        let mut used = used.filter(|used| !used.is_empty())?;
        used.sort_by(|(a, _), (b, _)| a.cmp(b));
        Some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(second: i64, began: i64, cpu_ms: u64) -> Point {
        let at = |s| Timestamp::from_second(1_000_000 + s).unwrap();
        Point { at: at(second), began: Some(at(began)), cpu_ns: cpu_ms * 1_000_000, memory: 7 }
    }

    fn scrape(containers: &[(&str, Point)]) -> Scrape {
        let containers = containers.iter().map(|(name, point)| ((*name).to_owned(), *point)).collect();
        Scrape { node: Some(point(0, 0, 0)), pods: [(("n".to_owned(), "p".to_owned()), containers)].into() }
    }

    fn cpu(samples: &Samples) -> Option<u64> {
        samples.pod("n", "p").map(|used| used.iter().map(|(_, u)| u.cpu).sum())
    }

    #[test]
    fn rates_are_between_two_points() {
        let mut samples = Samples::default();
        assert_eq!(samples.progress(), Progress::Nothing);
        samples.note("a", scrape(&[("c", point(100, 0, 1000))]));
        assert_eq!((cpu(&samples), samples.progress()), (None, Progress::Half));
        samples.note("a", scrape(&[("c", point(115, 0, 4000))]));
        let used = samples.pod("n", "p").unwrap();
        assert_eq!(
            (used[0].1.cpu, used[0].1.window, used[0].1.memory),
            (200_000_000, Duration::from_secs(15), 7)
        );
        // The same moment once more changes nothing.
        samples.note("a", scrape(&[("c", point(115, 0, 4000))]));
        assert_eq!(cpu(&samples), Some(200_000_000));
    }

    #[test]
    fn who_has_just_begun_is_measured_from_there() {
        let mut samples = Samples::default();
        samples.note("a", scrape(&[("c", point(5, 0, 1000))]));
        assert_eq!(cpu(&samples), None);
        samples.note("b", scrape(&[("c", point(10, 0, 1000))]));
        assert_eq!(cpu(&samples), Some(100_000_000));
        // A restart begins anew, and a pod of which one container is unknown is unknown.
        samples.note("b", scrape(&[("c", point(20, 15, 10)), ("d", point(20, 0, 10))]));
        assert_eq!(cpu(&samples), None);
    }

    #[test]
    fn what_is_not_told_of_any_more_is_gone() {
        let mut samples = Samples::default();
        samples.note("a", scrape(&[("c", point(10, 0, 1))]));
        samples.note("a", Scrape::default());
        assert_eq!(cpu(&samples), None);
        samples.note("a", scrape(&[("c", point(10, 0, 1))]));
        samples.keep(&["b".into()]);
        assert!(cpu(&samples).is_none() && samples.places.is_empty());
        samples.note("a", scrape(&[("c", point(10, 0, 1))]));
        samples.forget("a");
        assert!(samples.nodes.is_empty() && samples.places.is_empty());
    }
}
