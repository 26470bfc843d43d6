//! What the pod resources API tells of dynamic resources, and who says so.

/// What dynamic resources a container has; for the pod resources API.
pub(crate) trait Dynamic: Send + Sync {
    /// The claims' devices of a container.
    fn of(&self, uid: &str, container: &str) -> Vec<DynamicResource>;
}

/// One claim's part of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DynamicResource {
    pub(crate) claim_name: String,
    pub(crate) claim_namespace: String,
    pub(crate) devices: Vec<ClaimDevice>,
}

/// One device of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimDevice {
    /// CDI devices, by their full names.
    pub(crate) cdi: Vec<String>,
    pub(crate) driver: String,
    pub(crate) pool: String,
    pub(crate) device: String,
    pub(crate) share_id: Option<String>,
}
