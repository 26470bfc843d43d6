//! The server's memory: small pages while there is little of it, huge ones once there is much.

use std::time::Duration;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// So much is worth huge pages: below it, most of each would be empty.
const LARGE: u64 = 64 << 20;

/// Asks for huge pages once the heap is large, and again when it has grown by a half: there are new mappings then.
pub async fn attend() {
    let mut most = LARGE;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| own(&text)).unwrap_or(0);
        if now < most {
            continue;
        }
        most = now + now / 2;
        match sys::use_huge_pages() {
            Ok(mappings) => tracing::debug!(mappings, bytes = now, "the heap has huge pages"),
            Err(error) => tracing::warn!(%error, "the heap cannot have huge pages"),
        }
    }
}

/// Bytes of the process that are no file's, from `/proc/self/statm`: resident pages, and those of them that are files'.
fn own(statm: &str) -> Option<u64> {
    const PAGE: u64 = 4096;
    let mut numbers = statm.split_whitespace().skip(1).map(|n| n.parse::<u64>().ok());
    let (resident, shared) = (numbers.next()??, numbers.next()??);
    Some(resident.saturating_sub(shared) * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_files() {
        assert_eq!(own("272111 17630 9262 9121 0 24601 0\n"), Some((17630 - 9262) * 4096));
        assert_eq!((own(""), own("1 2")), (None, None));
    }
}
