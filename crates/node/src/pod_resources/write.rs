//! The messages.

use grpc::Writer;

use crate::managers::DynamicResource;
use crate::memory::Block;

/// A device: resource, ID, NUMA nodes if they matter.
pub(super) type Listed<'a> = (&'a str, &'a str, Option<Vec<usize>>);

/// A container's part of a `PodResources`.
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) devices: Vec<Listed<'a>>,
    pub(super) cpus: Vec<usize>,
    pub(super) memory: Vec<Block>,
    pub(super) dynamic: Vec<DynamicResource>,
}

/// One after the other, as upstream lists them.
pub(super) fn devices_of<'a>(
    all: impl Iterator<Item = (&'a str, Vec<(&'a str, Option<Vec<usize>>)>)>,
) -> Vec<Listed<'a>> {
    all.flat_map(|(resource, devices)| devices.into_iter().map(move |(id, nodes)| (resource, id, nodes)))
        .collect()
}

impl Container<'_> {
    /// A `ContainerResources`.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(1, self.name.as_bytes());
        write_devices(writer, 2, &self.devices);
        for cpu in &self.cpus {
            writer.present(3, *cpu as u64);
        }
        write_memory(writer, 4, &self.memory);
        for resource in &self.dynamic {
            writer.message(5, |inner| write_dynamic(inner, resource));
        }
    }
}

/// `ContainerDevices`, one each.
pub(super) fn write_devices(writer: &mut Writer, field: u32, devices: &[Listed<'_>]) {
    for (resource, id, nodes) in devices {
        writer.message(field, |inner| {
            inner.bytes(1, resource.as_bytes()).bytes(2, id.as_bytes());
            if let Some(nodes) = nodes {
                write_topology(inner, nodes);
            }
        });
    }
}

/// `ContainerMemory`, one each.
pub(super) fn write_memory(writer: &mut Writer, field: u32, blocks: &[Block]) {
    for block in blocks {
        writer.message(field, |inner| {
            inner.bytes(1, block.kind.as_bytes()).number(2, block.size);
            write_topology(inner, &block.numa_affinity);
        });
    }
}

/// A `TopologyInfo` in field 3.
fn write_topology(writer: &mut Writer, nodes: &[usize]) {
    writer.message(3, |topology| {
        for node in nodes {
            topology.message(1, |inner| {
                inner.number(1, *node as u64);
            });
        }
    });
}

/// A `DynamicResource`.
fn write_dynamic(writer: &mut Writer, resource: &DynamicResource) {
    writer.bytes(2, resource.claim_name.as_bytes()).bytes(3, resource.claim_namespace.as_bytes());
    for device in &resource.devices {
        writer.message(4, |inner| {
            for name in &device.cdi {
                inner.message(1, |cdi| {
                    cdi.bytes(1, name.as_bytes());
                });
            }
            inner.bytes(2, device.driver.as_bytes());
            inner.bytes(3, device.pool.as_bytes());
            inner.bytes(4, device.device.as_bytes());
            if let Some(share) = &device.share_id {
                inner.bytes(5, share.as_bytes());
            }
        });
    }
}
