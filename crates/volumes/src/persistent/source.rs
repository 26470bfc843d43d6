//! What a PersistentVolume says of where its data is.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{HostPathVolumeSource, PersistentVolume};
use types::{Quantity, local_volumes};

use crate::error::Fault;

/// Where the data is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A path of the node.
    HostPath(HostPathVolumeSource),
    /// A directory or a block device of the node.
    Local { path: PathBuf, fs_type: Option<String> },
    /// Data that this agent has made, or will make now.
    Own(Kind),
}

/// How own data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A file that holds a file system, or is a block device itself.
    Image,
}

/// What own data begins as a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A snapshot on this node.
    Snapshot(String),
    /// A volume on this node, as it is when the copy is made.
    Volume(String),
}

/// A volume that a pod is to get.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The PersistentVolume's name.
    pub(crate) volume: String,
    pub(crate) source: Source,
    /// Own data only.
    pub(crate) origin: Option<Origin>,
    pub(crate) bytes: u64,
    pub(crate) block: bool,
    pub(crate) read_only: bool,
    /// Only one pod may have it.
    pub(crate) alone: bool,
    pub(crate) options: Vec<String>,
}

/// Reads a volume as `node` sees it.
pub(crate) fn wanted(pv: &PersistentVolume, node: &str) -> Result<Wanted, Fault> {
    let volume = pv.metadata.name.clone().unwrap_or_default();
    let spec = pv.spec.clone().unwrap_or_default();
    let mut origin = None;
    let (source, read_only) = if let Some(host) = spec.host_path {
        (Source::HostPath(host), false)
    } else if let Some(local) = spec.local {
        (Source::Local { path: local.path.into(), fs_type: local.fs_type }, false)
    } else if let Some(csi) = spec.csi.filter(|csi| csi.driver == local_volumes::DRIVER) {
        let attributes = csi.volume_attributes.unwrap_or_default();
        let attribute = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
        if attribute(local_volumes::NODE) != node {
            return Err(Fault::OtherNode { volume });
        }
        let kind = match attribute(local_volumes::KIND) {
            local_volumes::IMAGE => Kind::Image,
            local_volumes::DIRECTORY => Kind::Directory,
            other => return Err(Fault::Unsupported { what: "kind of local volume", text: other.to_owned() }),
        };
        if kind == Kind::Image && !matches!(csi.fs_type.as_deref(), None | Some("" | "ext4")) {
            return Err(Fault::Unsupported {
                what: "file system of an image",
                text: csi.fs_type.unwrap_or_default(),
            });
        }
        origin = match (attribute(local_volumes::SNAPSHOT), attribute(local_volumes::CLONE)) {
            ("", "") => None,
            ("", volume) => Some(Origin::Volume(volume.to_owned())),
            (snapshot, _) => Some(Origin::Snapshot(snapshot.to_owned())),
        };
        (Source::Own(kind), csi.read_only == Some(true))
    } else {
        return Err(Fault::Kind(kind_of(pv)));
    };
    Ok(Wanted {
        volume,
        source,
        origin,
        // Whole blocks.
        bytes: capacity(pv).next_multiple_of(4096),
        block: spec.volume_mode.as_deref() == Some("Block"),
        read_only,
        alone: spec.access_modes.as_deref() == Some(&["ReadWriteOncePod".to_owned()]),
        options: spec.mount_options.unwrap_or_default(),
    })
}

/// Bytes.
pub(crate) fn capacity(pv: &PersistentVolume) -> u64 {
    let given = pv.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    given.map_or(0, |q| bytes(&q.0))
}

/// An amount in bytes; nothing if it is none.
pub(crate) fn bytes(text: &str) -> u64 {
    text.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok()).unwrap_or(0)
}

/// What a volume calls its source.
fn kind_of(pv: &PersistentVolume) -> String {
    const OTHERS: [&str; 10] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
        "name",
    ];
    let value = serde_json::to_value(&pv.spec).unwrap_or_default();
    let mut kinds = value.as_object().into_iter().flat_map(|o| o.keys());
    kinds.find(|key| !OTHERS.contains(&key.as_str())).cloned().unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Result<Wanted, String> {
        let pv = json!({"metadata": {"name": "v"}, "spec": spec});
        wanted(&serde_json::from_value(pv).unwrap(), "n1").map_err(|e| e.to_string())
    }

    #[test]
    fn sources_are_read() {
        let own = |more: Value| {
            let mut csi = json!({"driver": "local.gantry.io", "volumeHandle": "v",
                "volumeAttributes": {"node": "n1", "kind": "image"}});
            for (key, value) in more.as_object().unwrap() {
                csi[key] = value.clone();
            }
            read(json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"], "csi": csi,
                "mountOptions": ["noatime"]}))
        };
        let found = own(json!({"readOnly": true})).unwrap();
        assert_eq!((found.source, found.bytes), (Source::Own(Kind::Image), 1 << 30));
        assert_eq!(found.origin, None);
        let copy = |name: &str| {
            let attributes = json!({"node": "n1", "kind": "image", name: "x"});
            own(json!({"volumeAttributes": attributes})).unwrap().origin
        };
        assert_eq!(copy("snapshot"), Some(Origin::Snapshot("x".into())));
        assert_eq!(copy("clone"), Some(Origin::Volume("x".into())));
        assert!(found.alone && found.read_only && !found.block && found.options == ["noatime"]);
        let elsewhere = own(json!({"volumeAttributes": {"node": "n2", "kind": "image"}}));
        assert!(elsewhere.unwrap_err().contains("no matching NodeSelectorTerms"));
        assert!(own(json!({"fsType": "zfs"})).unwrap_err().contains("zfs"));
        let local = read(json!({"local": {"path": "/x", "fsType": "ext4"}, "volumeMode": "Block"})).unwrap();
        assert_eq!(local.source, Source::Local { path: "/x".into(), fs_type: Some("ext4".into()) });
        assert!(local.block);
        let nfs = read(json!({"nfs": {"server": "s", "path": "/"}, "accessModes": []}));
        assert_eq!(nfs.unwrap_err(), "volumes of type nfs are not available in this version");
    }
}
