//! From the interface's words to the engine's; pure but for profiles, which are files.

mod container;
mod resources;
mod sandbox;

pub(crate) use container::{Surroundings, container, log_path};
pub(crate) use resources::resources;
pub(crate) use sandbox::{host_ports, resolv_conf, sandbox};
