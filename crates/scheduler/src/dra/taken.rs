use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::AllocationResult;

use super::amounts::{Amounts, add, amount, full_name, subtract};

/// What is given away, or is about to be (`AllocatedState`).
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// How often; more than once is somebody's mistake.
    whole: HashMap<Arc<str>, u32>,
    /// Of devices that several may have: how many have some, and how much together.
    shared: HashMap<Arc<str>, (u32, Amounts)>,
}

impl Taken {
    /// Whether a device is somebody's alone.
    pub(super) fn is_whole(&self, id: &str) -> bool {
        self.whole.contains_key(id)
    }

    /// What others have of a device, if any have.
    pub(super) fn shared(&self, id: &str) -> Option<&Amounts> {
        self.shared.get(id).map(|(_, amounts)| amounts)
    }

    /// Whether anybody has (some of) a device.
    pub(super) fn is_any(&self, id: &str) -> bool {
        self.whole.contains_key(id) || self.shared.contains_key(id)
    }

    pub(super) fn take(&mut self, allocation: &AllocationResult) {
        each(allocation, |id, share| match share {
            None => *self.whole.entry(id).or_default() += 1,
            Some(amounts) => {
                let (users, sum) = self.shared.entry(id).or_default();
                *users += 1;
                add(sum, &amounts);
            }
        });
    }

    pub(super) fn give_back(&mut self, allocation: &AllocationResult) {
        each(allocation, |id, share| match share {
            None => {
                if let Some(count) = self.whole.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        self.whole.remove(&id);
                    }
                }
            }
            Some(amounts) => {
                if let Some((users, sum)) = self.shared.get_mut(&id) {
                    *users -= 1;
                    subtract(sum, &amounts);
                    if *users == 0 {
                        self.shared.remove(&id);
                    }
                }
            }
        });
    }
}

/// What watches a device for its administrator takes nothing.
fn each(allocation: &AllocationResult, mut tell: impl FnMut(Arc<str>, Option<Amounts>)) {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    for result in results.filter(|result| result.admin_access != Some(true)) {
        let id: Arc<str> = format!("{}/{}/{}", result.driver, result.pool, result.device).into();
        let share = result.share_id.as_ref().map(|_| {
            let amounts = result.consumed_capacity.iter().flatten();
            amounts.map(|(name, q)| (full_name(name, &result.driver), amount(q))).collect()
        });
        tell(id, share);
    }
}
