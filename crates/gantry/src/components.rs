//! Everything in the server's process that is a client of its own API: each with an identity of its own.

use std::sync::Arc;

use apiserver::ApiServer;
use auth::User;
use base::{Drain, Ids, RandomIds, SystemClock};
use client::{Election, Informers};

use crate::in_process;

/// Starts the controllers and the scheduler. With a store that other servers share, each runs on one of them only.
pub fn start(api: &ApiServer, ca_pem: &str, drain: &Drain) {
    if !api.store().is_shared() {
        start_controllers(api, ca_pem, drain);
        start_scheduler(api, drain);
        return;
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let identity = format!("{}_{}", host.to_string_lossy(), RandomIds.uid());
    let election = |name: &str| {
        let client = in_process::client(api, User::authenticated(format!("system:{name}"), []));
        Election::new(client, "kube-system", name, identity.clone(), Arc::new(SystemClock))
    };
    let (controlling, ca_pem) = (api.clone(), ca_pem.to_owned());
    drain.spawn(election("kube-controller-manager").run(drain.clone(), move |term| {
        start_controllers(&controlling, &ca_pem, term);
    }));
    let scheduling = api.clone();
    drain
        .spawn(election("kube-scheduler").run(drain.clone(), move |term| start_scheduler(&scheduling, term)));
}

/// Starts the scheduler. It ends with `drain`, which also waits for it.
fn start_scheduler(api: &ApiServer, drain: &Drain) {
    let client = in_process::client(api, User::authenticated("system:kube-scheduler", []));
    scheduler::run(&scheduler::Config {
        informers: Informers::new(client, drain.clone()),
        clock: Arc::new(SystemClock),
        drain: drain.clone(),
    });
}

/// Starts the controllers. They end with `drain`, which also waits for them.
fn start_controllers(api: &ApiServer, ca_pem: &str, drain: &Drain) {
    let client = in_process::client(api, User::authenticated("system:kube-controller-manager", []));
    let accounts = api.clone();
    controllers::run(&controllers::Config {
        informers: Informers::new(client, drain.clone()),
        identities: Some(Arc::new(move |name| in_process::client(&accounts, controller(name)))),
        clock: Arc::new(SystemClock),
        drain: drain.clone(),
        ca_pem: ca_pem.to_owned(),
    });
}

/// The service account of a controller, whose rights are in the role `system:controller:<name>`.
fn controller(name: &str) -> User {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    User::authenticated(format!("system:serviceaccount:kube-system:{name}"), groups.map(str::to_owned))
}
