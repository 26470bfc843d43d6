//! Huge pages: what the node has, and what containers may use of them (kubernetes/kubernetes,
//! `pkg/kubelet/cm/helpers_linux.go`, `HugePageLimits`; `component-helpers/resource`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use types::Quantity;

/// Where the kernel tells of them.
const KERNEL: &str = "/sys/kernel/mm/hugepages";
/// What their resources' names begin with.
const PREFIX: &str = "hugepages-";

/// The sizes that the kernel at `root` has, in bytes, and how many pages of each.
fn sizes(root: &Path) -> BTreeMap<u64, u64> {
    let of = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let kilobytes: u64 = name.to_str()?.strip_prefix(PREFIX)?.strip_suffix("kB")?.parse().ok()?;
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some((kilobytes << 10, count.trim().parse().ok()?))
    };
    std::fs::read_dir(root).into_iter().flatten().flatten().filter_map(of).collect()
}

/// A number of bytes in the largest binary unit that fits.
fn in_units(bytes: u64, units: [&str; 3], plain: &str) -> String {
    let [kilo, mega, giga] = units;
    match bytes {
        0 => format!("0{plain}"),
        b if b % (1 << 30) == 0 => format!("{}{giga}", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}{mega}", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}{kilo}", b >> 10),
        b => format!("{b}{plain}"),
    }
}

/// The memory that is set aside for huge pages.
pub(crate) fn bytes() -> u64 {
    sizes(Path::new(KERNEL)).into_iter().map(|(size, count)| size.saturating_mul(count)).sum()
}

/// Adds the node's huge pages to its capacity and to what is allocatable.
pub(crate) fn tell(capacity: &mut Value, allocatable: &mut Value) {
    tell_of(Path::new(KERNEL), capacity, allocatable);
}

fn tell_of(root: &Path, capacity: &mut Value, allocatable: &mut Value) {
    for (size, count) in sizes(root) {
        let name = format!("{PREFIX}{}", in_units(size, ["Ki", "Mi", "Gi"], ""));
        let bytes = size.saturating_mul(count);
        let amount = in_units(bytes, ["Ki", "Mi", "Gi"], "");
        capacity[&name] = amount.clone().into();
        allocatable[&name] = amount.into();
    }
}

/// What of these resources cgroups limit: bytes by size as cgroups write it (`2MB`). Sizes of the kernel that are not named
/// may not be used at all.
pub(crate) fn limits(amounts: &BTreeMap<String, i64>) -> BTreeMap<String, u64> {
    limits_of(Path::new(KERNEL), amounts)
}

fn limits_of(root: &Path, amounts: &BTreeMap<String, i64>) -> BTreeMap<String, u64> {
    let asked = |size: u64| {
        let fits = |name: &str| {
            let text = name.strip_prefix(PREFIX)?;
            Some(u64::try_from(text.parse::<Quantity>().ok()?.units()).ok()? == size)
        };
        let found = amounts.iter().find(|(name, _)| fits(name) == Some(true));
        found.and_then(|(_, amount)| u64::try_from(*amount).ok()).unwrap_or(0)
    };
    sizes(root).into_keys().map(|size| (in_units(size, ["KB", "MB", "GB"], "B"), asked(size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kernel() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "512\n"), ("hugepages-1048576kB", "0\n")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        folder
    }

    #[test]
    fn a_node_tells_of_its_huge_pages() {
        let kernel = kernel();
        let mut capacity = json!({"memory": "4194304Ki"});
        let mut allocatable = capacity.clone();
        tell_of(kernel.path(), &mut capacity, &mut allocatable);
        assert_eq!(capacity, json!({"memory": "4194304Ki", "hugepages-2Mi": "1Gi", "hugepages-1Gi": "0"}));
        assert_eq!(allocatable, json!({"memory": "4194304Ki", "hugepages-2Mi": "1Gi", "hugepages-1Gi": "0"}));
    }

    #[test]
    fn what_is_not_asked_for_may_not_be_used() {
        let kernel = kernel();
        let limits = limits_of(kernel.path(), &[("hugepages-2Mi".to_owned(), 8 << 20)].into());
        assert_eq!(limits, [("1GB".to_owned(), 0), ("2MB".to_owned(), 8 << 20)].into());
    }
}
