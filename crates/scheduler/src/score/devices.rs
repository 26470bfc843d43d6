//! How early in their lists the devices stand that a pod would be given (`dynamicresources/dynamicresources.go`, `Score`).

use crate::dra::DeviceAsk;
use crate::view::ClusterView;

use super::FULL;

pub(super) fn add(
    view: &ClusterView,
    devices: &DeviceAsk<'_>,
    fitting: &[usize],
    total: &mut [i64],
    weight: i64,
) {
    if !devices.has_lists() {
        return;
    }
    let liked: Vec<i64> = fitting.iter().map(|row| devices.liking(view, *row)).collect();
    if let Some(most) = liked.iter().max().copied().filter(|most| *most > 0) {
        super::add(total, weight, |place| FULL * liked[place] / most);
    }
}
