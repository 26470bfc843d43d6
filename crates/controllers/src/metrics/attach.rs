//! What is counted of volumes that are attached (kubernetes/kubernetes, `pkg/controller/volume/attachdetach/metrics`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base::metrics::{Counter, Family, Page};
use parking_lot::Mutex;

use super::counter;

static FORCED: Family<Counter> = Family::new();
static VOLUMES: LazyLock<Mutex<BTreeMap<String, Volumes>>> = LazyLock::new(Mutex::default);

/// How many volumes of which driver a node should have and has.
#[derive(Default)]
struct Volumes {
    desired: BTreeMap<String, usize>,
    actual: BTreeMap<String, usize>,
}

fn by_driver<'a>(drivers: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    drivers.for_each(|driver| *all.entry(driver.to_owned()).or_default() += 1);
    all
}

/// A volume is detached though its node may still use it, because of `timeout` or as `out-of-service`.
pub(crate) fn forced_detach(reason: &str) {
    counter(&FORCED, &format!("reason=\"{reason}\"")).inc();
}

/// The drivers of the volumes that a node should have, and of those that it has.
pub(crate) fn volumes_on<'a>(
    node: &str,
    desired: impl Iterator<Item = &'a str>,
    actual: impl Iterator<Item = &'a str>,
) {
    let volumes = Volumes { desired: by_driver(desired), actual: by_driver(actual) };
    let mut nodes = VOLUMES.lock();
    if volumes.desired.is_empty() && volumes.actual.is_empty() {
        nodes.remove(node);
    } else {
        nodes.insert(node.to_owned(), volumes);
    }
}

pub(super) fn page(page: &mut Page) {
    // So it is called upstream.
    page.counters(
        "attach_detach_controller_attachdetach_controller_forced_detaches",
        "Number of times the A/D Controller performed a forced detach",
        &FORCED,
    );
    let mut sums: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for Volumes { desired, actual } in VOLUMES.lock().values() {
        for (state, all) in [("actual_state_of_world", actual), ("desired_state_of_world", desired)] {
            for (driver, count) in all {
                *sums.entry((driver.clone(), state)).or_default() += count;
            }
        }
    }
    page.family("storage_count_attachable_volumes_in_use", "gauge", "Measure number of volumes in use");
    for (node, volumes) in &*VOLUMES.lock() {
        for (driver, count) in &volumes.desired {
            let plugin = format!("kubernetes.io/csi:{driver}");
            page.sample(&format!("node=\"{node}\",volume_plugin=\"{plugin}\""), *count as f64);
        }
    }
    page.family("attachdetach_controller_total_volumes", "gauge", "Number of volumes in A/D Controller");
    for ((driver, state), count) in sums {
        let plugin = format!("kubernetes.io/csi:{driver}");
        page.sample(&format!("plugin_name=\"{plugin}\",state=\"{state}\""), count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_summed_over_nodes_and_forgotten_with_them() {
        const DRIVER: &str = "counted.io";
        let drivers = |count: usize| std::iter::repeat_n(DRIVER, count);
        let lines = || {
            let mut text = Page::new();
            page(&mut text);
            let text = text.finish();
            let ours = text.lines().filter(|line| line.contains(DRIVER));
            ours.filter_map(|line| line.rsplit_once(' '))
                .map(|(_, value)| value.to_owned())
                .collect::<Vec<_>>()
        };
        volumes_on("counted-1", drivers(2), drivers(1));
        volumes_on("counted-2", drivers(1), drivers(1));
        // Those of each node come first, and then those that are there.
        assert_eq!(lines(), ["2", "1", "2", "3"]);
        volumes_on("counted-1", drivers(0), drivers(1));
        assert_eq!(lines(), ["1", "2", "1"]);
        volumes_on("counted-1", drivers(0), drivers(0));
        volumes_on("counted-2", drivers(0), drivers(0));
        assert!(lines().is_empty());
    }
}
