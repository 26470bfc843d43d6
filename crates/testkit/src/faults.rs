use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use apiserver::{ApiServer, BoxError};
use auth::User;
use base::{Ids, SeededIds};
use bytes::Bytes;
use client::Transport;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kube::Client;
use tokio::time::{Sleep, sleep};
use tower::service_fn;

use crate::cluster::Cluster;

/// The longest that a request or a watch's event is held up.
const LATE: u64 = 120;

/// The way from one process to the server: it may lose what is sent and what is answered, hold it up, refuse it, and
/// break watches off. Clones share everything.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    random: SeededIds,
    /// How many of a thousand requests something happens to.
    rate: AtomicU64,
    severed: AtomicBool,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    /// It comes later than what was sent after it.
    Late(Duration),
    /// It never reaches the server.
    Lost,
    /// The server does what is asked, and nobody hears of it.
    Unanswered,
    /// The server has too much to do.
    Refused,
}

impl Faults {
    /// Something happens to `rate` of a thousand requests. What it is follows from the seed.
    pub fn new(seed: u64, rate: u64) -> Self {
        let (rate, severed) = (AtomicU64::new(rate), AtomicBool::new(false));
        Self(Arc::new(Inner { random: SeededIds::new(seed), rate, severed }))
    }

    /// From now on nothing gets through, in either direction: the process has been killed. What is held up already still
    /// reaches the server.
    pub fn sever(&self) {
        self.0.severed.store(true, Ordering::Relaxed);
    }

    fn is_severed(&self) -> bool {
        self.0.severed.load(Ordering::Relaxed)
    }

    /// A number below `limit`.
    fn below(&self, limit: u64) -> u64 {
        (self.0.random.bits() % u128::from(limit.max(1))) as u64
    }

    fn strikes(&self) -> bool {
        self.below(1_000) < self.0.rate.load(Ordering::Relaxed)
    }

    fn fate(&self) -> Fate {
        if !self.strikes() {
            return Fate::Fine;
        }
        match self.below(5) {
            0 => Fate::Lost,
            1 => Fate::Unanswered,
            2 => Fate::Refused,
            _ => Fate::Late(Duration::from_millis(self.below(LATE))),
        }
    }
}

impl Cluster {
    /// As [`Cluster::accounts`], over an unreliable way.
    pub fn accounts_through(&self, faults: &Faults) -> impl Fn(&str) -> Client + Send + Sync + use<> {
        let (api, faults) = (self.api.clone(), faults.clone());
        move |name| {
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            let user = format!("system:serviceaccount:kube-system:{name}");
            through(&api, User::authenticated(user, groups.map(str::to_owned)), &faults)
        }
    }

    /// A client that may do everything, over an unreliable way.
    pub fn client_through(&self, faults: &Faults) -> Client {
        through(&self.api, User::authenticated("test-admin", [User::MASTERS.to_owned()]), faults)
    }
}

fn through(api: &ApiServer, user: User, faults: &Faults) -> Client {
    let (api, user, faults) = (api.clone(), Arc::new(user), faults.clone());
    let service = service_fn(move |request: Request<kube::client::Body>| {
        let (api, user, faults) = (api.clone(), user.clone(), faults.clone());
        async move { pass(&api, &user, &faults, request).await }
    });
    Transport::service(service).client()
}

async fn pass(
    api: &ApiServer,
    user: &Arc<User>,
    faults: &Faults,
    request: Request<kube::client::Body>,
) -> Result<Response<Unreliable>, BoxError> {
    if faults.is_severed() {
        return Err("the process has been killed".into());
    }
    let fate = faults.fate();
    let wrap = |body| Unreliable { body, faults: faults.clone(), held: None, breaks: false };
    match fate {
        Fate::Lost => return Err("connection reset by peer".into()),
        Fate::Refused => {
            let text = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"ServiceUnavailable","code":503,"message":"a fault of the test"}"#;
            let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
            let mut response = Response::new(wrap(body.boxed_unsync()));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        Fate::Late(time) => sleep(time).await,
        Fate::Fine | Fate::Unanswered => {}
    }
    let is_watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
    let request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
    let response = api.handle(request, Some(user)).await;
    if fate == Fate::Unanswered || faults.is_severed() {
        return Err("connection closed before message completed".into());
    }
    Ok(response.map(|body| {
        let body = body.map_err(Into::into).boxed_unsync();
        Unreliable { breaks: is_watch, ..wrap(body) }
    }))
}

/// An answer on its way: a watch's events may be late, and it may break off at any of them.
struct Unreliable {
    body: UnsyncBoxBody<Bytes, BoxError>,
    faults: Faults,
    /// The next part comes after this.
    held: Option<Pin<Box<Sleep>>>,
    breaks: bool,
}

impl http_body::Body for Unreliable {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if self.faults.is_severed() {
            return Poll::Ready(Some(Err("the process has been killed".into())));
        }
        if let Some(held) = &mut self.held {
            ready!(held.as_mut().poll(context));
            self.held = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if self.breaks && frame.is_some() {
            if self.faults.strikes() && self.faults.below(10) == 0 {
                return Poll::Ready(Some(Err("the watch broke off".into())));
            }
            if self.faults.strikes() {
                // This part comes, and all after it wait.
                let time = Duration::from_millis(self.faults.below(LATE));
                self.held = Some(Box::pin(sleep(time)));
            }
        }
        Poll::Ready(frame)
    }
}
