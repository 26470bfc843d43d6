//! What attachments and attached volumes are called (kubernetes/kubernetes, `pkg/volume/csi/csi_attacher.go`,
//! `getAttachmentName`; `pkg/volume/util/util.go`, `GetUniqueVolumeNameFromSpec`).

use std::fmt::Write;

use ring::digest::{SHA256, digest};

/// What nodes put before the driver of a volume.
const CSI: &str = "kubernetes.io/csi/";

/// What a node calls a volume in its status.
pub(super) fn node_name_of(driver: &str, handle: &str) -> String {
    format!("{CSI}{driver}^{handle}")
}

/// The one name that the attachment of a volume to a node can have: nobody makes a second one.
pub(super) fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let hash = digest(&SHA256, format!("{handle}{driver}{node}").as_bytes());
    hash.as_ref().iter().fold("csi-".to_owned(), |mut name, byte| {
        // Writing to a text cannot fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The attachment of what a node names in its status, if that is a volume of a CSI driver.
pub(super) fn attachment_of(named: &str, node: &str) -> Option<String> {
    let (driver, handle) = named.strip_prefix(CSI)?.split_once('^')?;
    Some(attachment_name(driver, handle, node))
}

/// Whether an attachment can be one of ours. People make others by hand, which are their own affair.
pub(super) fn is_ours(attachment: &str) -> bool {
    attachment.strip_prefix("csi-").is_some_and(|hash| {
        hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_found_by_what_the_node_calls_its_volume() {
        let name = attachment_name("d.io", "h^1", "n1");
        // printf h^1d.ion1 | sha256sum
        assert_eq!(name, "csi-1d60f3c6392d911dafb142887e62bdae9a0e19ab618add84dd8063c3fc95c5af");
        assert_eq!(attachment_of(&node_name_of("d.io", "h^1"), "n1").as_ref(), Some(&name));
        assert_ne!(attachment_of(&node_name_of("d.io", "h^1"), "n2").as_ref(), Some(&name));
        assert_eq!(attachment_of("kubernetes.io/nfs/x", "n1"), None);
        assert!(is_ours(&name) && !is_ours("csi-mine") && !is_ours(&name.to_uppercase()));
    }
}
