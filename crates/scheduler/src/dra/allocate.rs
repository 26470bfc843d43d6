//! The search: claim after claim, request after request, device after device; where it does not go on, the last choice is
//! taken back and the next one tried (kubernetes/kubernetes,
//! `dynamic-resource-allocation/structured/internal/incubating/allocator_incubating.go`). The first solution counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Labels;

use super::amounts::{Amounts, add, full_name, subtract};
use super::constraint::Seen;
use super::known::Devices;
use super::pool::{Pool, PoolId};
use super::slice::{Offer, Slice};
use super::wanted::{Choice, Request, Wanted};

/// So many devices a claim can have (upstream: `AllocationResultsMaxSize`).
const MOST: usize = 32;
/// So many choices are looked at for one node. Upstream gives up after a time instead.
const PATIENCE: usize = 200_000;

/// A claim that devices are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Namespace and name.
    pub(super) key: &'a str,
    pub(super) wanted: &'a Wanted,
}

/// What was found out for one node and holds for the others.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// Which devices expressions pick, by claim, request, choice and device.
    picks: RefCell<HashMap<(usize, usize, usize, usize), bool>>,
    /// What is left of the counters of pools.
    left: RefCell<HashMap<PoolId, Arc<BTreeMap<String, Amounts>>>>,
}

/// Where devices are looked for.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) node: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) devices: &'a Devices,
    pub(super) memo: &'a Memo,
}

/// A device for a request.
#[derive(Clone, Debug)]
pub(super) struct Picked<'a> {
    /// The request, and which of its choices.
    pub(super) request: usize,
    pub(super) choice: usize,
    pub(super) slice: &'a Slice,
    pub(super) offer: &'a Offer,
    /// How much of it, by full names, if others may have some too.
    pub(super) share: Option<Amounts>,
}

/// The devices for each claim, nothing if there are not enough, or why nobody can tell.
pub(super) fn allocate<'a>(
    claims: &'a [Asked<'a>],
    scene: Scene<'a>,
) -> Result<Option<Vec<Vec<Picked<'a>>>>, String> {
    let mut search = Search::new(claims, scene);
    search.prepare()?;
    match search.one(At::default(), false, 0)? {
        Step::Found => Ok(Some(search.picked)),
        Step::Nothing | Step::TooMany if search.pools.iter().any(|pool| pool.invalid) => {
            Err("invalid resource pools were encountered".to_owned())
        }
        Step::Nothing | Step::TooMany => Ok(None),
    }
}

/// Which device is looked for.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    claim: usize,
    request: usize,
    choice: usize,
    /// How many the request has already.
    device: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Found,
    Nothing,
    /// The claim would get more devices than it can have, whichever they are.
    TooMany,
}

/// A device that the node can reach.
#[derive(Clone, Copy)]
struct Spot<'a> {
    pool: &'a Pool,
    slice: &'a Slice,
    offer: &'a Offer,
}

/// How to take a choice back.
struct Undo<'a> {
    at: At,
    spot: Spot<'a>,
    constraints: Vec<usize>,
    counted: bool,
}

struct Search<'a> {
    claims: &'a [Asked<'a>],
    scene: Scene<'a>,
    pools: Vec<&'a Pool>,
    /// Of the pools that can be trusted.
    spots: Vec<Spot<'a>>,
    /// For those who want all devices that there are.
    all: HashMap<(usize, usize, usize), Vec<Spot<'a>>>,
    picked: Vec<Vec<Picked<'a>>>,
    /// By device: the claims that the search has given it to.
    whole: HashMap<&'a str, Vec<usize>>,
    shared: HashMap<&'a str, (u32, Amounts)>,
    /// Of the counters of pools, by pool and set.
    used: HashMap<(&'a PoolId, &'a str), Amounts>,
    /// By claim and constraint.
    seen: Vec<Vec<Seen<'a>>>,
    steps: usize,
}

impl<'a> Search<'a> {
    fn new(claims: &'a [Asked<'a>], scene: Scene<'a>) -> Self {
        let pools: Vec<&Pool> = scene.devices.pools_for(scene.node, scene.labels);
        let trusted = pools.iter().copied().filter(|pool| !pool.incomplete && !pool.invalid);
        let spots = trusted.flat_map(|pool| spots(pool, scene)).collect();
        Self {
            claims,
            scene,
            pools,
            spots,
            all: HashMap::new(),
            picked: claims.iter().map(|_| Vec::new()).collect(),
            whole: HashMap::new(),
            shared: HashMap::new(),
            used: HashMap::new(),
            seen: claims.iter().map(|c| vec![Seen::new(); c.wanted.constraints.len()]).collect(),
            steps: 0,
        }
    }

    /// Whether all that is asked for is understood, and what there is for those who want everything.
    fn prepare(&mut self) -> Result<(), String> {
        for (claim, asked) in self.claims.iter().enumerate() {
            let key = asked.key;
            let mut least = 0usize;
            for (number, request) in asked.wanted.requests.iter().enumerate() {
                let mut fewest: Option<usize> = None;
                for (choice, wish) in request.choices.iter().enumerate() {
                    let at = At { claim, request: number, choice, device: 0 };
                    let needed = match wish.count {
                        Some(count) => count,
                        None => self.prepare_all(at, request, wish)?,
                    };
                    fewest = Some(fewest.map_or(needed, |fewest| fewest.min(needed)));
                }
                let Some(fewest) = fewest else {
                    let name = &request.name;
                    return Err(format!(
                        "claim {key}, request {name}: missing device class name (unsupported request type?)"
                    ));
                };
                least = least.saturating_add(fewest);
            }
            if least > MOST {
                return Err(format!(
                    "claim {key}: number of requested devices {least} exceeds the claim limit of {MOST}"
                ));
            }
            if let Some(number) = asked.wanted.constraints.iter().position(|c| !c.is_known()) {
                return Err(format!(
                    "claim {key}, constraint #{number}: empty constraint (unsupported constraint type?)"
                ));
            }
        }
        Ok(())
    }

    fn prepare_all(&mut self, at: At, request: &Request, choice: &Choice) -> Result<usize, String> {
        let key = self.claims[at.claim].key;
        let name = if request.is_list() { choice.own() } else { &request.name };
        let mut found = Vec::new();
        for pool in self.pools.clone() {
            let state = match (pool.incomplete, pool.invalid) {
                (true, _) => "being updated",
                (false, true) => "invalid",
                (false, false) => "",
            };
            if !state.is_empty() {
                return Err(format!(
                    "claim {key}, request {name}: asks for all devices, but resource pool {} is currently {state}",
                    pool.name()
                ));
            }
            for spot in spots(pool, self.scene) {
                if self.is_selectable(at, choice, spot)?
                    && self.share(choice, spot.slice, spot.offer).is_some()
                {
                    found.push(spot);
                }
            }
        }
        let count = found.len();
        self.all.insert((at.claim, at.request, at.choice), found);
        Ok(count)
    }

    /// Looks for one device and all that come after it. `chosen` says that `at` names a choice for good; the devices
    /// before `from` have been tried for the request.
    fn one(&mut self, at: At, chosen: bool, from: usize) -> Result<Step, String> {
        self.steps += 1;
        if self.steps > PATIENCE {
            return Err("filter operation aborted: timed out trying to allocate devices".to_owned());
        }
        let Some(asked) = self.claims.get(at.claim) else { return Ok(Step::Found) };
        let Some(request) = asked.wanted.requests.get(at.request) else {
            let next = At { claim: at.claim + 1, ..At::default() };
            // What is too much for the next claim may not be so after another choice for this one.
            return Ok(match self.one(next, false, 0)? {
                Step::TooMany => Step::Nothing,
                step => step,
            });
        };
        if request.is_list() && !chosen {
            return self.first_available(at, request);
        }
        let choice = &request.choices[at.choice];
        let all = (at.claim, at.request, at.choice);
        let needed = choice.count.unwrap_or_else(|| self.all.get(&all).map_or(0, Vec::len));
        if needed == 0 {
            return Ok(Step::Nothing);
        }
        if at.device >= needed {
            return self.one(At { request: at.request + 1, choice: 0, device: 0, ..at }, false, 0);
        }
        if self.picked[at.claim].len().saturating_add(needed - at.device) > MOST {
            return Ok(Step::TooMany);
        }
        let next = At { device: at.device + 1, ..at };
        if choice.count.is_none() {
            let Some(spot) = self.all.get(&all).and_then(|spots| spots.get(at.device)).copied() else {
                return Ok(Step::Nothing);
            };
            let Some(undo) = self.pick(at, spot, true)? else { return Ok(Step::Nothing) };
            let step = self.one(next, chosen, 0);
            if step != Ok(Step::Found) {
                self.take_back(undo);
            }
            return step;
        }
        for place in from..self.spots.len() {
            let spot = self.spots[place];
            if self.is_in_use(at, choice, spot.offer) || !self.is_selectable(at, choice, spot)? {
                continue;
            }
            let Some(undo) = self.pick(at, spot, false)? else { continue };
            // The order of devices within a request does not matter, so each set of them is tried once.
            let step = self.one(next, chosen, place + 1);
            if step == Ok(Step::Found) {
                return step;
            }
            self.take_back(undo);
            if step != Ok(Step::Nothing) {
                return step;
            }
        }
        Ok(Step::Nothing)
    }

    fn first_available(&mut self, at: At, request: &Request) -> Result<Step, String> {
        let mut outcome = Step::TooMany;
        for choice in 0..request.choices.len() {
            match self.one(At { choice, ..at }, true, 0)? {
                Step::Found => return Ok(Step::Found),
                Step::Nothing => outcome = Step::Nothing,
                Step::TooMany => {}
            }
        }
        Ok(outcome)
    }

    fn is_in_use(&self, at: At, choice: &Choice, offer: &Offer) -> bool {
        let given = self.whole.get(&*offer.id);
        match choice.admin {
            true => given.is_some_and(|claims| claims.contains(&at.claim)),
            false => self.scene.devices.taken().is_whole(&offer.id) || given.is_some_and(|c| !c.is_empty()),
        }
    }

    /// Whether class and request mean a device, and the node can use it. Of each device this is found out once.
    fn is_selectable(&self, at: At, choice: &Choice, spot: Spot<'a>) -> Result<bool, String> {
        let Scene { node, labels, devices, memo } = self.scene;
        let (offer, driver) = (spot.offer, &*spot.slice.driver);
        let key = (at.claim, at.request, at.choice, std::ptr::from_ref(offer) as usize);
        let known = memo.picks.borrow().get(&key).copied();
        let picked = match known {
            Some(picked) => picked,
            None => {
                let Some(class) = devices.class(&choice.class) else {
                    let (claim, class) = (self.claims[at.claim].key, &choice.class);
                    let name = choice.own();
                    return Err(format!(
                        "claim {claim}, request {name}: could not retrieve device class {class}: deviceclass.resource.k8s.io {class:?} not found"
                    ));
                };
                let of_class = || format!("class {}", choice.class);
                let of_claim = || format!("claim {}", self.claims[at.claim].key);
                let picked =
                    class.pick(offer, driver, of_class)? && choice.selectors.pick(offer, driver, of_claim)?;
                memo.picks.borrow_mut().insert(key, picked);
                picked
            }
        };
        let near =
            !matches!(spot.slice.reach, super::slice::Reach::Device) || offer.reach.includes(node, labels);
        Ok(picked && near)
    }

    /// How much of each capacity a request takes, if the device has it (`CmpRequestOverCapacity`).
    fn share(&self, choice: &Choice, slice: &Slice, offer: &Offer) -> Option<Amounts> {
        let asked: Amounts =
            choice.capacity.iter().map(|(name, q)| (full_name(name, &slice.driver), *q)).collect();
        if asked.keys().any(|name| !offer.capacity.contains_key(name)) {
            return None;
        }
        let before = self.scene.devices.taken().shared(&offer.id);
        let now = self.shared.get(&*offer.id).map(|(_, amounts)| amounts);
        let mut share = Amounts::new();
        for (name, capacity) in &offer.capacity {
            let taken = capacity.taken(asked.get(name).copied())?;
            let of =
                |amounts: Option<&Amounts>| amounts.and_then(|a| a.get(name)).copied().unwrap_or_default();
            if of(before) + of(now) + taken > capacity.has {
                return None;
            }
            share.insert(name.clone(), taken);
        }
        Some(share)
    }

    /// Gives a device to a request, if it may have it (`allocateDevice`). With `must`, the request can do with no other.
    fn pick(&mut self, at: At, spot: Spot<'a>, must: bool) -> Result<Option<Undo<'a>>, String> {
        let asked = self.claims[at.claim];
        let request = &asked.wanted.requests[at.request];
        let choice = &request.choices[at.choice];
        let Spot { slice, offer, .. } = spot;
        let id: &'a str = &offer.id;
        if self.is_in_use(at, choice, offer) || self.scene.devices.repels(offer, slice, &choice.tolerations) {
            return Ok(None);
        }
        let shared = offer.is_shared();
        let begun =
            shared && (self.scene.devices.taken().shared(id).is_some() || self.shared.contains_key(id));
        // Whoever shares a device uses up no more of the counters than the first one did.
        let counted = !begun && !offer.consumes.is_empty();
        if counted && !self.has_counters(spot) {
            return Ok(None);
        }
        let Some(share) = self.share(choice, slice, offer) else { return Ok(None) };
        let mut admitted = Vec::new();
        for (number, constraint) in asked.wanted.constraints.iter().enumerate() {
            if !constraint.concerns(&request.name, &choice.name) {
                continue;
            }
            match constraint.admit(&self.seen[at.claim][number], offer, &slice.driver) {
                Some(value) => admitted.push((number, value)),
                None if must => {
                    let (claim, name) = (asked.key, choice.own());
                    return Err(format!(
                        "claim {claim}, request {name}: cannot add device {id} because a claim constraint would not be satisfied"
                    ));
                }
                None => return Ok(None),
            }
        }
        let constraints = admitted.iter().map(|(number, _)| *number).collect();
        admitted.into_iter().for_each(|(number, value)| self.seen[at.claim][number].push(value));
        if counted {
            for (set, amounts) in &offer.consumes {
                add(self.used.entry((&spot.pool.id, set.as_str())).or_default(), amounts);
            }
        }
        match shared {
            true => {
                let (users, sum) = self.shared.entry(id).or_default();
                *users += 1;
                add(sum, &share);
            }
            false => self.whole.entry(id).or_default().push(at.claim),
        }
        let share = shared.then_some(share);
        self.picked[at.claim].push(Picked { request: at.request, choice: at.choice, slice, offer, share });
        Ok(Some(Undo { at, spot, constraints, counted }))
    }

    fn take_back(&mut self, undo: Undo<'a>) {
        let Undo { at, spot, constraints, counted } = undo;
        let offer = spot.offer;
        for number in constraints {
            self.seen[at.claim][number].pop();
        }
        if counted {
            for (set, amounts) in &offer.consumes {
                subtract(self.used.entry((&spot.pool.id, set.as_str())).or_default(), amounts);
            }
        }
        let picked = self.picked[at.claim].pop();
        match picked.and_then(|picked| picked.share) {
            Some(share) => {
                if let Some((users, sum)) = self.shared.get_mut(&*offer.id) {
                    *users -= 1;
                    subtract(sum, &share);
                    if *users == 0 {
                        self.shared.remove(&*offer.id);
                    }
                }
            }
            None => {
                if let Some(claims) = self.whole.get_mut(&*offer.id) {
                    claims.pop();
                }
            }
        }
    }

    /// Whether there is enough left of what a device shares with others (`checkAvailableCounters`).
    fn has_counters(&self, spot: Spot<'a>) -> bool {
        let left = self.left(spot.pool);
        spot.offer.consumes.iter().all(|(set, amounts)| {
            let (Some(left), used) = (left.get(set), self.used.get(&(&spot.pool.id, set.as_str()))) else {
                return false;
            };
            amounts.iter().all(|(name, more)| {
                let used = used.and_then(|used| used.get(name)).copied().unwrap_or_default();
                left.get(name).is_some_and(|left| used + *more <= *left)
            })
        })
    }

    fn left(&self, pool: &Pool) -> Arc<BTreeMap<String, Amounts>> {
        if let Some(left) = self.scene.memo.left.borrow().get(&pool.id) {
            return left.clone();
        }
        let mut left = pool.counters.clone();
        let offers = pool.slices.iter().flat_map(|slice| &slice.offers);
        for offer in offers.filter(|offer| self.scene.devices.taken().is_any(&offer.id)) {
            for (set, amounts) in &offer.consumes {
                if let Some(left) = left.get_mut(set) {
                    subtract(left, amounts);
                }
            }
        }
        let left = Arc::new(left);
        self.scene.memo.left.borrow_mut().insert(pool.id.clone(), left.clone());
        left
    }
}

/// The devices of a pool that a node can see.
fn spots<'a>(pool: &'a Pool, scene: Scene<'a>) -> impl Iterator<Item = Spot<'a>> {
    let slices = pool.slices.iter().filter(move |slice| slice.serves(scene.node, scene.labels));
    slices.flat_map(move |slice| slice.offers.iter().map(move |offer| Spot { pool, slice, offer }))
}
