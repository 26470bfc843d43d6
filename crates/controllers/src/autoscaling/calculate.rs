//! How many pods a measurement asks for (kubernetes/kubernetes, `pkg/controller/podautoscaler/replica_calculator.go`,
//! `metrics/utilization.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::PodView;

use super::metrics::{Sample, Samples};
use super::requests::Requests;
use super::settings::AutoscalingSettings;
use super::why::Why;
use crate::common::pods::{condition, is_ready, phase};

/// How far from the wish a measurement may be without anything being done, as shares of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    pub(super) fn allows(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The pods in question, and when.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) pods: &'a [Arc<PodView>],
    pub(super) current: i32,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
    pub(super) settings: AutoscalingSettings,
}

/// What can be gone by, and who has to be guessed.
struct Kept {
    samples: Samples,
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

fn name(pod: &PodView) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn after(since: Timestamp, delay: Duration) -> Timestamp {
    since.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Whether the pod's processor time says nothing of its work yet.
fn is_starting(pod: &PodView, sample: &Sample, asked: &Asked<'_>) -> bool {
    let Asked { now, settings, .. } = *asked;
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return true };
    let unready = ready.status.as_deref() == Some("False");
    let turned = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    if after(started.0, settings.cpu_initialization) > now {
        unready || sample.at < after(turned, sample.window)
    } else {
        unready && after(started.0, settings.initial_readiness_delay) > turned
    }
}

/// `groupPods`.
fn keep(asked: &Asked<'_>, mut samples: Samples, is_cpu: bool) -> Result<Kept, Why> {
    if asked.pods.is_empty() {
        return Err(Why::NoPods);
    }
    let (mut ready, mut unready, mut missing) = (0, BTreeSet::new(), BTreeSet::new());
    for pod in asked.pods {
        let name = name(pod);
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            samples.remove(&name);
        } else if phase(pod) == "Pending" {
            unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(missing.insert(name)),
                Some(sample) if is_cpu && is_starting(pod, sample, asked) => drop(unready.insert(name)),
                Some(_) => ready += 1,
            }
        }
    }
    samples.retain(|name, _| !unready.contains(name));
    if samples.is_empty() {
        return Err(Why::NoSamples);
    }
    Ok(Kept { samples, ready, unready, missing })
}

fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

/// Goes by what is known; where that leaves room for doubt, by what speaks against the change: who was not measured uses
/// what `fill` says if that would be less, and nothing if it would be more.
fn settle<T>(
    asked: &Asked<'_>,
    kept: Kept,
    ratio: impl Fn(&Samples) -> Result<(f64, T), Why>,
    fill: impl Fn(&str) -> i64,
) -> Result<(i32, T), Why> {
    let Kept { mut samples, ready, unready, missing } = kept;
    let (known, shown) = ratio(&samples)?;
    let up_with_unready = !unready.is_empty() && known > 1.0;
    if !up_with_unready && missing.is_empty() {
        let still = asked.tolerance.allows(known);
        return Ok((if still { asked.current } else { ceil(known * ready as f64) }, shown));
    }
    let mut guess = |names: BTreeSet<String>, value: &dyn Fn(&str) -> i64| {
        for name in names {
            let value = value(&name);
            samples.insert(name, Sample { at: asked.now, window: Duration::ZERO, value });
        }
    };
    if known < 1.0 {
        guess(missing, &fill);
    } else if known > 1.0 {
        guess(missing, &|_| 0);
    }
    if up_with_unready {
        guess(unready, &|_| 0);
    }
    let (guessed, _) = ratio(&samples)?;
    let turns = (known < 1.0 && guessed > 1.0) || (known > 1.0 && guessed < 1.0);
    let replicas = ceil(guessed * samples.len() as f64);
    let wrong_way =
        (guessed < 1.0 && replicas > asked.current) || (guessed > 1.0 && replicas < asked.current);
    let still = asked.tolerance.allows(guessed) || turns || wrong_way;
    Ok((if still { asked.current } else { replicas }, shown))
}

/// What pods use of what they asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utilization {
    pub(super) percent: i32,
    /// For each pod, in thousandths.
    pub(super) average: i64,
}

fn utilization(
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, Utilization), Why> {
    let (mut used, mut asked, mut count) = (0_i128, 0_i128, 0_i128);
    for (name, sample) in samples {
        let Some(request) = requests.get(name) else { continue };
        used += i128::from(sample.value);
        asked += i128::from(*request);
        count += 1;
    }
    if asked == 0 {
        return Err(Why::NoMatch);
    }
    let percent = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
    let average = clamp(used / count);
    Ok((f64::from(percent) / f64::from(target), Utilization { percent, average }))
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// So that pods use so many percent of what they asked for (`GetResourceReplicas`).
pub(super) fn by_utilization(
    asked: &Asked<'_>,
    samples: Samples,
    requests: &Requests<'_>,
    target: i32,
) -> Result<(i32, Utilization), Why> {
    let kept = keep(asked, samples, requests.resource == "cpu")?;
    let requests = requests.of_all(asked.pods)?;
    let fallback = i128::from(target.max(100));
    let fill = |name: &str| {
        clamp(requests.get(name).copied().map_or(0, |request| i128::from(request) * fallback / 100))
    };
    settle(asked, kept, |samples| utilization(samples, &requests, target), fill)
}

/// So that each pod has so much on average (`calcPlainMetricReplicas`).
pub(super) fn by_average(
    asked: &Asked<'_>,
    samples: Samples,
    is_cpu: bool,
    target: i64,
) -> Result<(i32, i64), Why> {
    let kept = keep(asked, samples, is_cpu)?;
    let ratio = |samples: &Samples| {
        let sum: i128 = samples.values().map(|sample| i128::from(sample.value)).sum();
        let average = clamp(sum / samples.len().max(1) as i128);
        Ok((average as f64 / target as f64, average))
    };
    settle(asked, kept, ratio, |_| target)
}

/// So that a value of all of them together comes to what is wished (`getUsageRatioReplicaCount`).
pub(super) fn by_total(asked: &Asked<'_>, usage: i64, target: i64) -> Result<i32, Why> {
    let ratio = usage as f64 / target as f64;
    if asked.current == 0 {
        return Ok(ceil(ratio));
    }
    if asked.tolerance.allows(ratio) {
        return Ok(asked.current);
    }
    if asked.pods.is_empty() {
        return Err(Why::NoPods.during("unable to calculate ready pods"));
    }
    let ready = asked.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count();
    Ok(ceil(ratio * ready as f64))
}

/// So that each pod's share of a value is what is wished (`GetExternalPerPodMetricReplicas`); and the share now. Without
/// pods the share is the whole.
pub(super) fn by_share(pods: i32, usage: i64, target: i64, tolerance: Tolerance) -> (i32, i64) {
    let ratio = usage as f64 / (target as f64 * f64::from(pods));
    let replicas = if tolerance.allows(ratio) { pods } else { ceil(usage as f64 / target as f64) };
    let share = if pods > 0 { (usage as f64 / f64::from(pods)).ceil() as i64 } else { usage };
    (replicas, share)
}

#[cfg(test)]
mod tests;
