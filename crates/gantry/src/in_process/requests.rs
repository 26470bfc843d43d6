//! What components ask of the API, as upstream's clients count it (kubernetes/kubernetes,
//! `component-base/metrics/prometheus/restclient/metrics.go`).

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Counter, Histogram, Page};
use http::{Method, StatusCode};

const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Codes are from 100 to 599; others do not occur.
const CODES: usize = 500;

/// The requests of one component.
pub struct Requests {
    /// By method, and within it by code.
    counts: Box<[Counter]>,
    took: [Histogram; METHODS.len()],
}

/// Those of the controllers.
pub static OF_CONTROLLERS: LazyLock<Requests> = LazyLock::new(Requests::new);
/// Those of the scheduler.
pub static OF_SCHEDULER: LazyLock<Requests> = LazyLock::new(Requests::new);
/// Those of both together.
pub static OF_BOTH: LazyLock<Requests> = LazyLock::new(Requests::new);

impl Requests {
    fn new() -> Self {
        let counts = (0..METHODS.len() * CODES).map(|_| Counter::new()).collect();
        Self { counts, took: METHODS.map(|_| Histogram::new(SECONDS)) }
    }

    /// A request was answered.
    pub fn count(&self, method: &Method, code: StatusCode, took: Duration) {
        let code = usize::from(code.as_u16()).wrapping_sub(100);
        let Some(method) = METHODS.iter().position(|known| known == method).filter(|_| code < CODES) else {
            return;
        };
        self.counts[method * CODES + code].inc();
        self.took[method].observe(took.as_secs_f64());
    }

    /// Adds the numbers to a page.
    pub fn page(&self, page: &mut Page) {
        page.family(
            "rest_client_requests_total",
            "counter",
            "Number of HTTP requests, partitioned by status code, method, and host.",
        );
        for (method, codes) in METHODS.iter().zip(self.counts.chunks(CODES)) {
            for (code, counter) in (100..).zip(codes).filter(|(_, counter)| counter.get() > 0) {
                let labels = format!("code=\"{code}\",host=\"localhost\",method=\"{method}\"");
                page.sample(&labels, counter.get() as f64);
            }
        }
        page.family(
            "rest_client_request_duration_seconds",
            "histogram",
            "Request latency in seconds. Broken down by verb, and host.",
        );
        for (method, histogram) in METHODS.iter().zip(&self.took).filter(|(_, took)| took.count() > 0) {
            page.histogram(&format!("host=\"localhost\",verb=\"{method}\""), histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_was_asked_and_answered() {
        let requests = Requests::new();
        requests.count(&Method::POST, StatusCode::CREATED, Duration::from_millis(50));
        requests.count(&Method::POST, StatusCode::CREATED, Duration::from_millis(150));
        requests.count(&Method::POST, StatusCode::CONFLICT, Duration::from_millis(200));
        requests.count(&Method::OPTIONS, StatusCode::OK, Duration::from_millis(1));
        let mut text = Page::new();
        requests.page(&mut text);
        let text = text.finish();
        for line in [
            "rest_client_requests_total{code=\"201\",host=\"localhost\",method=\"POST\"} 2",
            "rest_client_requests_total{code=\"409\",host=\"localhost\",method=\"POST\"} 1",
            "rest_client_request_duration_seconds_bucket{host=\"localhost\",verb=\"POST\",le=\"0.1\"} 1",
            "rest_client_request_duration_seconds_count{host=\"localhost\",verb=\"POST\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("GET") && !text.contains("OPTIONS"), "{text}");
    }
}
