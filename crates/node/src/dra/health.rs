//! How the devices of drivers are, as far as they tell (kubernetes/kubernetes, `pkg/kubelet/cm/dra/healthinfo.go`,
//! `staging/src/k8s.io/kubelet/pkg/apis/dra-health/v1alpha1`).
//!
//! ```text
//! NodeWatchResources ─► told: well or not, and for how long that is true ─► nothing more comes ─► unknown
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use grpc::{Code, Reader, WireError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::plugin::Plugin;

const METHOD: &str = "/v1alpha1.DRAResourceHealth/NodeWatchResources";
/// So long what was told holds, if nothing is said of that (`DefaultHealthTimeout`).
const TIMEOUT: Duration = Duration::from_secs(30);
/// After so long a driver is asked again that has stopped to tell.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) const HEALTHY: &str = "Healthy";
pub(super) const UNHEALTHY: &str = "Unhealthy";
pub(super) const UNKNOWN: &str = "Unknown";

/// What a driver says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) pool: String,
    pub(super) device: String,
    pub(super) health: &'static str,
    pub(super) message: String,
    /// For how long it is true.
    pub(super) timeout: Duration,
}

/// The same, remembered.
#[derive(Clone, Debug)]
struct Report {
    health: &'static str,
    message: String,
    timeout: Duration,
    until: Instant,
}

/// By pool and name.
type Reports = BTreeMap<(String, String), Report>;

/// What is known of all drivers' devices, by driver.
#[derive(Debug, Default)]
pub(super) struct Health {
    all: Mutex<BTreeMap<String, Reports>>,
    changes: watch::Sender<u64>,
}

impl Health {
    /// News.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// How a device is, and what is said of that.
    pub(super) fn of(&self, driver: &str, pool: &str, device: &str) -> (&'static str, Option<String>) {
        let all = self.all.lock();
        let report = all.get(driver).and_then(|of| of.get(&(pool.to_owned(), device.to_owned())));
        match report.filter(|report| report.until > Instant::now()) {
            Some(report) => (report.health, Some(report.message.clone()).filter(|text| !text.is_empty())),
            None => (UNKNOWN, None),
        }
    }

    /// When the next report that is true now will not be any more.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let now = Instant::now();
        let all = self.all.lock();
        let reports = all.values().flat_map(BTreeMap::values);
        reports.filter(|r| r.health != UNKNOWN && r.until > now).map(|r| r.until).min()
    }

    /// Takes in what a driver tells; what it does not tell of stays as it is.
    pub(super) fn told(&self, driver: &str, devices: Vec<Told>) {
        let now = Instant::now();
        let mut all = self.all.lock();
        let known = all.entry(driver.to_owned()).or_default();
        let mut news = false;
        for Told { pool, device, health, message, timeout } in devices {
            let report = Report { health, message, timeout, until: now + timeout };
            let before = known.insert((pool, device), report.clone());
            news |= before.is_none_or(|before| {
                before.health != report.health
                    || before.message != report.message
                    || before.timeout != report.timeout
                    || before.until <= now
            });
        }
        drop(all);
        if news {
            self.changed();
        }
    }

    /// A driver tells nothing any more.
    pub(super) fn forget(&self, driver: &str) {
        if self.all.lock().remove(driver).is_some() {
            self.changed();
        }
    }

    /// Hears what a plugin tells, for as long as it does.
    pub(super) async fn follow(&self, plugin: &Plugin) {
        loop {
            if let Err(Some(Code::UNIMPLEMENTED)) = self.hear(plugin).await {
                tracing::debug!(driver = plugin.driver, "the driver does not tell how its devices are");
                return;
            }
            self.forget(&plugin.driver);
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn hear(&self, plugin: &Plugin) -> Result<(), Option<Code>> {
        let mut stream = plugin.listen(METHOD).await.map_err(|error| error.code())?;
        loop {
            let message = stream.next().await.map_err(|error| error.code())?;
            match read(&message) {
                Ok(devices) => self.told(&plugin.driver, devices),
                Err(error) => {
                    tracing::warn!(driver = plugin.driver, %error, "what the driver tells of its devices is malformed");
                    return Ok(());
                }
            }
        }
    }
}

/// A `NodeWatchResourcesResponse`.
fn read(message: &[u8]) -> Result<Vec<Told>, WireError> {
    let mut all = Vec::new();
    Reader::new(message).fields(|field, value| {
        if field == 1 {
            all.push(device(value.bytes())?);
        }
        Ok::<_, WireError>(())
    })?;
    Ok(all)
}

fn device(message: &[u8]) -> Result<Told, WireError> {
    let (pool, device) = (String::new(), String::new());
    let mut told = Told { pool, device, health: UNKNOWN, message: String::new(), timeout: TIMEOUT };
    Reader::new(message).fields(|field, value| {
        match field {
            1 => Reader::new(value.bytes()).fields(|field, value| {
                match field {
                    1 => told.pool = value.text(),
                    2 => told.device = value.text(),
                    _ => {}
                }
                Ok::<_, WireError>(())
            })?,
            2 => {
                told.health = match value.number() {
                    1 => HEALTHY,
                    2 => UNHEALTHY,
                    _ => UNKNOWN,
                }
            }
            4 => {
                // Less than nothing is a mistake, and means what nothing means; more than a century is one, too.
                let seconds = Some(value.number()).filter(|seconds| (1..=3_153_600_000).contains(seconds));
                told.timeout = seconds.map_or(TIMEOUT, Duration::from_secs);
            }
            5 => told.message = value.text(),
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use grpc::Writer;

    use super::*;

    fn told(device: &str, health: &'static str, seconds: u64) -> Told {
        let (pool, message) = ("p".to_owned(), format!("it is {health}"));
        Told { pool, device: device.into(), health, message, timeout: Duration::from_secs(seconds) }
    }

    #[test]
    fn what_drivers_tell_is_understood() {
        let mut message = Writer::new();
        message.message(1, |device| {
            device
                .message(1, |id| {
                    id.bytes(1, b"p").bytes(2, b"d");
                })
                .number(2, 2)
                .number(3, 1_700_000_000)
                .number(4, 7)
                .bytes(5, b"it is Unhealthy");
        });
        message.message(1, |device| {
            device.number(2, 9).number(4, u64::MAX);
        });
        let all = read(&message.finish()).unwrap();
        assert_eq!(all[0], told("d", UNHEALTHY, 7));
        assert_eq!((all[1].health, all[1].timeout), (UNKNOWN, TIMEOUT));
        assert!(read(&[0x0a, 0x05, 0x01]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_told_again_is_not_known() {
        let health = Health::default();
        let mut news = health.changes();
        let mut is_news = || {
            let is = news.has_changed().unwrap();
            news.mark_unchanged();
            is
        };
        assert_eq!(health.of("d", "p", "a"), (UNKNOWN, None));
        health.told("d", vec![told("a", HEALTHY, 10), told("b", UNHEALTHY, 60)]);
        assert!(is_news());
        assert_eq!(health.of("d", "p", "a"), (HEALTHY, Some("it is Healthy".into())));
        tokio::time::advance(Duration::from_secs(9)).await;
        health.told("d", vec![told("b", UNHEALTHY, 60)]);
        assert!(!is_news(), "nothing has changed");
        assert_eq!(health.next_expiry(), Some(Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.of("d", "p", "a"), (UNKNOWN, None));
        assert_eq!(health.of("d", "p", "b").0, UNHEALTHY);
        assert_eq!(health.next_expiry(), Some(Instant::now() + Duration::from_secs(59)));
        health.told("d", vec![told("a", HEALTHY, 10)]);
        assert!(is_news(), "it is known again");
        health.forget("d");
        assert!(is_news() && health.next_expiry().is_none());
    }
}
