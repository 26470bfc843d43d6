//! What people may set of single controllers, by the names of kube-controller-manager's flags.

use std::collections::BTreeMap;
use std::time::Duration;

/// Settings that have a place here because they are of one controller each.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// How much each does side by side.
    pub concurrency: Concurrency,
    /// How addresses behind Services are written.
    pub endpoints: EndpointSettings,
    /// How claims get volumes, and nodes lose them.
    pub volumes: VolumeSettings,
    /// How long a token of a Secret may go unused (`--legacy-service-account-token-clean-up-period`).
    pub unused_tokens: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::default(),
            endpoints: EndpointSettings::default(),
            volumes: VolumeSettings::default(),
            unused_tokens: Duration::from_secs(365 * 86_400),
        }
    }
}

/// How many objects controllers look at side by side (`--concurrent-…-syncs`). Those that are not named have numbers of
/// their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concurrency(BTreeMap<&'static str, usize>);

impl Concurrency {
    /// Names a controller, by upstream's name.
    pub fn set(&mut self, controller: &'static str, objects: usize) {
        self.0.insert(controller, objects);
    }

    pub(crate) fn of(&self, controller: &str) -> Option<usize> {
        self.0.get(controller).copied()
    }
}

/// How EndpointSlices and Endpoints are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Endpoints in one slice (`--max-endpoints-per-slice`).
    pub most_in_slice: usize,
    /// Addresses of one subset that are mirrored (`--mirroring-max-endpoints-per-subset`).
    pub most_mirrored: usize,
    /// How long changes of pods are gathered before slices are written (`--endpointslice-updates-batch-period`).
    pub slices_batch: Duration,
    /// The same for Endpoints (`--endpoint-updates-batch-period`).
    pub endpoints_batch: Duration,
    /// How long changes of Endpoints are gathered before they are mirrored
    /// (`--mirroring-endpointslice-updates-batch-period`).
    pub mirror_batch: Duration,
}

impl Default for EndpointSettings {
    fn default() -> Self {
        Self {
            most_in_slice: 100,
            most_mirrored: 1000,
            slices_batch: Duration::ZERO,
            endpoints_batch: Duration::ZERO,
            mirror_batch: Duration::ZERO,
        }
    }
}

/// What is done for claims and volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSettings {
    /// How often people are told why a claim still waits (`--pvclaimbinder-sync-period`).
    pub sync_period: Duration,
    /// Whether provisioners are asked for volumes (`--enable-dynamic-provisioning`).
    pub provisioning: bool,
    /// Whether a node that is ill loses volumes in the end that it says it uses; without
    /// `--disable-force-detach-on-timeout`.
    pub force_detach: bool,
}

impl Default for VolumeSettings {
    fn default() -> Self {
        Self { sync_period: Duration::from_secs(15), provisioning: true, force_detach: true }
    }
}
