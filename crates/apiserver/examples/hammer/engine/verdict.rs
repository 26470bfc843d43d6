//! Sends a request, and says what no answer may be.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;

use super::Run;
use super::shot::{Shot, Whom};

thread_local! {
    /// The session that this thread is in.
    pub(crate) static UNDER_WAY: Cell<u64> = const { Cell::new(0) };
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes every panic, those of tasks in the background too.
pub(crate) fn listen_to_panics() {
    PANICS.lock().clear();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let what = format!("{info}");
        let mut panics = PANICS.lock();
        if panics.len() < 20 && !panics.iter().any(|p| p.starts_with(&what)) {
            panics.push(format!("{what} | seed {}", UNDER_WAY.get()));
        }
        drop(panics);
        usual(info);
    }));
}

pub(crate) fn panics() -> Vec<String> {
    std::mem::take(&mut PANICS.lock())
}

/// What may last: a revision that is yet to come, somebody outside. Such requests are given up after this time.
const PATIENCE: Duration = Duration::from_millis(20);

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// What a hang is measured in: a process that is stopped, or gets no processor, does not tick either.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The processor time of this thread.
fn own_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

/// Sends a request and looks at the answer. Nothing comes back of one that was given up, or that could not be sent.
pub(crate) async fn fire(run: &Run<'_>, seed: u64, shot: &Shot) -> Option<Answer> {
    let request = shot.request()?;
    run.requests.fetch_add(1, Ordering::Relaxed);
    if shot.mutated {
        run.mutated.fetch_add(1, Ordering::Relaxed);
    }
    if run.settings.show {
        println!("seed {seed}: {shot}");
    }
    let told = |what: &str| format!("{what} | seed {seed}: {shot}");
    let (begun, busy, ticks) = (Instant::now(), own_time(), run.ticks.load(Ordering::Relaxed));
    let outcome = AssertUnwindSafe(answer(run, shot, request)).catch_unwind().await;
    let took = begun.elapsed();
    if took > run.slowest.lock().0 {
        *run.slowest.lock() = (took, told(""));
    }
    if took > run.settings.most && own_time() - busy > run.settings.most.mul_f64(0.8) {
        run.fail(told(&format!("{} took long", shot.method)) + &format!(" took {took:?}"));
    } else if TICK.saturating_mul(run.ticks.load(Ordering::Relaxed) - ticks) > run.settings.most * 10 {
        run.fail(told(&format!("{} hung", shot.method)) + &format!(" took {took:?}"));
    }
    let answer = match outcome {
        Ok(answer) => answer?,
        Err(_) => {
            run.fail(told("a panic came through"));
            return None;
        }
    };
    *run.codes.lock().entry(answer.code).or_insert(0) += 1;
    if answer.code < 300 {
        run.taken.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(why) = judge(shot, &answer) {
        run.fail(format!("{} answer {}", told(&why), String::from_utf8_lossy(&answer.bytes)));
    }
    Some(answer)
}

async fn answer(run: &Run<'_>, shot: &Shot, request: http::Request<apiserver::Body>) -> Option<Answer> {
    let user = shot.whom.user();
    let lasting = shot.query.iter().any(|p| p.contains("esourceVersion") || p.contains("continue"))
        || ["/proxy", "/exec", "/attach", "/portforward", "/log"].iter().any(|part| shot.path.contains(part))
        || shot.path.contains("apiservices");
    let mut work = Box::pin(run.target.api.handle(request, user.as_ref()));
    let response = if let Some(polls) = shot.polls {
        let mut response = None;
        for _ in 0..polls {
            response = futures::poll!(&mut work).map(Some).into_option();
            if response.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        response.flatten()?
    } else if lasting {
        tokio::time::timeout(PATIENCE, work).await.ok()?
    } else {
        work.await
    };
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    // What is there is read; a stream is left when there is nothing more for now.
    while let Some(frame) = body.frame().now_or_never().flatten() {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().ok().into_iter().flatten()),
            Err(_) => break,
        }
        if bytes.len() > 16 << 20 {
            break;
        }
    }
    Some(Answer { code, bytes })
}

trait IntoOption<T> {
    fn into_option(self) -> Option<T>;
}

impl<T> IntoOption<T> for std::task::Poll<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Ready(value) => Some(value),
            Self::Pending => None,
        }
    }
}

fn judge(shot: &Shot, answer: &Answer) -> Option<String> {
    let code = answer.code;
    // However their names are written.
    let plain = ["/healthz", "/livez", "/readyz"].iter().any(|path| shot.path.contains(path))
        || answer.bytes == b"404 page not found\n";
    // A proxy's path without an end is sent on to the one with it.
    let moved = code == 301
        && percent_encoding::percent_decode_str(&shot.path).decode_utf8_lossy().contains("/proxy");
    if code < 100 || ((300..400).contains(&code) && code != 304 && !moved) {
        return Some(format!("answer {code}"));
    }
    let status = answer.json();
    let message = status["message"].as_str().unwrap_or_default();
    let outside = [
        "error dialing backend",
        "error trying to reach service",
        "no endpoints available",
        "failed calling webhook",
        "Too large resource version",
        "context deadline exceeded",
        // Upstream's errors of these have no code of their own, either.
        "the spec replicas field",
        "without impersonating a user",
        "failed to create typed patch object",
    ];
    if code >= 500 && !outside.iter().any(|why| message.contains(why)) && code != 504 {
        let kind: String = message.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        return Some(format!("answer {code} {kind}"));
    }
    if code >= 400 && !plain && shot.method != http::Method::HEAD {
        if status["kind"] != "Status" || status["code"] != code {
            return Some(format!("answer {code} is no Status"));
        }
        if message.is_empty() || (code < 500 && status["reason"].as_str().is_none_or(str::is_empty)) {
            return Some(format!("answer {code} says nothing"));
        }
    }
    let text = String::from_utf8_lossy(&answer.bytes);
    if shot.whom == Whom::Nobody && (text.contains("hush") || text.contains("aHVzaA")) {
        return Some("nobody learns a secret".to_owned());
    }
    // Somebody without rights is refused before anything else is looked at.
    let resource = shot.path.starts_with("/api/v1/") || shot.path.starts_with("/apis/");
    let own = ["/self", "/apis/authentication.k8s.io", "/apis/authorization.k8s.io"]
        .iter()
        .any(|p| shot.path.contains(p));
    let deep = shot.path.split('/').filter(|p| !p.is_empty()).count() > 3;
    if shot.whom == Whom::Nobody
        && resource
        && deep
        && !own
        && !matches!(code, 401 | 403)
        && !message.contains("without impersonating a user")
    {
        return Some(format!("nobody is answered {code}"));
    }
    None
}
