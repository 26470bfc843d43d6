//! How fast pods may be driven away from where (kubernetes/kubernetes,
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, `handleDisruption`, `ComputeZoneState`).
//!
//! ```text
//! some nodes of a zone are lost    Normal    one after the other, at the full rate
//! many are                         Partial   slowly; in a small zone not at all: it is rather the zone than the nodes
//! all are, but not everywhere      Full      at the full rate: the pods are missed
//! all are everywhere                         nobody: it is rather us
//! ```

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::settings::NodeSettings;

/// How a zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    Partial,
    Full,
}

/// All nodes by zone, and how many of each may still be tainted.
pub(super) struct Zones {
    settings: NodeSettings,
    nodes: HashMap<String, (String, bool)>,
    zones: HashMap<String, Zone>,
}

struct Zone {
    well: usize,
    ill: usize,
    state: ZoneState,
    bucket: Bucket,
}

/// Lets one through now and then. One can wait in it.
struct Bucket {
    rate: f64,
    /// When the next one may pass, if the rate allows any.
    next: Instant,
}

/// What may become of a node that ought to be tainted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Admission {
    Now,
    After(Duration),
    /// Not as long as the zone is as it is.
    Never,
}

/// The zone of a node: region and zone, as far as they are known; nodes that want no part in this have none.
pub(super) fn of(node: &Node) -> Option<String> {
    let labels = node.metadata.labels.as_ref();
    let label = |names: [&str; 2]| names.iter().find_map(|name| labels?.get(*name)).map(String::as_str);
    if label(["node.kubernetes.io/exclude-disruption"; 2]).is_some() {
        return None;
    }
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    Some(format!("{}:\0:{}", region.unwrap_or_default(), zone.unwrap_or_default()))
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, next: now }
    }

    /// What has passed already counts at the new rate too.
    fn set_rate(&mut self, rate: f64, now: Instant) {
        if self.rate != rate && self.next > now {
            self.next = now + period(rate).unwrap_or_default();
        }
        self.rate = rate;
    }

    fn pass(&mut self, now: Instant) -> Admission {
        let Some(period) = period(self.rate) else { return Admission::Never };
        if self.next > now {
            return Admission::After(self.next - now);
        }
        self.next = now + period;
        Admission::Now
    }
}

fn period(rate: f64) -> Option<Duration> {
    (rate > 0.0).then(|| Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX / 4))
}

impl Zones {
    pub(super) fn new(settings: NodeSettings) -> Self {
        Self { settings, nodes: HashMap::new(), zones: HashMap::new() }
    }

    /// Takes note of a node. Tells whether that changes what may happen to others.
    pub(super) fn set(&mut self, name: &str, zone: Option<String>, well: bool, now: Instant) -> bool {
        let Some(zone) = zone else { return self.forget(name, now) };
        let new = (zone, well);
        if self.nodes.get(name) == Some(&new) {
            return false;
        }
        let before = self.any_well();
        let moved = self.remove(name, now);
        let zone = self.zones.entry(new.0.clone()).or_insert_with(|| Zone {
            well: 0,
            ill: 0,
            state: ZoneState::Normal,
            bucket: Bucket::new(self.settings.eviction_rate, now),
        });
        *if well { &mut zone.well } else { &mut zone.ill } += 1;
        let changed = zone.update(&self.settings, now);
        crate::metrics::zone(&new.0, zone.well, zone.ill);
        self.nodes.insert(name.to_owned(), new);
        self.zones.retain(|_, zone| zone.well + zone.ill > 0);
        changed || moved || before != self.any_well()
    }

    /// The same for one that is gone, or takes no part.
    pub(super) fn forget(&mut self, name: &str, now: Instant) -> bool {
        let before = self.any_well();
        let changed = self.remove(name, now);
        self.nodes.remove(name);
        self.zones.retain(|_, zone| zone.well + zone.ill > 0);
        changed || before != self.any_well()
    }

    fn remove(&mut self, name: &str, now: Instant) -> bool {
        let Some((name_of_zone, well)) = self.nodes.get(name) else { return false };
        let Some(zone) = self.zones.get_mut(name_of_zone) else { return false };
        *if *well { &mut zone.well } else { &mut zone.ill } -= 1;
        let changed = zone.update(&self.settings, now);
        crate::metrics::zone(name_of_zone, zone.well, zone.ill);
        changed
    }

    /// Whether any node is well.
    pub(super) fn any_well(&self) -> bool {
        self.zones.values().any(|zone| zone.well > 0)
    }

    /// Whether one more node of a zone may be tainted now. Nodes without a zone wait for nobody.
    pub(super) fn admit(&mut self, zone: Option<&str>, now: Instant) -> Admission {
        match zone.and_then(|zone| self.zones.get_mut(zone)) {
            Some(zone) => zone.bucket.pass(now),
            None => Admission::Now,
        }
    }

    /// After a blackout everybody begins anew.
    pub(super) fn restart(&mut self, now: Instant) {
        for zone in self.zones.values_mut() {
            zone.bucket.next = now;
        }
    }
}

impl Zone {
    fn update(&mut self, settings: &NodeSettings, now: Instant) -> bool {
        let (total, before) = (self.well + self.ill, (self.state, self.bucket.rate));
        self.state = state(self.well, self.ill, settings.unhealthy_zone_threshold);
        let rate = match self.state {
            ZoneState::Normal | ZoneState::Full => settings.eviction_rate,
            ZoneState::Partial if total > settings.large_cluster_size => settings.secondary_eviction_rate,
            ZoneState::Partial => 0.0,
        };
        self.bucket.set_rate(rate, now);
        before != (self.state, rate)
    }
}

/// `ComputeZoneState`.
fn state(well: usize, ill: usize, threshold: f64) -> ZoneState {
    if well == 0 && ill > 0 {
        ZoneState::Full
    } else if ill > 2 && ill as f64 / (ill + well) as f64 >= threshold {
        ZoneState::Partial
    } else {
        ZoneState::Normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLD: f64 = 0.55;

    #[test]
    fn a_zone_is_partly_lost_from_three_nodes_and_the_threshold_on() {
        for (well, ill, expected) in [
            (0, 0, ZoneState::Normal),
            (0, 1, ZoneState::Full),
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::Partial),
            (3, 3, ZoneState::Normal),
            (45, 55, ZoneState::Partial),
            (46, 54, ZoneState::Normal),
        ] {
            assert_eq!(state(well, ill, THRESHOLD), expected, "{well} well, {ill} ill");
        }
    }

    fn zone(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn one_at_a_time_and_none_where_a_small_zone_is_lost_in_part() {
        let now = Instant::now();
        let mut zones = Zones::new(NodeSettings::default());
        for n in 0..5 {
            zones.set(&format!("a{n}"), zone("a"), true, now);
        }
        zones.set("b", zone("b"), true, now);
        assert!(!zones.set("a0", zone("a"), false, now) && !zones.set("a1", zone("a"), false, now));
        let ten = Duration::from_secs(10);
        assert_eq!(zones.admit(Some("a"), now), Admission::Now);
        assert_eq!(zones.admit(Some("a"), now), Admission::After(ten));
        assert_eq!(zones.admit(Some("b"), now), Admission::Now, "each zone has its own rate");
        assert_eq!(zones.admit(Some("a"), now + ten), Admission::Now);
        assert!(zones.set("a2", zone("a"), false, now + ten), "three of five");
        assert_eq!(zones.admit(Some("a"), now + ten * 9), Admission::Never);
        zones.set("a3", zone("a"), false, now + ten);
        assert!(zones.set("a4", zone("a"), false, now + ten), "all are lost: their pods are missed");
        assert!(zones.any_well());
        assert_eq!(zones.admit(Some("a"), now + ten * 2), Admission::Now);
        assert!(zones.set("b", zone("b"), false, now));
        assert!(!zones.any_well());
        assert!(zones.forget("a4", now) || !zones.any_well());
    }

    #[test]
    fn large_zones_lost_in_part_go_on_slowly() {
        let now = Instant::now();
        let mut zones = Zones::new(NodeSettings::default());
        for n in 0..60 {
            zones.set(&n.to_string(), zone("a"), n < 20, now);
        }
        assert_eq!(zones.admit(Some("a"), now), Admission::Now);
        assert_eq!(zones.admit(Some("a"), now), Admission::After(Duration::from_secs(100)));
        // Back to normal: it need not wait as long as it was told.
        for n in 0..40 {
            zones.set(&n.to_string(), zone("a"), true, now);
        }
        assert_eq!(zones.admit(Some("a"), now), Admission::After(Duration::from_secs(10)));
    }

    proptest! {
        /// However nodes come, go, move and fall ill, the counts are those of the nodes there are.
        #[test]
        fn counts_are_those_of_the_nodes(
            steps in prop::collection::vec((0_u8..8, prop::option::of(0_u8..3), any::<bool>(), any::<bool>()), 0..60),
        ) {
            let now = Instant::now();
            let mut zones = Zones::new(NodeSettings::default());
            let mut model: HashMap<String, (String, bool)> = HashMap::new();
            for (node, place, well, gone) in steps {
                let (node, place) = (node.to_string(), place.map(|p| p.to_string()));
                match place {
                    Some(place) if !gone => {
                        zones.set(&node, Some(place.clone()), well, now);
                        model.insert(node, (place, well));
                    }
                    _ => {
                        zones.set(&node, None, well, now);
                        model.remove(&node);
                    }
                }
                prop_assert_eq!(&zones.nodes, &model);
                prop_assert_eq!(zones.any_well(), model.values().any(|(_, well)| *well));
                for (name, zone) in &zones.zones {
                    let count = |w: bool| model.values().filter(|(z, well)| z == name && *well == w).count();
                    prop_assert_eq!((zone.well, zone.ill), (count(true), count(false)));
                    prop_assert_eq!(zone.state, state(zone.well, zone.ill, THRESHOLD));
                }
            }
        }
    }
}
