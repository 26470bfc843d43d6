//! Everything in the server's process that is a client of its own API: each with an identity of its own.

use std::sync::Arc;

use apiserver::ApiServer;
use auth::User;
use base::{Drain, SystemClock};
use client::Informers;

use crate::in_process;

/// Starts the scheduler. It ends with `drain`, which also waits for it.
pub fn start_scheduler(api: &ApiServer, drain: &Drain) {
    let client = in_process::client(api, User::authenticated("system:kube-scheduler", []));
    scheduler::run(&scheduler::Config {
        informers: Informers::new(client, drain.clone()),
        clock: Arc::new(SystemClock),
        drain: drain.clone(),
    });
}

/// Starts the controllers. They end with `drain`, which also waits for them.
pub fn start_controllers(api: &ApiServer, ca_pem: &str, drain: &Drain) {
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
