use std::collections::HashMap;

use k8s_openapi::api::core::v1::Taint;

use crate::pod::PodInfo;

type Set = Vec<(String, String, String)>;

/// The distinct sets of taints in a cluster: few, however many nodes there are, so each is compared with a pod once.
#[derive(Debug)]
pub(crate) struct TaintSets {
    sets: Vec<Set>,
    known: HashMap<Set, usize>,
}

/// How a pod gets on with a set of taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tolerance {
    /// It may run there.
    pub(crate) allowed: bool,
    /// So many taints ask it to go elsewhere if it can.
    pub(crate) unwelcome: i64,
}

impl Default for TaintSets {
    /// The first set is the empty one.
    fn default() -> Self {
        Self { sets: vec![Vec::new()], known: HashMap::from([(Vec::new(), 0)]) }
    }
}

impl TaintSets {
    /// A set's number.
    pub(crate) fn intern(&mut self, taints: &[Taint]) -> usize {
        let mut set: Set = taints
            .iter()
            .map(|t| (t.key.clone(), t.value.clone().unwrap_or_default(), t.effect.clone()))
            .collect();
        set.sort();
        if let Some(number) = self.known.get(&set) {
            return *number;
        }
        self.sets.push(set.clone());
        self.known.insert(set, self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// How a pod gets on with each set.
    pub(crate) fn tolerances(&self, pod: &PodInfo) -> Vec<Tolerance> {
        self.sets.iter().map(|set| tolerance(set, pod)).collect()
    }

    /// How a pod gets on with one set.
    pub(crate) fn tolerance(&self, number: usize, pod: &PodInfo) -> Tolerance {
        tolerance(&self.sets[number], pod)
    }
}

fn tolerance(set: &Set, pod: &PodInfo) -> Tolerance {
    let mut tolerance = Tolerance { allowed: true, unwelcome: 0 };
    for (key, value, effect) in set {
        if pod.wants().tolerates(key, value, effect) {
            continue;
        }
        match effect.as_str() {
            "PreferNoSchedule" => tolerance.unwelcome += 1,
            _ => tolerance.allowed = false,
        }
    }
    tolerance
}
