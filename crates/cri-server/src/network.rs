//! The sandboxes' network, whose range of addresses may be told later.

use std::path::PathBuf;

use ::network::{Network, NetworkConfig};
use ipnet::{IpNet, Ipv4Net};
use parking_lot::Mutex;

use crate::error::CriError;
use crate::records::{file, write_file};
use crate::service::CriConfig;

/// The network as it is now.
pub(crate) struct PodNetwork {
    data_dir: PathBuf,
    bridge: String,
    /// Where the range is kept that was told.
    told: PathBuf,
    now: Mutex<Option<Network>>,
}

impl PodNetwork {
    /// Opens it with the range that was told last, else with the configured one.
    pub(crate) async fn open(config: &CriConfig, told: PathBuf) -> Result<Self, CriError> {
        let range = match std::fs::read_to_string(&told) {
            Ok(text) => text.trim().parse().map_err(|_| CriError::Record {
                path: told.clone(),
                why: format!("{:?} is no range of addresses", text.trim()),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => config.pod_cidr,
            Err(error) => return Err(file("read", &told)(error)),
        };
        let this = Self {
            data_dir: config.data_dir.clone(),
            bridge: config.bridge.clone(),
            told,
            now: Mutex::new(None),
        };
        let network = Network::open(this.config(range)).await?;
        *this.now.lock() = Some(network);
        Ok(this)
    }

    fn config(&self, range: Ipv4Net) -> NetworkConfig {
        let mut config = NetworkConfig::new(&self.data_dir, range);
        config.bridge.clone_from(&self.bridge);
        config
    }

    /// The network, if there is one.
    pub(crate) fn current(&self) -> Result<Network, CriError> {
        let missing = || CriError::State("the sandboxes' network is being made anew".to_owned());
        self.now.lock().clone().ok_or_else(missing)
    }

    /// Gives addresses out of another range from now on. Sandboxes that have addresses out of the old one forbid it.
    pub(crate) async fn change(&self, ranges: &str) -> Result<(), CriError> {
        let range = first_v4(ranges)?;
        let old = self.current()?;
        if old.config().pod_cidr == range {
            return Ok(());
        }
        let attached = old.attached().await;
        if !attached.is_empty() {
            return Err(CriError::State(format!(
                "{} sandboxes have addresses out of {}; remove them before the range becomes {range}",
                attached.len(),
                old.config().pod_cidr
            )));
        }
        // Whoever asks meanwhile hears that there is none.
        self.now.lock().take();
        let changed = async {
            old.destroy().await?;
            Ok::<_, CriError>(Network::open(self.config(range)).await?)
        };
        match changed.await {
            Ok(network) => {
                *self.now.lock() = Some(network);
                write_file(&self.told, range.to_string().as_bytes())
            }
            Err(error) => {
                *self.now.lock() = Some(old);
                Err(error)
            }
        }
    }
}

/// The first range of IPv4 addresses among those that a kubelet names, with commas between them.
fn first_v4(ranges: &str) -> Result<Ipv4Net, CriError> {
    let mut found = None;
    for text in ranges.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(IpNet::V4(range)) => found = found.or(Some(range)),
            Ok(IpNet::V6(_)) => {}
            Err(_) => return Err(CriError::Invalid(format!("pod_cidr: {text:?} is no range of addresses"))),
        }
    }
    found.map(|range| range.trunc()).ok_or_else(|| {
        CriError::Invalid(format!(
            "pod_cidr: {ranges:?} names no range of IPv4 addresses, the only ones here"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_families_the_one_that_is_spoken_counts() {
        assert_eq!(first_v4("fd00::/64, 10.9.1.7/24").unwrap().to_string(), "10.9.1.0/24");
        assert!(matches!(first_v4("fd00::/64"), Err(CriError::Invalid(_))));
        assert!(matches!(first_v4("10.9.1.0"), Err(CriError::Invalid(_))));
        assert!(matches!(first_v4(""), Err(CriError::Invalid(_))));
    }
}
