//! Volumes of pods: what a node gives a pod to read and write, from its own disk or memory or from the API.
//!
//! ConfigMaps and Secrets are followed by one watch for each object that this node's pods name, shared by those
//! pods and ended with the last of them. One informer for each kind would hold every Secret of the cluster on every
//! node, and a node is not even to be allowed that; a watch of one object by name is what the Node authorizer
//! grants, and costs nothing while nothing changes.

mod atomic;
mod certificates;
mod content;
mod downward;
mod empty_dir;
mod error;
mod ext4;
mod host_path;
mod mounts;
mod objects;
mod ownership;
mod patience;
mod persistent;
mod sub_path;
#[cfg(test)]
mod testing;
mod tokens;
mod trust;
mod volumes;

pub use downward::{Allocatable, field, resource_field};
pub use error::{ClaimFault, Fault, VolumeError};
pub use mounts::unmount_below;
pub use persistent::release_all;
pub use sub_path::read_beneath;
pub use volumes::{Options, Place, Places, SetUp, Volumes};
