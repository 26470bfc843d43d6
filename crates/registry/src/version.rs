use std::cmp::Ordering;

/// How versions rank (kubernetes/kubernetes, `apimachinery/pkg/version/helpers.go`, `CompareKubeAwareVersionStrings`):
/// `v2 > v1 > v1beta2 > v1beta1 > v1alpha1`, and what is no such version comes last, in the order of the alphabet.
/// The greater one is to be preferred.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// Stability, major and minor number.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let number = |text: &str| {
        // Go's pattern wants a number without a leading zero.
        text.parse::<u64>().ok().filter(|_| !text.starts_with('0'))
    };
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match rest.strip_prefix("beta") {
        Some(minor) => (1, minor),
        None => (0, rest.strip_prefix("alpha")?),
    };
    let minor = if minor.is_empty() {
        0
    } else {
        number(minor).filter(|_| minor.bytes().all(|b| b.is_ascii_digit()))?
    };
    Some((stability, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "foo1", "v10", "v1beta2", "v2", "v11beta1", "v3beta1", "foo10", "v1"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta1", "v3beta1", "v1beta2", "v1alpha1", "foo1", "foo10"]
        );
    }
}
