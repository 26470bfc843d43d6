//! How far and how fast a number of pods may change (kubernetes/kubernetes,
//! `pkg/controller/podautoscaler/horizontal.go`, `normalizeDesiredReplicas`, `normalizeDesiredReplicasWithBehaviors`).
//!
//! Moments are those of a clock that never jumps.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior as Behavior,
};
use tokio::time::Instant;

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const DOWN_WINDOW: Duration = Duration::from_secs(300);

/// What an autoscaler has wished for and done lately.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// For how long a larger wish holds, where the autoscaler does not say.
    down_window: Option<Duration>,
    /// What was wished for before all limits.
    wishes: Vec<(Instant, i32)>,
    ups: Vec<(Instant, i32)>,
    downs: Vec<(Instant, i32)>,
}

/// A wish for pods, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) min: i32,
    pub(super) max: i32,
}

/// A reason and a sentence.
pub(super) type Said = (&'static str, &'static str);

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) replicas: i32,
    /// About `AbleToScale`.
    pub(super) stabilized: Said,
    pub(super) limited: bool,
    /// About `ScalingLimited`.
    pub(super) limit: Said,
}

const READY: Said = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Said = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Said = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const IN_RANGE: Said = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: Said =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Said = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_FAST_UP: Said =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Said =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl History {
    /// What there was before the first wish counts as one.
    pub(super) fn begin(&mut self, current: i32, down_window: Duration, now: Instant) {
        self.down_window = Some(down_window);
        if self.wishes.is_empty() {
            self.wishes.push((now, current));
        }
    }

    /// Takes note of a change. Without policies nobody will ask for it.
    pub(super) fn note(&mut self, behavior: Option<&Behavior>, from: i32, to: i32, now: Instant) {
        let Some(behavior) = behavior else { return };
        let (done, rules) = if to > from {
            (&mut self.ups, behavior.scale_up.as_ref())
        } else {
            (&mut self.downs, behavior.scale_down.as_ref())
        };
        let longest = policies(rules).iter().map(|policy| seconds(policy.period_seconds)).max();
        done.retain(|(at, _)| age(*at, now) <= longest.unwrap_or_default());
        done.push((now, from.abs_diff(to).try_into().unwrap_or(i32::MAX)));
    }

    /// What may come true of a wish, which is noted.
    pub(super) fn grant(&mut self, wish: Wish, behavior: Option<&Behavior>, now: Instant) -> Granted {
        let (steady, stabilized) = match behavior {
            None => self.steady(wish, now),
            Some(behavior) => self.steady_by(wish, behavior, now),
        };
        let wish_now = Wish { desired: steady, ..wish };
        let (replicas, limit) = match behavior {
            None => plain(wish_now),
            Some(behavior) => self.limit(wish_now, behavior, now),
        };
        let stabilized = if steady == wish.desired { READY } else { stabilized };
        Granted { replicas, stabilized, limited: replicas != steady, limit }
    }

    /// `stabilizeRecommendation`.
    fn down_window(&self) -> Duration {
        self.down_window.unwrap_or(DOWN_WINDOW)
    }

    fn steady(&mut self, wish: Wish, now: Instant) -> (i32, Said) {
        let down_window = self.down_window();
        self.wishes.retain(|(at, _)| age(*at, now) <= down_window);
        let most = self.wishes.iter().map(|(_, replicas)| *replicas).max();
        self.wishes.push((now, wish.desired));
        (most.map_or(wish.desired, |most| most.max(wish.desired)), DOWN_STABILIZED)
    }

    /// `stabilizeRecommendationWithBehaviors`.
    fn steady_by(&mut self, wish: Wish, behavior: &Behavior, now: Instant) -> (i32, Said) {
        let window = |rules: Option<&HPAScalingRules>| rules?.stabilization_window_seconds.map(seconds);
        let up = window(behavior.scale_up.as_ref()).unwrap_or_default();
        let down = window(behavior.scale_down.as_ref()).unwrap_or(self.down_window());
        self.wishes.retain(|(at, _)| age(*at, now) <= up.max(down));
        let (mut least, mut most) = (wish.desired, wish.desired);
        for (at, replicas) in &self.wishes {
            if age(*at, now) < up {
                least = least.min(*replicas);
            }
            if age(*at, now) < down {
                most = most.max(*replicas);
            }
        }
        self.wishes.push((now, wish.desired));
        let said = if wish.desired >= wish.current { UP_STABILIZED } else { DOWN_STABILIZED };
        (wish.current.max(least).min(most), said)
    }

    /// `convertDesiredReplicasWithBehaviorRate`.
    fn limit(&self, wish: Wish, behavior: &Behavior, now: Instant) -> (i32, Said) {
        let Wish { current, desired, min, max } = wish;
        if desired > current {
            let fastest = self.fastest_up(current, behavior.scale_up.as_ref(), now).max(current);
            let (most, said) = if max > fastest { (fastest, TOO_FAST_UP) } else { (max, TOO_MANY) };
            if desired > most {
                return (most, said);
            }
        } else if desired < current {
            let fastest = self.fastest_down(current, behavior.scale_down.as_ref(), now).min(current);
            let (least, said) = if min < fastest { (fastest, TOO_FAST_DOWN) } else { (min, TOO_FEW) };
            if desired < least {
                return (least, said);
            }
        }
        (desired, IN_RANGE)
    }

    /// How many pods there were when a policy's period began.
    fn at_start(&self, current: i32, policy: &HPAScalingPolicy, now: Instant) -> i64 {
        let period = seconds(policy.period_seconds);
        let within = |done: &[(Instant, i32)]| -> i64 {
            done.iter().filter(|(at, _)| age(*at, now) < period).map(|(_, change)| i64::from(*change)).sum()
        };
        i64::from(current) - within(&self.ups) + within(&self.downs)
    }

    fn fastest_up(&self, current: i32, rules: Option<&HPAScalingRules>, now: Instant) -> i32 {
        let proposals = policies(rules).into_iter().map(|policy| {
            let start = self.at_start(current, &policy, now);
            if policy.type_ == "Percent" {
                (start as f64 * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i64
            } else {
                start + i64::from(policy.value)
            }
        });
        select(rules, current, proposals, true)
    }

    fn fastest_down(&self, current: i32, rules: Option<&HPAScalingRules>, now: Instant) -> i32 {
        let proposals = policies(rules).into_iter().map(|policy| {
            let start = self.at_start(current, &policy, now);
            if policy.type_ == "Percent" {
                (start as f64 * (1.0 - f64::from(policy.value) / 100.0)) as i64
            } else {
                start - i64::from(policy.value)
            }
        });
        select(rules, current, proposals, false)
    }
}

fn age(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

fn seconds(n: i32) -> Duration {
    Duration::from_secs(n.max(0).unsigned_abs().into())
}

/// The policies, which the server fills in where there are none.
fn policies(rules: Option<&HPAScalingRules>) -> Vec<HPAScalingPolicy> {
    rules.and_then(|rules| rules.policies.clone()).unwrap_or_default()
}

/// The policy that lets most happen, or least, as the rules say. Without policies nothing is limited.
fn select(
    rules: Option<&HPAScalingRules>,
    current: i32,
    proposals: impl Iterator<Item = i64>,
    up: bool,
) -> i32 {
    let found = match rules.and_then(|rules| rules.select_policy.as_deref()) {
        Some("Disabled") => return current,
        Some("Min") if up => proposals.min(),
        Some("Min") => proposals.max(),
        _ if up => proposals.max(),
        _ => proposals.min(),
    };
    let unlimited = if up { i32::MAX } else { i32::MIN };
    found.map_or(unlimited, |n| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}

/// Without policies: at most twice as many at a time, or four (`convertDesiredReplicasWithRules`).
fn plain(wish: Wish) -> (i32, Said) {
    let fastest = wish.current.saturating_mul(2).max(4);
    let (most, said) = if wish.max > fastest { (fastest, TOO_FAST_UP) } else { (wish.max, TOO_MANY) };
    if wish.desired < wish.min {
        (wish.min, TOO_FEW)
    } else if wish.desired > most {
        (most, said)
    } else {
        (wish.desired, IN_RANGE)
    }
}

#[cfg(test)]
mod tests;
