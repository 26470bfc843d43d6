//! What somebody besides the pod puts into a container: device plugins, CDI devices, dynamic resources.

use runtime::{ContainerSpec, Device, Hooks, Mount};

/// Changes to a container, applied just before it is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Name and value; a later one of the same name wins, and wins over the pod's.
    pub(crate) env: Vec<(String, String)>,
    /// Host devices; a later one at the same place wins.
    pub(crate) devices: Vec<Device>,
    /// Mounts; a later one at the same place wins, and wins over the pod's.
    pub(crate) mounts: Vec<Mount>,
    /// More groups for the process.
    pub(crate) groups: Vec<u32>,
    /// Programs that take part in the container's life, in this order.
    pub(crate) hooks: Hooks,
    /// The CDI devices whose hooks these are.
    pub(crate) hooked: Vec<String>,
    /// Given to the runtime with the container.
    pub(crate) annotations: Vec<(String, String)>,
    /// Its CPUs are nobody else's: no quota holds it back.
    pub(crate) exclusive: bool,
    /// The CPUs it may use, if it is bound to some.
    pub(crate) cpus: Option<String>,
    /// The memory nodes it may use, if it is bound to some.
    pub(crate) mems: Option<String>,
}

impl Edits {
    /// Adds what comes after.
    pub(crate) fn extend(&mut self, later: Self) {
        self.env.extend(later.env);
        self.devices.extend(later.devices);
        self.mounts.extend(later.mounts);
        self.groups.extend(later.groups);
        self.hooks.extend(later.hooks);
        self.hooked.extend(later.hooked);
        self.annotations.extend(later.annotations);
        self.exclusive |= later.exclusive;
        self.cpus = later.cpus.or(self.cpus.take());
        self.mems = later.mems.or(self.mems.take());
    }

    /// Changes a container's description.
    pub(crate) fn apply(self, spec: &mut ContainerSpec) {
        for (name, value) in self.env {
            let pair = format!("{name}={value}");
            let same = |have: &&mut String| have.split_once('=').map_or(have.as_str(), |(n, _)| n) == name;
            match spec.env.iter_mut().find(same) {
                Some(have) => *have = pair,
                None => spec.env.push(pair),
            }
        }
        // A device is the process's own, as container runtimes do it with CDI
        // (cncf-tags/container-device-interface, `pkg/cdi/container-edits.go`, `Apply`).
        let (uid, gid) = (spec.user.uid.filter(|u| *u > 0), spec.user.gid.filter(|g| *g > 0));
        for mut device in self.devices {
            device.uid = device.uid.or(uid);
            device.gid = device.gid.or(gid);
            spec.devices.retain(|have| place(have) != place(&device));
            spec.devices.push(device);
        }
        let added = !self.mounts.is_empty();
        for mount in self.mounts {
            spec.mounts.retain(|have| have.destination != mount.destination);
            spec.mounts.push(mount);
        }
        if added {
            // What lies deeper comes later, or it would be hidden.
            spec.mounts.sort_by_key(|mount| mount.destination.components().count());
        }
        for group in self.groups {
            if !spec.user.supplementary.contains(&group) {
                spec.user.supplementary.push(group);
            }
        }
        spec.hooks.extend(self.hooks);
        for (name, value) in self.annotations {
            spec.labels.entry(name).or_insert(value);
        }
        if self.exclusive {
            spec.resources.cpu_quota_us = None;
        }
        spec.resources.cpuset_cpus = self.cpus.or(spec.resources.cpuset_cpus.take());
        spec.resources.cpuset_mems = self.mems.or(spec.resources.cpuset_mems.take());
    }
}

/// Where a device is seen.
fn place(device: &Device) -> &std::path::Path {
    if device.container_path.as_os_str().is_empty() { &device.host_path } else { &device.container_path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, destination: &str) -> Mount {
        Mount { source: source.into(), destination: destination.into(), ..Mount::default() }
    }

    #[test]
    fn later_ones_win_and_deeper_mounts_come_later() {
        let mut spec = ContainerSpec {
            env: vec!["A=1".into(), "B=2".into()],
            mounts: vec![mount("/p", "/x/y"), mount("/q", "/z")],
            ..ContainerSpec::default()
        };
        spec.user.uid = Some(1000);
        let device = |host: &str| Device {
            host_path: host.into(),
            container_path: "/dev/d".into(),
            ..Device::default()
        };
        let mut edits = Edits {
            env: vec![("B".into(), "3".into()), ("C".into(), "x=y".into())],
            devices: vec![device("/dev/zero"), device("/dev/null")],
            mounts: vec![mount("/m", "/x"), mount("/n", "/z")],
            groups: vec![7],
            ..Edits::default()
        };
        edits.extend(Edits { cpus: Some("1".into()), groups: vec![7], ..Edits::default() });
        edits.apply(&mut spec);
        assert_eq!(spec.env, ["A=1", "B=3", "C=x=y"]);
        assert_eq!(spec.devices, [Device { uid: Some(1000), ..device("/dev/null") }]);
        assert_eq!(spec.mounts, [mount("/m", "/x"), mount("/n", "/z"), mount("/p", "/x/y")]);
        assert_eq!((spec.user.supplementary, spec.resources.cpuset_cpus), (vec![7], Some("1".into())));
    }
}
