//! Everything in the server's process that is a client of its own API: each with an identity of its own.

use std::sync::Arc;

use apiserver::ApiServer;
use auth::{Pki, User};
use base::{Drain, Ids, RandomIds, SystemClock};
use client::{Election, Informers};
use futures::FutureExt;
use http_body_util::{BodyExt, Full};

use crate::controllers::ControllerArgs;
use crate::in_process::{self, requests};
use crate::scheduling::Scheduling;

/// What the controllers need of the server besides its API.
#[derive(Clone)]
pub struct Control {
    /// The authority's certificate as PEM.
    pub ca_pem: String,
    /// The authority itself.
    pub pki: Arc<Pki>,
    /// Addresses of pods.
    pub pods: ipnet::Ipv4Net,
    /// Their settings.
    pub settings: ControllerArgs,
    /// How pods are placed.
    pub scheduling: Scheduling,
}

/// Starts the controllers and the scheduler. With a store that other servers share, each runs on one of them only; else
/// they look at the cluster together.
pub fn start(api: &ApiServer, control: &Control, drain: &Drain) {
    let informers = |client, drain: &Drain| Informers::new(client, drain.clone());
    if !api.store().is_shared() {
        let informers = informers(controllers_client(api), drain);
        start_scheduler(informers.acting_as(scheduler_client(api)), &control.scheduling, drain);
        start_controllers(api, informers, control, drain);
        ["kube-scheduler", "kube-controller-manager"].iter().for_each(|name| client::note_leader(name, true));
        return;
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let identity = format!("{}_{}", host.to_string_lossy(), RandomIds.uid());
    let election = |name: &str| {
        let client = in_process::client(api, User::authenticated(format!("system:{name}"), []));
        Election::new(client, "kube-system", name, identity.clone(), Arc::new(SystemClock))
    };
    let scheduling = control.scheduling.clone();
    let (controlling, control) = (api.clone(), control.clone());
    drain.spawn(election("kube-controller-manager").run(drain.clone(), move |term| {
        let informers = informers(controllers_client(&controlling), term);
        start_controllers(&controlling, informers, &control, term);
    }));
    let placing = api.clone();
    drain.spawn(election("kube-scheduler").run(drain.clone(), move |term| {
        start_scheduler(informers(scheduler_client(&placing), term), &scheduling, term);
    }));
}

fn controllers_client(api: &ApiServer) -> client::kube::Client {
    in_process::client(api, User::authenticated("system:kube-controller-manager", []))
}

fn scheduler_client(api: &ApiServer) -> client::kube::Client {
    in_process::client(api, User::authenticated("system:kube-scheduler", []))
}

/// Starts to measure nodes and pods, and to tell of it as `metrics.k8s.io`. Every server does so for itself.
pub fn start_metrics(api: &ApiServer, drain: &Drain) {
    let client = in_process::client(api, User::authenticated("system:metrics-server", []));
    let metrics = metrics::Metrics::new(client, Arc::new(SystemClock));
    drain.spawn(metrics.clone().run(drain.clone()));
    let serve = move |_, request: http::Request<apiserver::Body>| {
        let metrics = metrics.clone();
        async move {
            let (parts, _) = request.into_parts();
            let accept = parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok());
            let answer = metrics.answer(&parts.method, &parts.uri, accept.unwrap_or_default()).await;
            let body = Full::new(answer.body.into()).map_err(|never| match never {}).boxed_unsync();
            let mut response = http::Response::new(body);
            *response.status_mut() = answer.code;
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        }
        .boxed()
    };
    api.serve_beside(metrics::GROUP, metrics::VERSION, metrics::PRIORITY, Arc::new(serve));
}

/// Starts the scheduler. It ends with `drain`, which also waits for it.
fn start_scheduler(informers: Informers, scheduling: &Scheduling, drain: &Drain) {
    let Scheduling { settings, extenders, gangs } = scheduling.clone();
    let clock = Arc::new(SystemClock);
    scheduler::run(&scheduler::Config { informers, clock, drain: drain.clone(), settings, extenders, gangs });
}

/// What the scheduler counts.
pub fn scheduler_page() -> apiserver::MetricsPage {
    Arc::new(|page| {
        scheduler::metrics(page);
        client::election_metrics(page, Some("kube-scheduler"));
        requests::OF_SCHEDULER.page(page);
    })
}

/// What the controllers count.
pub fn controllers_page() -> apiserver::MetricsPage {
    Arc::new(|page| {
        client::queue_metrics(page);
        ::controllers::metrics(page);
        client::election_metrics(page, Some("kube-controller-manager"));
        requests::OF_CONTROLLERS.page(page);
    })
}

/// Both together, as they are told with what the API server counts: a family comes once on a page.
pub fn all_pages() -> apiserver::MetricsPage {
    Arc::new(|page| {
        scheduler::metrics(page);
        client::queue_metrics(page);
        ::controllers::metrics(page);
        client::election_metrics(page, None);
        requests::OF_BOTH.page(page);
    })
}

/// Starts the controllers. They end with `drain`, which also waits for them.
fn start_controllers(api: &ApiServer, informers: Informers, control: &Control, drain: &Drain) {
    let accounts = api.clone();
    ::controllers::run(&::controllers::Config {
        informers,
        identities: Some(Arc::new(move |name| in_process::client(&accounts, controller(name)))),
        clock: Arc::new(SystemClock),
        drain: drain.clone(),
        ca_pem: control.ca_pem.clone(),
        nodes: control.settings.nodes(),
        terminated_pods: control.settings.terminated_pod_gc_threshold,
        pod_range: Some(control.settings.pod_range(control.pods)),
        signing: Some(control.settings.signing(control.pki.clone())),
        autoscaling: control.settings.autoscaling(),
        selected: control.settings.selected(),
        tuning: control.settings.tuning.settings(),
    });
}

/// The service account of a controller, whose rights are in the role `system:controller:<name>`.
fn controller(name: &str) -> User {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    User::authenticated(format!("system:serviceaccount:kube-system:{name}"), groups.map(str::to_owned))
}
