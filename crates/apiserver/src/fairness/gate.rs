//! Seats and queues (kubernetes/kubernetes, `apiserver/pkg/util/flowcontrol/fairqueuing/queueset`).
//!
//! A level that has a free seat gives it away at once. When it has none, a request waits in one of the level's queues:
//! of a few that its flow picks by its hash, the shortest, so that a flow that floods the server fills its own hand of
//! queues and others find theirs short. Freed seats go round the queues in the order of virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::metrics::Text;

/// Where requests get their seats.
pub(super) struct Gate {
    seats: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    levels: BTreeMap<String, Level>,
}

/// A priority level.
#[derive(Default)]
struct Level {
    exempt: bool,
    /// Its own seats.
    nominal: u32,
    /// How many of them others may use while they are free.
    lendable: u32,
    /// How many seats of others it may use.
    borrows: Option<u32>,
    /// The size of a hand of queues; nothing where requests are refused instead of queued.
    hand: Option<usize>,
    queue_length: usize,
    queues: Vec<Queue>,
    executing: u32,
    waiting: usize,
    /// The virtual time of the last queue served.
    now: u64,
    /// By flow schema: requests that went through, and refused ones.
    counts: BTreeMap<String, (u64, u64)>,
}

#[derive(Default)]
struct Queue {
    /// The virtual time at which it is next served.
    turn: u64,
    waiting: VecDeque<oneshot::Sender<Seat>>,
}

/// The right to be served. Dropping it makes room for the next.
pub(super) struct Seat {
    gate: Arc<Gate>,
    level: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gate.leave(&self.level);
    }
}

/// How a request fares at the gate.
pub(super) enum Outcome {
    /// It needs no seat.
    Exempt,
    Seat(Seat),
    /// It has to wait for this.
    Wait(oneshot::Receiver<Seat>),
    /// There is no room even to wait.
    Full,
}

impl Gate {
    pub(super) fn new(seats: u32) -> Self {
        Self { seats, state: Mutex::default() }
    }

    /// Takes over the stored priority levels. What is running or waiting in a level that stays is kept.
    pub(super) fn set_levels(&self, objects: &[Value]) {
        let shares_of = |object: &Value| {
            let spec = &object["spec"];
            match spec["type"].as_str() {
                Some("Exempt") => spec["exempt"]["nominalConcurrencyShares"].as_u64().unwrap_or(0),
                _ => spec["limited"]["nominalConcurrencyShares"].as_u64().unwrap_or(30),
            }
        };
        let all: u64 = objects.iter().map(shares_of).sum();
        let mut state = self.state.lock();
        let mut old = std::mem::take(&mut state.levels);
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let (spec, shares) = (&object["spec"], shares_of(object));
            let exempt = spec["type"] == "Exempt";
            let own = if exempt { &spec["exempt"] } else { &spec["limited"] };
            let nominal = (u64::from(self.seats) * shares).div_ceil(all.max(1)) as u32;
            let percent = |of: &Value| of.as_u64().map(|p| (u64::from(nominal) * p).div_ceil(100) as u32);
            let response = &own["limitResponse"];
            let queuing = &response["queuing"];
            let number = |key: &str, or: u64| queuing[key].as_u64().unwrap_or(or).clamp(1, 100_000) as usize;
            let mut level = old.remove(name).unwrap_or_default();
            level.exempt = exempt;
            level.nominal = nominal;
            level.lendable = percent(&own["lendablePercent"]).unwrap_or(0);
            level.borrows = percent(&own["borrowingLimitPercent"]);
            level.hand = (response["type"] == "Queue").then(|| number("handSize", 8));
            level.queue_length = number("queueLengthLimit", 50);
            let queues = if level.hand.is_some() { number("queues", 64) } else { 0 };
            // Queues that someone waits in stay, whatever their number should be.
            while level.queues.len() > queues && level.queues.last().is_some_and(|q| q.waiting.is_empty()) {
                level.queues.pop();
            }
            level.queues.resize_with(queues.max(level.queues.len()), Queue::default);
            state.levels.insert(name.to_owned(), level);
        }
    }

    /// Asks for a seat at a level; `flow` is the hash of what the request belongs to.
    pub(super) fn enter(self: &Arc<Self>, level: &str, schema: &str, flow: u64) -> Outcome {
        let mut state = self.state.lock();
        let spare = state.spare(level);
        let Some(found) = state.levels.get_mut(level) else { return Outcome::Exempt };
        if !found.counts.contains_key(schema) {
            found.counts.insert(schema.to_owned(), (0, 0));
        }
        let outcome = if found.exempt {
            Outcome::Exempt
        } else if found.waiting == 0 && found.has_room(spare) {
            found.executing += 1;
            Outcome::Seat(self.seat(level))
        } else {
            found.enqueue(flow).map_or(Outcome::Full, Outcome::Wait)
        };
        if let Some((passed, refused)) = found.counts.get_mut(schema) {
            let count = if matches!(outcome, Outcome::Full) { refused } else { passed };
            *count += 1;
        }
        outcome
    }

    fn seat(self: &Arc<Self>, level: &str) -> Seat {
        Seat { gate: self.clone(), level: level.to_owned() }
    }

    /// A seat is free again: whoever is next gets it. Others may have waited for it too, if it can be lent.
    fn leave(self: &Arc<Self>, level: &str) {
        let mut state = self.state.lock();
        if let Some(level) = state.levels.get_mut(level) {
            level.executing = level.executing.saturating_sub(1);
        }
        let waiting: Vec<String> =
            state.levels.iter().filter(|(_, l)| l.waiting > 0).map(|(name, _)| name.clone()).collect();
        let first = waiting.iter().filter(|name| *name == level);
        for name in first.chain(waiting.iter().filter(|name| *name != level)) {
            loop {
                let spare = state.spare(name);
                let Some(found) = state.levels.get_mut(name) else { break };
                if !found.has_room(spare) {
                    break;
                }
                let Some(next) = found.dequeue() else { break };
                found.executing += 1;
                if let Err(seat) = next.send(self.seat(name)) {
                    // Whoever waited has gone. The seat must not come back by itself: the state is locked.
                    std::mem::forget(seat);
                    found.executing -= 1;
                }
            }
        }
    }

    pub(super) fn metrics(&self, out: &mut Text) {
        let state = self.state.lock();
        let dispatched = "Number of requests executed by API Priority and Fairness.";
        out.family("apiserver_flowcontrol_dispatched_requests_total", "counter", dispatched);
        for (name, level) in &state.levels {
            for (schema, (passed, _)) in &level.counts {
                out.sample(&format!("flow_schema=\"{schema}\",priority_level=\"{name}\""), *passed as f64);
            }
        }
        let rejected = "Number of requests rejected by API Priority and Fairness.";
        out.family("apiserver_flowcontrol_rejected_requests_total", "counter", rejected);
        for (name, level) in &state.levels {
            let reason = if level.hand.is_some() { "queue-full" } else { "concurrency-limit" };
            for (schema, (_, refused)) in level.counts.iter().filter(|(_, (_, refused))| *refused > 0) {
                let labels =
                    format!("flow_schema=\"{schema}\",priority_level=\"{name}\",reason=\"{reason}\"");
                out.sample(&labels, *refused as f64);
            }
        }
        for (metric, help, value) in [
            (
                "apiserver_flowcontrol_nominal_limit_seats",
                "Nominal number of execution seats of each priority level.",
                (|level| f64::from(level.nominal)) as fn(&Level) -> f64,
            ),
            (
                "apiserver_flowcontrol_current_executing_seats",
                "Number of seats taken at each priority level.",
                |level| f64::from(level.executing),
            ),
            (
                "apiserver_flowcontrol_current_inqueue_requests",
                "Number of requests waiting at each priority level.",
                |level| level.waiting as f64,
            ),
        ] {
            out.family(metric, "gauge", help);
            for (name, level) in &state.levels {
                out.sample(&format!("priority_level=\"{name}\""), value(level));
            }
        }
    }
}

impl State {
    /// How many free seats of other levels `level` may use.
    fn spare(&self, level: &str) -> u32 {
        // The common case needs no look at the others.
        if self.levels.get(level).is_none_or(|l| l.executing < l.nominal) {
            return 0;
        }
        let others = self.levels.iter().filter(|(name, _)| *name != level);
        let lent = others.map(|(_, l)| l.lendable.min(l.nominal.saturating_sub(l.executing))).sum::<u32>();
        let borrowed: u32 = self.levels.values().map(|l| l.executing.saturating_sub(l.nominal)).sum();
        lent.saturating_sub(borrowed)
    }
}

impl Level {
    fn has_room(&self, spare: u32) -> bool {
        let borrowed = self.executing.saturating_sub(self.nominal);
        self.executing < self.nominal || (spare > 0 && self.borrows.is_none_or(|most| borrowed < most))
    }

    /// A place in the shortest queue of the flow's hand.
    fn enqueue(&mut self, flow: u64) -> Option<oneshot::Receiver<Seat>> {
        let hand = deal(flow, self.queues.len(), self.hand?);
        for at in &hand {
            let queue = &mut self.queues[*at];
            let before = queue.waiting.len();
            queue.waiting.retain(|waiter| !waiter.is_closed());
            self.waiting -= before - queue.waiting.len();
        }
        let at = hand.into_iter().min_by_key(|at| self.queues[*at].waiting.len())?;
        let queue = &mut self.queues[at];
        if queue.waiting.len() >= self.queue_length {
            return None;
        }
        if queue.waiting.is_empty() {
            queue.turn = queue.turn.max(self.now);
        }
        let (sender, receiver) = oneshot::channel();
        queue.waiting.push_back(sender);
        self.waiting += 1;
        Some(receiver)
    }

    /// Whoever is next.
    fn dequeue(&mut self) -> Option<oneshot::Sender<Seat>> {
        let queue = self.queues.iter_mut().filter(|q| !q.waiting.is_empty()).min_by_key(|q| q.turn)?;
        self.now = queue.turn;
        queue.turn += 1;
        self.waiting -= 1;
        queue.waiting.pop_front()
    }
}

/// Different queues for a flow, told by its hash (`apiserver/pkg/util/shufflesharding`).
fn deal(mut hash: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for i in 0..hand.min(queues) {
        let left = (queues - i) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        // The nth of the cards that are left.
        let mut taken = dealt.clone();
        taken.sort_unstable();
        for other in taken {
            card += usize::from(other <= card);
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn level(name: &str, shares: u32, lendable: u32, response: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}}})
    }

    fn queue(length: u32) -> Value {
        json!({"type": "Queue", "queuing": {"queues": 8, "handSize": 2, "queueLengthLimit": length}})
    }

    fn gate(seats: u32, levels: &[Value]) -> Arc<Gate> {
        let gate = Arc::new(Gate::new(seats));
        gate.set_levels(levels);
        gate
    }

    fn seat(outcome: Outcome) -> Seat {
        match outcome {
            Outcome::Seat(seat) => seat,
            _ => panic!("no seat"),
        }
    }

    fn wait(outcome: Outcome) -> oneshot::Receiver<Seat> {
        match outcome {
            Outcome::Wait(receiver) => receiver,
            _ => panic!("no place to wait"),
        }
    }

    #[test]
    fn a_full_level_queues_and_then_refuses() {
        let gate = gate(2, &[level("a", 1, 0, queue(1)), level("b", 1, 0, json!({"type": "Reject"}))]);
        let first = seat(gate.enter("a", "s", 1));
        let mut waiting = wait(gate.enter("a", "s", 1));
        let mut second = wait(gate.enter("a", "s", 1));
        assert!(matches!(gate.enter("a", "s", 1), Outcome::Full), "both queues of the hand are full");
        let other = seat(gate.enter("b", "s", 1));
        assert!(matches!(gate.enter("b", "s", 1), Outcome::Full), "this level has no queues");
        assert!(waiting.try_recv().is_err());
        drop(first);
        let next = waiting.try_recv().or_else(|_| second.try_recv()).unwrap();
        assert!(waiting.try_recv().is_err() && second.try_recv().is_err(), "one seat is for one");
        drop(next);
        drop(other);
        assert!(matches!(gate.enter("gone", "s", 1), Outcome::Exempt));
        let mut text = Text::default();
        gate.metrics(&mut text);
        assert!(text.finish().contains(
            "rejected_requests_total{flow_schema=\"s\",priority_level=\"a\",reason=\"queue-full\"} 1"
        ));
    }

    #[test]
    fn free_seats_are_lent_and_come_back() {
        let gate = gate(4, &[level("a", 1, 50, queue(9)), level("b", 1, 0, queue(9))]);
        let b: Vec<Seat> = (0..3).map(|_| seat(gate.enter("b", "s", 1))).collect();
        let mut fourth = wait(gate.enter("b", "s", 1));
        let own = [seat(gate.enter("a", "s", 1)), seat(gate.enter("a", "s", 1))];
        drop(own);
        assert!(fourth.try_recv().is_err(), "one of a's seats is lent already, the other is its own");
        drop(b);
        drop(fourth.try_recv().unwrap());
    }

    #[test]
    fn a_flood_does_not_keep_others_waiting() {
        let gate = gate(1, &[level("a", 1, 0, queue(100))]);
        let running = seat(gate.enter("a", "s", 0));
        let flood: Vec<_> = (0..50).map(|_| wait(gate.enter("a", "s", 0))).collect();
        // A flow with queues of its own.
        let hash = (1..).find(|h| deal(*h, 8, 2).iter().all(|q| !deal(0, 8, 2).contains(q))).unwrap();
        let mut lone = wait(gate.enter("a", "s", hash));
        drop(running);
        let mut served = 0;
        let mut flood = flood.into_iter();
        while lone.try_recv().is_err() {
            served += usize::from(flood.next().unwrap().try_recv().is_ok());
            assert!(served < 4, "the flood went first {served} times");
        }
    }

    #[test]
    fn those_who_gave_up_get_no_seat() {
        let gate = gate(1, &[level("a", 1, 0, queue(1))]);
        let running = seat(gate.enter("a", "s", 1));
        drop(wait(gate.enter("a", "s", 1)));
        drop(wait(gate.enter("a", "s", 1)));
        let mut patient = wait(gate.enter("a", "s", 1));
        drop(running);
        drop(patient.try_recv().unwrap());
        drop(seat(gate.enter("a", "s", 1)));
    }

    proptest! {
        #[test]
        fn hands_hold_different_queues(hash: u64, queues in 1..200usize, hand in 1..10usize) {
            let mut dealt = deal(hash, queues, hand);
            prop_assert_eq!(dealt.len(), hand.min(queues));
            dealt.sort_unstable();
            dealt.dedup();
            prop_assert_eq!(dealt.len(), hand.min(queues));
            prop_assert!(dealt.iter().all(|q| *q < queues));
        }

        #[test]
        fn seats_are_never_lost(steps in proptest::collection::vec((0..3u8, 0..3u8, any::<u64>()), 0..200)) {
            let levels = [level("0", 1, 50, queue(3)), level("1", 2, 50, queue(3)), level("2", 1, 0, json!({"type": "Reject"}))];
            let gate = gate(6, &levels);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            for (action, at, n) in steps {
                match action {
                    0 => match gate.enter(&at.to_string(), "s", n) {
                        Outcome::Seat(seat) => held.push(seat),
                        Outcome::Wait(receiver) => waiting.push(receiver),
                        _ => {}
                    },
                    1 if !held.is_empty() => drop(held.swap_remove(n as usize % held.len())),
                    2 if !waiting.is_empty() => drop(waiting.swap_remove(n as usize % waiting.len())),
                    _ => {}
                }
                waiting.retain_mut(|receiver| match receiver.try_recv() {
                    Ok(seat) => { held.push(seat); false }
                    Err(_) => true,
                });
                let executing: u32 = gate.state.lock().levels.values().map(|l| l.executing).sum();
                prop_assert_eq!(executing as usize, held.len());
                // A level gets its own seats even while others still use some of them.
                prop_assert!(executing <= 7 + 3);
            }
            drop(held);
            waiting.iter_mut().for_each(|receiver| drop(receiver.try_recv()));
            drop(waiting);
            let state = gate.state.lock();
            prop_assert!(state.levels.values().all(|l| l.executing == 0));
        }
    }
}
