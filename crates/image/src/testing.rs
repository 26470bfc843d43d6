//! Layers and archives for tests, honest and hostile.

use std::io::Read;

use tar::{EntryType, Header};

/// Writes tars entry by entry, names unchecked.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// One entry with the name exactly as given.
    pub(crate) fn raw(mut self, kind: EntryType, name: &str, link: &str, data: &[u8], mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.raw(EntryType::Regular, name, "", data.as_bytes(), 0o644)
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, name, "", b"", mode)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, b"", 0o777)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Link, name, target, b"", 0o644)
    }

    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self
    }

    /// Gives the next entry another name and target, as the POSIX extension does for long ones.
    pub(crate) fn extended(mut self, name: &str, target: &str) -> Self {
        self.0.append_pax_extensions([("path", name.as_bytes()), ("linkpath", target.as_bytes())]).unwrap();
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::bufread::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut out).unwrap();
    out
}

/// A docker-archive of one image with these layers, which may be compressed.
pub(crate) fn docker_archive(tag: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    docker_archive_with(tag, layers, |layer| {
        let (_, mut plain) = crate::compress::decompress(layer).unwrap();
        let mut bytes = Vec::new();
        plain.read_to_end(&mut bytes).unwrap();
        crate::Digest::of(&bytes)
    })
}

pub(crate) fn docker_archive_with(
    tag: &str,
    layers: &[Vec<u8>],
    diff_id: impl Fn(&[u8]) -> crate::Digest,
) -> Vec<u8> {
    let config = config(&layers.iter().map(|layer| diff_id(layer)).collect::<Vec<_>>());
    let names: Vec<String> = (0..layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": names }]);
    let mut tar = Tar::new();
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.raw(EntryType::Regular, name, "", layer, 0o644);
    }
    tar.raw(EntryType::Regular, "config.json", "", config.as_bytes(), 0o644)
        .file("manifest.json", &manifest.to_string())
        .done()
}

pub(crate) fn config(diff_ids: &[crate::Digest]) -> String {
    serde_json::json!({
        "architecture": oci_spec::image::Arch::default().to_string(),
        "os": "linux",
        "config": { "Cmd": ["/bin/true"], "Env": ["A=b"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
}
