//! What is counted of certificates, under upstream's names (kubernetes/kubernetes, `pkg/kubelet/certificate/kubelet.go`,
//! `cmd/kubelet/app/server.go`).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::metrics::{Counter, Histogram, Page};
use base::{Clock, Timestamp};

use super::CertificateUse;

/// A minute, an hour, four hours, a day, a week, a month, three, six, a year, four years.
const AGES: &[f64] = &[
    60.0,
    3_600.0,
    14_400.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
    124_416_000.0,
];
/// No certificate.
const NEVER: i64 = i64::MAX;

static CLIENT: LazyLock<Numbers> = LazyLock::new(Numbers::new);
static SERVING: LazyLock<Numbers> = LazyLock::new(Numbers::new);

/// Of one of the node's certificates.
pub(super) struct Numbers {
    /// When it ends, in seconds since 1970.
    end: AtomicI64,
    failures: Counter,
    /// How old others were when another took their place.
    ages: Histogram,
}

impl CertificateUse {
    pub(super) fn numbers(self) -> &'static Numbers {
        match self {
            Self::Client => &CLIENT,
            Self::Serving => &SERVING,
        }
    }
}

impl Numbers {
    fn new() -> Self {
        Self { end: AtomicI64::new(NEVER), failures: Counter::new(), ages: Histogram::new(AGES) }
    }

    /// One that ends then is used from now on.
    pub(super) fn used(&self, end: Timestamp) {
        self.end.store(end.as_second(), Ordering::Relaxed);
    }

    /// One that was so old has been replaced.
    pub(super) fn replaced(&self, age: Duration) {
        self.ages.observe(age.as_secs_f64());
    }

    /// No other could be had.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// Seconds until it ends.
    fn left(&self, clock: &dyn Clock) -> f64 {
        match self.end.load(Ordering::Relaxed) {
            NEVER => f64::INFINITY,
            end => (end - clock.now().as_second()) as f64,
        }
    }

    fn write(&self, page: &mut Page, clock: &dyn Clock, [ttl, ttl_help, failures]: [&str; 3]) {
        page.family(ttl, "gauge", ttl_help);
        page.sample("", self.left(clock));
        page.counter(failures, "[ALPHA] Counter of certificate renewal errors.", &self.failures);
    }
}

/// Adds the numbers of the node's certificates to a page.
pub(crate) fn metrics(page: &mut Page, clock: &dyn Clock) {
    CLIENT.write(page, clock, [
        "kubelet_certificate_manager_client_ttl_seconds",
        "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
        "kubelet_certificate_manager_client_expiration_renew_errors",
    ]);
    SERVING.write(page, clock, [
        "kubelet_certificate_manager_server_ttl_seconds",
        "[ALPHA] Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
        "kubelet_server_expiration_renew_errors",
    ]);
    let help =
        "[ALPHA] Histogram of the number of seconds the previous certificate lived before being rotated.";
    page.family("kubelet_certificate_manager_server_rotation_seconds", "histogram", help);
    page.histogram("", &SERVING.ages);
}

#[cfg(test)]
mod tests {
    use base::ManualClock;

    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let numbers = Numbers::new();
        let told = |numbers: &Numbers| {
            let mut page = Page::new();
            numbers.write(&mut page, &clock, ["ttl", "Left.", "errors"]);
            page.finish()
        };
        assert!(told(&numbers).contains("\nttl +Inf\n"), "{}", told(&numbers));
        numbers.used("2026-01-01T00:01:00Z".parse().unwrap());
        numbers.failed();
        assert!(told(&numbers).contains("\nttl 60\n") && told(&numbers).contains("\nerrors 1\n"));
        clock.advance(Duration::from_secs(90));
        assert!(told(&numbers).contains("\nttl -30\n"));
        numbers.replaced(Duration::from_secs(90));
        assert_eq!(numbers.ages.count(), 1);
    }
}
