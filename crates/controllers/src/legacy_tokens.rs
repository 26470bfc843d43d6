//! Tokens that were once made for every service account go when nobody has used them for a year: first they are marked as
//! invalid, and a year later deleted (kubernetes/kubernetes,
//! `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, Selection, is_deleting};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Attempt, Error};

const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server says since when it notes the use of tokens.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const DAY: Duration = Duration::from_secs(86_400);

struct State {
    ctx: Context,
    /// How long a token may go unused, and then stay invalid.
    unused: Duration,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

/// Tokens go that nobody has used for so long.
pub(crate) fn start(ctx: &Context, unused: Duration) {
    let state = State::new(ctx, unused);
    let controller =
        Controller::new("legacy-service-account-token-cleaner").after(&state.secrets).after(&state.accounts);
    controller.queue().add(Key::new("", "everything"));
    ctx.spawn(controller, Arc::new(state), |state, _| async move {
        state.sweep().await?;
        Ok(Next::After(DAY))
    });
}

/// What is to become of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Invalidate,
    Delete,
}

fn date(text: &str) -> Option<Date> {
    // Only as upstream writes it.
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// By its dates alone. `kept_from` is the day since which a token must have been used.
fn judge(secret: &Secret, now: Timestamp, unused: Duration) -> Verdict {
    let Ok(oldest) = now.checked_sub(unused) else { return Verdict::Keep };
    let kept_from = day(oldest);
    let young = secret.metadata.creation_timestamp.as_ref().is_none_or(|made| made.0 >= oldest);
    if young || is_deleting(&secret.metadata) {
        return Verdict::Keep;
    }
    match secret.labels().get(LAST_USED).map(|text| date(text)) {
        // Nobody has used it since that is noted.
        None => {}
        // When it was used cannot be told.
        Some(None) => return Verdict::Keep,
        Some(Some(used)) if used >= kept_from => return Verdict::Keep,
        Some(Some(_)) => {}
    }
    match secret.labels().get(INVALID_SINCE).and_then(|text| date(text)) {
        None => Verdict::Invalidate,
        Some(since) if since >= kept_from => Verdict::Keep,
        Some(_) => Verdict::Delete,
    }
}

/// The Secrets that a pod names anywhere; a few more do no harm (upstream: `VisitPodSecretNames`).
fn named(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let direct = (field == "secretName").then_some(value);
                let is_reference = field.to_lowercase().contains("secret");
                let referred = is_reference.then(|| value.get("name")).flatten();
                let text = direct.or(referred).and_then(Value::as_str);
                names.extend(text.map(str::to_owned));
                if field == "imagePullSecrets" {
                    let all = value.as_array().into_iter().flatten();
                    names.extend(all.filter_map(|one| one["name"].as_str()).map(str::to_owned));
                }
                named(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, names)),
        _ => {}
    }
}

impl State {
    fn new(ctx: &Context, unused: Duration) -> Self {
        let secrets = ctx.informers.select::<Secret>(Selection::fields(format!("type={TYPE}")));
        Self { ctx: ctx.clone(), unused, secrets, accounts: ctx.informers.of::<ServiceAccount>() }
    }

    async fn sweep(&self) -> Result<(), Error> {
        let now = self.ctx.now();
        let maps = self.ctx.api::<ConfigMap>(TRACKING.0);
        let tracking = maps.get_opt(TRACKING.1).await.attempt(|| format!("read {}", TRACKING.1))?;
        let since = tracking.as_ref().and_then(|map| date(map.data.as_ref()?.get("since")?));
        // It was begun at some time of that day.
        let since = since.and_then(|day| day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
        let Some(since) = since.map(|at| at.timestamp()) else { return Ok(()) };
        if now.checked_sub(self.unused).is_ok_and(|oldest| oldest < since) {
            return Ok(());
        }
        let mut used: HashMap<String, BTreeSet<String>> = HashMap::new();
        for secret in self.secrets.store().list() {
            let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
            let verdict = judge(&secret, now, self.unused);
            if verdict == Verdict::Keep || !self.was_generated(&secret) {
                continue;
            }
            if !used.contains_key(&namespace) {
                used.insert(namespace.clone(), self.mounted(&namespace).await?);
            }
            if used[&namespace].contains(&name) {
                continue;
            }
            self.execute(verdict, &secret, now).await?;
        }
        Ok(())
    }

    /// Whether the token was made for its account by itself: only then does the account list it.
    fn was_generated(&self, secret: &Secret) -> bool {
        let note = |key: &str| secret.annotations().get(key).filter(|text| !text.is_empty());
        let namespace = secret.namespace().unwrap_or_default();
        let Some(name) = note("kubernetes.io/service-account.name") else { return false };
        let Some(account) = self.accounts.store().by_name(&namespace, name) else { return false };
        let uid = note("kubernetes.io/service-account.uid");
        uid.is_none_or(|uid| account.metadata.uid.as_ref() == Some(uid))
            && account.secrets.iter().flatten().any(|s| s.name.as_deref() == secret.metadata.name.as_deref())
    }

    /// What the pods of a namespace name. They are read whole, which nobody keeps them, and seldom.
    async fn mounted(&self, namespace: &str) -> Result<BTreeSet<String>, Error> {
        let api: Api<Pod> = Api::namespaced(self.ctx.informers.client().clone(), namespace);
        let pods = api.list(&ListParams::default()).await;
        let pods = pods.attempt(|| format!("look at the pods of {namespace}"))?;
        let mut names = BTreeSet::new();
        for pod in &pods.items {
            named(&json!(pod.spec), &mut names);
        }
        Ok(names)
    }

    async fn execute(&self, verdict: Verdict, secret: &Secret, now: Timestamp) -> Result<(), Error> {
        let (name, api) =
            (secret.name_any(), self.ctx.api::<Secret>(&secret.namespace().unwrap_or_default()));
        let outcome = match verdict {
            Verdict::Keep => return Ok(()),
            Verdict::Invalidate => {
                let today = day(now).to_string();
                let patch =
                    json!({"metadata": {"uid": secret.metadata.uid, "labels": {INVALID_SINCE: today}}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
            Verdict::Delete => {
                // Somebody may have used it just now.
                let only = Preconditions {
                    resource_version: secret.metadata.resource_version.clone(),
                    ..Default::default()
                };
                let params = DeleteParams { preconditions: Some(only), ..Default::default() };
                api.delete(&name, &params).await.map(drop)
            }
        };
        match outcome {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome.attempt(|| format!("put away the old token {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;
    use base::ManualClock;
    use testkit::Cluster;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn dates_decide() {
        let now = "2027-06-01T12:00:00Z".parse().unwrap();
        let of = |made: &str, labels: Value| {
            let secret: Secret =
                testkit::object(json!({"metadata": {"creationTimestamp": made, "labels": labels}}));
            judge(&secret, now, YEAR)
        };
        let old = "2025-01-01T00:00:00Z";
        assert_eq!(of("2026-06-02T00:00:00Z", json!({})), Verdict::Keep);
        assert_eq!(of(old, json!({})), Verdict::Invalidate);
        assert_eq!(of(old, json!({LAST_USED: "2026-06-01"})), Verdict::Keep);
        assert_eq!(of(old, json!({LAST_USED: "2026-05-31"})), Verdict::Invalidate);
        assert_eq!(of(old, json!({LAST_USED: "lately"})), Verdict::Keep);
        assert_eq!(of(old, json!({INVALID_SINCE: "2026-06-01"})), Verdict::Keep);
        assert_eq!(of(old, json!({INVALID_SINCE: "2026-05-31"})), Verdict::Delete);
        assert_eq!(of(old, json!({INVALID_SINCE: "x"})), Verdict::Invalidate);
        let recent: Secret =
            testkit::object(json!({"metadata": {"creationTimestamp": "2027-05-01T00:00:00Z"}}));
        assert_eq!(judge(&recent, now, YEAR), Verdict::Keep);
        assert_eq!(judge(&recent, now, 7 * DAY), Verdict::Invalidate, "people may be stricter");
    }

    #[test]
    fn secrets_are_found_wherever_pods_name_them() {
        let mut names = BTreeSet::new();
        named(
            &json!({"imagePullSecrets": [{"name": "a"}], "volumes": [{"name": "v", "secret": {"secretName": "b"}},
                {"projected": {"sources": [{"secret": {"name": "c"}}]}}, {"csi": {"nodePublishSecretRef": {"name": "d"}}}],
                "containers": [{"name": "x", "envFrom": [{"secretRef": {"name": "e"}}],
                    "env": [{"name": "y", "valueFrom": {"secretKeyRef": {"name": "f", "key": "k"}}}]}]}),
            &mut names,
        );
        assert_eq!(names.into_iter().collect::<String>(), "abcdef");
    }

    #[tokio::test]
    async fn tokens_go_in_two_steps_when_nobody_needs_them() {
        let clock = Arc::new(ManualClock::new("2024-01-01T12:00:00Z".parse().unwrap()));
        let cluster = Cluster::start_at(clock.clone()).await;
        let tracked = cluster.wait_until::<ConfigMap>(TRACKING.0, TRACKING.1, "to be made", |_| true).await;
        assert_eq!(tracked.data.unwrap()["since"], "2024-01-01");
        let all = ["unused", "mounted"];
        let mut account: ServiceAccount = testkit::object(json!({"metadata": {"name": "a"}}));
        account.secrets = Some(all.iter().map(|name| testkit::object(json!({"name": name}))).collect());
        cluster.create("default", &account).await;
        for name in [all[0], all[1], "manual"] {
            let secret: Secret = testkit::object(json!({"metadata": {"name": name,
                "annotations": {"kubernetes.io/service-account.name": "a"}}, "type": TYPE}));
            cluster.create("default", &secret).await;
        }
        let mut pod = testkit::pod("p", "app");
        let spec = pod.spec.as_mut().unwrap();
        spec.service_account_name = Some("a".into());
        spec.volumes = Some(vec![testkit::object(json!({"name": "v", "secret": {"secretName": "mounted"}}))]);
        cluster.create("default", &pod).await;
        let state = State::new(
            &Context::new(&config(&cluster)).acting_as("legacy-service-account-token-cleaner"),
            YEAR,
        );
        // The API server fills the Secrets in; the cache has to know how they ended up.
        let seen = async |name: &str, what: &str, wish: &dyn Fn(Option<&Secret>) -> bool| {
            cluster
                .wait_for(what, || async {
                    let secret = state.secrets.store().by_name("default", name);
                    wish(secret.as_deref()).then_some(())
                })
                .await;
        };
        for name in [all[0], all[1], "manual"] {
            let filled = |s: Option<&Secret>| {
                s.is_some_and(|s| s.data.as_ref().is_some_and(|data| data.contains_key("token")))
            };
            seen(name, "the token", &filled).await;
        }
        state.accounts.ready().await;
        let year = Duration::from_secs(366 * 86_400);
        state.sweep().await.unwrap();
        clock.advance(year);
        state.sweep().await.unwrap();
        seen("unused", "the mark", &|s| s.is_some_and(|s| s.labels().contains_key(INVALID_SINCE))).await;
        state.sweep().await.unwrap();
        clock.advance(year);
        state.sweep().await.unwrap();
        seen("unused", "the end", &|s| s.is_none()).await;
        for name in ["mounted", "manual"] {
            let kept = state.secrets.store().by_name("default", name).unwrap();
            assert!(!kept.labels().contains_key(INVALID_SINCE), "{name}");
        }
    }
}
