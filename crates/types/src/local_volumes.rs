//! The names that the built-in storage goes by. They are in objects that outlive a version: they never change.

/// The provisioner of classes, and the driver of volumes.
pub const DRIVER: &str = "local.gantry.io";
/// The class that every cluster starts with.
pub const CLASS: &str = "local";
/// The label of a volume that names the node its data is on, by which that node finds it.
pub const NODE_LABEL: &str = "local.gantry.io/node";
/// The attribute of a volume that names that node. Unlike the label it never changes, so rights hang on it.
pub const NODE: &str = "node";
/// The attribute of a volume, and the parameter of a class, that says how the data is kept.
pub const KIND: &str = "kind";
/// A file with a file system of exactly the wished size in it.
pub const IMAGE: &str = "image";
/// A directory whose size nobody enforces.
pub const DIRECTORY: &str = "directory";
/// Keeps a volume's object until its node has dealt with the data.
pub const FINALIZER: &str = "local.gantry.io/data";
/// The attribute of a volume whose data begins as a copy of one of its node's snapshots.
pub const SNAPSHOT: &str = "snapshot";
/// The attribute of a volume whose data begins as a copy of that volume's data, on the same node.
pub const CLONE: &str = "clone";
/// The snapshot class that every cluster starts with.
pub const SNAPSHOT_CLASS: &str = "local";

/// What storage calls a snapshot: its node, and its name there.
pub fn snapshot_handle(node: &str, snapshot: &str) -> String {
    format!("{node}/{snapshot}")
}

/// The node and the snapshot of a handle.
pub fn of_snapshot_handle(handle: &str) -> Option<(&str, &str)> {
    handle.split_once('/').filter(|(node, snapshot)| !node.is_empty() && !snapshot.is_empty())
}
