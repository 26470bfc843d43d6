//! The messages that device plugins speak (kubernetes/kubernetes,
//! `staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto`).

use std::collections::BTreeMap;

use grpc::{Reader, WireError, Writer};
use runtime::{Device, Mount};

use crate::edits::Edits;

/// What a plugin can do besides what it must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PluginOptions {
    /// It is asked before each start of a container.
    pub(crate) pre_start: bool,
    /// It knows which devices go well together.
    pub(crate) preferred: bool,
}

impl PluginOptions {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut options = Self::default();
        Reader::new(bytes).fields(|field, value| {
            match field {
                1 => options.pre_start = value.number() != 0,
                2 => options.preferred = value.number() != 0,
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(options)
    }
}

/// A plugin presents itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) version: String,
    /// The file name of its socket.
    pub(crate) endpoint: String,
    pub(crate) resource: String,
    pub(crate) options: Option<PluginOptions>,
}

impl Register {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut request = Self::default();
        Reader::new(bytes).fields(|field, value| {
            match field {
                1 => request.version = value.text(),
                2 => request.endpoint = value.text(),
                3 => request.resource = value.text(),
                4 => request.options = Some(PluginOptions::read(value.bytes())?),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(request)
    }
}

/// A device as its plugin tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) healthy: bool,
    /// The NUMA nodes it is near to; absent if it does not matter.
    pub(crate) nodes: Option<Vec<usize>>,
}

/// Reads a `ListAndWatchResponse`: all devices that there are.
pub(crate) fn read_devices(bytes: &[u8]) -> Result<Vec<Told>, WireError> {
    let mut devices = Vec::new();
    Reader::new(bytes).fields(|field, value| {
        if field == 1 {
            let mut told = Told::default();
            Reader::new(value.bytes()).fields(|field, value| {
                match field {
                    1 => told.id = value.text(),
                    2 => told.healthy = value.text() == "Healthy",
                    3 => told.nodes = Some(read_nodes(value.bytes())?),
                    _ => {}
                }
                Ok::<_, WireError>(())
            })?;
            devices.push(told);
        }
        Ok::<_, WireError>(())
    })?;
    Ok(devices)
}

/// Reads a `TopologyInfo`.
fn read_nodes(bytes: &[u8]) -> Result<Vec<usize>, WireError> {
    let mut nodes = Vec::new();
    Reader::new(bytes).fields(|field, value| {
        if field == 1 {
            // Zero is not written.
            let mut node = 0;
            Reader::new(value.bytes()).fields(|field, value| {
                if field == 1 {
                    node = value.number();
                }
                Ok::<_, WireError>(())
            })?;
            nodes.extend(usize::try_from(node));
        }
        Ok::<_, WireError>(())
    })?;
    Ok(nodes)
}

/// An `AllocateRequest` for one container.
pub(crate) fn allocate(ids: &[String]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.message(1, |container| strings(container, 1, ids));
    writer.finish()
}

/// A `PreStartContainerRequest`.
pub(crate) fn pre_start(ids: &[String]) -> Vec<u8> {
    let mut writer = Writer::new();
    strings(&mut writer, 1, ids);
    writer.finish()
}

/// A `PreferredAllocationRequest` for one container.
pub(crate) fn preferred(available: &[String], must: &[String], size: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.message(1, |container| {
        strings(container, 1, available);
        strings(container, 2, must);
        container.number(3, size as u64);
    });
    writer.finish()
}

fn strings(writer: &mut Writer, field: u32, texts: &[String]) {
    for text in texts {
        writer.bytes(field, text.as_bytes());
    }
}

/// Reads a `PreferredAllocationResponse`: the devices for its first container.
pub(crate) fn read_preferred(bytes: &[u8]) -> Result<Vec<String>, WireError> {
    let mut ids = Vec::new();
    let Some(first) = first_message(bytes)? else { return Ok(ids) };
    Reader::new(first).fields(|field, value| {
        if field == 1 {
            ids.push(value.text());
        }
        Ok::<_, WireError>(())
    })?;
    Ok(ids)
}

/// The first container's part of a response: field 1 in each of them.
pub(crate) fn first_message(bytes: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.field()? {
        if field == 1 {
            return Ok(Some(value.bytes()));
        }
    }
    Ok(None)
}

/// What a plugin puts into a container: a `ContainerAllocateResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) edits: Edits,
    /// CDI devices, by their full names.
    pub(crate) cdi: Vec<String>,
}

/// Annotations that name CDI devices, for older runtimes (cncf-tags/container-device-interface, `pkg/cdi/annotations.go`).
const CDI_ANNOTATION: &str = "cdi.k8s.io/";

impl Given {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut given = Self::default();
        let mut env = BTreeMap::new();
        Reader::new(bytes).fields(|field, value| {
            match field {
                1 => {
                    let (name, text) = pair(value.bytes())?;
                    env.insert(name, text);
                }
                2 => given.edits.mounts.push(read_mount(value.bytes())?),
                3 => given.edits.devices.push(read_device(value.bytes())?),
                4 => {
                    let (name, text) = pair(value.bytes())?;
                    if name.starts_with(CDI_ANNOTATION) {
                        given.cdi.extend(text.split(',').filter(|t| !t.is_empty()).map(str::to_owned));
                    } else {
                        given.edits.annotations.push((name, text));
                    }
                }
                5 => {
                    let [name, _, _] = three(value.bytes())?;
                    given.cdi.push(name);
                }
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        given.edits.env = env.into_iter().collect();
        let mut seen = Vec::new();
        given.cdi.retain(|name| {
            let new = !seen.contains(name);
            seen.push(name.clone());
            new
        });
        Ok(given)
    }
}

/// An entry of a map.
fn pair(bytes: &[u8]) -> Result<(String, String), WireError> {
    let [name, value, _] = three(bytes)?;
    Ok((name, value))
}

/// The texts of the first three fields.
fn three(bytes: &[u8]) -> Result<[String; 3], WireError> {
    let mut texts = [const { String::new() }; 3];
    Reader::new(bytes).fields(|field, value| {
        if let Some(text) = texts.get_mut(field.wrapping_sub(1) as usize) {
            *text = value.text();
        }
        Ok::<_, WireError>(())
    })?;
    Ok(texts)
}

fn read_mount(bytes: &[u8]) -> Result<Mount, WireError> {
    let [destination, source, _] = three(bytes)?;
    let mut readonly = false;
    Reader::new(bytes).fields(|field, value| {
        readonly |= field == 3 && value.number() != 0;
        Ok::<_, WireError>(())
    })?;
    Ok(Mount { source: source.into(), destination: destination.into(), readonly, ..Mount::default() })
}

fn read_device(bytes: &[u8]) -> Result<Device, WireError> {
    let [container, host, permissions] = three(bytes)?;
    Ok(Device { host_path: host.into(), container_path: container.into(), permissions, ..Device::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Register::read(&bytes), read_devices(&bytes), Given::read(&bytes), read_preferred(&bytes));
        }
    }

    #[test]
    fn what_a_container_gets() {
        let mut writer = Writer::new();
        let entry = |writer: &mut Writer, field, name: &str, value: &str| {
            writer.message(field, |e| {
                e.bytes(1, name.as_bytes()).bytes(2, value.as_bytes());
            });
        };
        entry(&mut writer, 1, "A", "1");
        writer.message(2, |m| {
            m.bytes(1, b"/in").bytes(2, b"/out").flag(3, true);
        });
        writer.message(3, |d| {
            d.bytes(1, b"/dev/a").bytes(2, b"/dev/null").bytes(3, b"rw");
        });
        entry(&mut writer, 4, "cdi.k8s.io/x", "v.com/c=1,v.com/c=2");
        entry(&mut writer, 4, "note", "n");
        writer.message(5, |c| {
            c.bytes(1, b"v.com/c=2");
        });
        let given = Given::read(&writer.finish()).unwrap();
        let mount =
            Mount { source: "/out".into(), destination: "/in".into(), readonly: true, ..Mount::default() };
        let device = Device {
            host_path: "/dev/null".into(),
            container_path: "/dev/a".into(),
            permissions: "rw".into(),
            ..Device::default()
        };
        assert_eq!(given.edits.env, [("A".to_owned(), "1".to_owned())]);
        assert_eq!((given.edits.mounts, given.edits.devices), (vec![mount], vec![device]));
        assert_eq!(given.edits.annotations, [("note".to_owned(), "n".to_owned())]);
        assert_eq!(given.cdi, ["v.com/c=1", "v.com/c=2"]);
    }
}
