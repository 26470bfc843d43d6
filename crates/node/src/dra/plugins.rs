use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Drain};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::error::DraError;
use super::health::Health;
use super::plugin::Plugin;

/// How long a driver may be away before what it offers is taken away (upstream: `defaultWipingDelay`).
const ABSENCE: Duration = Duration::from_secs(30);
/// Between attempts to take slices away, or to reach a plugin.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(300);
const RECONNECT: Duration = Duration::from_secs(10);

/// The plugins that have registered, by driver (`pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go`).
#[derive(Clone)]
pub(super) struct Plugins(Arc<Inner>);

struct Inner {
    client: Client,
    node: String,
    drain: Drain,
    state: Mutex<State>,
    health: Health,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    drivers: BTreeMap<String, Vec<Entry>>,
    /// Drivers whose slices are about to go.
    wipes: BTreeMap<String, AbortHandle>,
}

struct Entry {
    plugin: Arc<Plugin>,
    connected: bool,
    /// Watches the connection.
    task: Option<AbortHandle>,
}

impl Plugins {
    pub(super) fn new(client: Client, node: &str, drain: Drain) -> Self {
        Self(Arc::new(Inner {
            client,
            node: node.to_owned(),
            drain,
            state: Mutex::default(),
            health: Health::default(),
        }))
    }

    /// How devices are.
    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    /// The youngest plugin of a driver that is connected, or else the youngest.
    pub(super) fn get(&self, driver: &str) -> Result<Arc<Plugin>, DraError> {
        let state = self.0.state.lock();
        let entries = state.drivers.get(driver).map(Vec::as_slice).unwrap_or_default();
        let connected = entries.iter().rev().find(|entry| entry.connected).or(entries.last());
        connected.map(|entry| entry.plugin.clone()).ok_or_else(|| DraError::NoDriver(driver.to_owned()))
    }

    /// Takes in a plugin, or says why not.
    pub(super) fn add(&self, plugin: Plugin) -> Result<(), String> {
        let plugin = Arc::new(plugin);
        let driver = plugin.driver.clone();
        let mut state = self.0.state.lock();
        let entries = state.drivers.entry(driver.clone()).or_default();
        if entries.iter().any(|entry| entry.plugin.endpoint == plugin.endpoint) {
            let endpoint = plugin.endpoint.display();
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {driver}"));
        }
        let (plugins, watched) = (self.clone(), plugin.clone());
        let watching = self.0.drain.spawn_until_started(async move {
            tokio::join!(plugins.attend(&watched), plugins.0.health.follow(&watched))
        });
        entries.push(Entry { plugin, connected: false, task: Some(watching.abort_handle()) });
        self.sync(&mut state, &driver);
        Ok(())
    }

    /// Forgets the plugin at an endpoint.
    pub(super) fn remove(&self, driver: &str, endpoint: &Path) {
        let mut state = self.0.state.lock();
        if let Some(entries) = state.drivers.get_mut(driver) {
            entries.retain(|entry| {
                let stays = entry.plugin.endpoint != endpoint;
                if !stays {
                    entry.task.iter().for_each(AbortHandle::abort);
                }
                stays
            });
            if entries.is_empty() {
                // Who hears it has been aborted, perhaps before he knew.
                self.0.health.forget(driver);
            }
        }
        self.sync(&mut state, driver);
    }

    /// Stays connected to a plugin, and notes when it is not.
    async fn attend(&self, plugin: &Plugin) {
        let mut backoff = Backoff::new(FIRST, RECONNECT);
        loop {
            if let Ok(connection) = plugin.connect().await {
                backoff.reset();
                self.note(plugin, true);
                connection.ended().await;
                self.note(plugin, false);
            }
            tokio::time::sleep(backoff.fail()).await;
        }
    }

    fn note(&self, plugin: &Plugin, connected: bool) {
        tracing::debug!(driver = plugin.driver, endpoint = %plugin.endpoint.display(), connected, "DRA plugin");
        let mut state = self.0.state.lock();
        let entries = state.drivers.get_mut(&plugin.driver).into_iter().flatten();
        for entry in entries.filter(|entry| entry.plugin.endpoint == plugin.endpoint) {
            entry.connected = connected;
        }
        self.sync(&mut state, &plugin.driver);
    }

    /// A driver that nobody speaks for loses its slices after a while, unless somebody comes.
    fn sync(&self, state: &mut State, driver: &str) {
        if state.drivers.get(driver).is_some_and(Vec::is_empty) {
            state.drivers.remove(driver);
        }
        let is_there = state.drivers.get(driver).is_some_and(|all| all.iter().any(|entry| entry.connected));
        if is_there {
            if let Some(wipe) = state.wipes.remove(driver) {
                wipe.abort();
            }
        } else if !state.wipes.contains_key(driver) {
            let (plugins, name) = (self.clone(), driver.to_owned());
            let wipe = self.0.drain.spawn_until_started(async move {
                tokio::time::sleep(ABSENCE).await;
                plugins.wipe(Some(&name)).await;
            });
            state.wipes.insert(driver.to_owned(), wipe.abort_handle());
        }
    }

    /// Takes away the slices of every driver.
    pub(super) fn wipe_all(&self) {
        let plugins = self.clone();
        self.0.drain.spawn_until_started(async move { plugins.wipe(None).await });
    }

    async fn wipe(&self, driver: Option<&str>) {
        let mut fields = format!("spec.nodeName={}", self.0.node);
        if let Some(driver) = driver {
            fields += &format!(",spec.driver={driver}");
        }
        let slices: Api<ResourceSlice> = Api::all(self.0.client.clone());
        let which = ListParams::default().fields(&fields);
        let mut backoff = Backoff::new(FIRST, MOST);
        while let Err(error) = slices.delete_collection(&DeleteParams::default(), &which).await {
            if client::is_not_found(&error) {
                return;
            }
            tracing::debug!(
                error = client::message(&error),
                fields,
                "cannot take slices away; will try again"
            );
            tokio::time::sleep(backoff.fail()).await;
        }
    }
}
