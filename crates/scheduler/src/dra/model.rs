//! The same question answered without any thought: every way to hand out devices is written down and looked at. Random
//! clusters are held against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Key, Labels};
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::object;

use super::allocate::{Asked, Memo, Scene, allocate};
use super::known::Devices;
use super::wanted::Wanted;

#[derive(Clone, Debug)]
struct Device {
    color: u8,
    size: i64,
    tainted: bool,
    /// How much of the common counter it uses up.
    uses: i64,
    /// How much there is to share, if several may have it.
    shares: Option<i64>,
    taken: bool,
    elsewhere: bool,
}

#[derive(Clone, Debug)]
struct Wish {
    red: bool,
    count: usize,
    admin: bool,
    tolerates: bool,
    /// How much of what is shared.
    share: Option<i64>,
}

#[derive(Clone, Debug)]
struct Claim {
    /// Each request's choices.
    requests: Vec<Vec<Wish>>,
    /// All of its devices have the same color, or all another size.
    same_color: bool,
    distinct_size: bool,
}

#[derive(Clone, Debug)]
struct World {
    devices: Vec<Device>,
    counter: i64,
    claims: Vec<Claim>,
}

const DRIVER: &str = "d.example.com";

fn device() -> impl Strategy<Value = Device> {
    let flag = |often: f64| prop::bool::weighted(often);
    (0..2u8, 0..3i64, flag(0.2), 0..3i64, prop::option::weighted(0.3, 1..5i64), flag(0.2), flag(0.2))
        .prop_map(|(color, size, tainted, uses, shares, taken, elsewhere)| Device {
            color,
            size,
            tainted,
            uses,
            shares,
            taken,
            elsewhere,
        })
}

fn wish() -> impl Strategy<Value = Wish> {
    let flag = |often: f64| prop::bool::weighted(often);
    (flag(0.5), 1..3usize, flag(0.1), flag(0.3), prop::option::weighted(0.2, 1..4i64))
        .prop_map(|(red, count, admin, tolerates, share)| Wish { red, count, admin, tolerates, share })
}

fn world() -> impl Strategy<Value = World> {
    let request = prop_oneof![
        3 => prop::collection::vec(wish(), 1),
        1 => prop::collection::vec(wish(), 2..3)
            .prop_map(|all| all.into_iter().map(|wish| Wish { admin: false, ..wish }).collect()),
    ];
    let claim = (prop::collection::vec(request, 1..3), prop::bool::weighted(0.3), prop::bool::weighted(0.3))
        .prop_map(|(requests, same_color, distinct_size)| Claim { requests, same_color, distinct_size });
    (prop::collection::vec(device(), 1..6), 0..6i64, prop::collection::vec(claim, 1..3))
        .prop_map(|(devices, counter, claims)| World { devices, counter, claims })
}

impl World {
    fn devices(&self) -> Devices {
        let mut all = Devices::default();
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
        let devices: Vec<Value> = self.devices.iter().enumerate().map(|(i, d)| d.json(i)).collect();
        let slice = |name: &str, more: Value| {
            let mut spec = json!({"driver": DRIVER, "pool": pool});
            types::patch::merge_patch(&mut spec, more);
            object(json!({"metadata": {"name": name}, "spec": spec}))
        };
        let devices = slice("devices", json!({"perDeviceNodeSelection": true, "devices": devices}));
        let set = json!([{"name": "set", "counters": {"units": {"value": self.counter.to_string()}}}]);
        let counters = slice("counters", json!({"allNodes": true, "sharedCounters": set}));
        all.set_slice("devices", Some(&devices));
        all.set_slice("counters", Some(&counters));
        for (name, selectors) in [
            ("any", json!([])),
            (
                "red",
                json!([{"cel": {"expression": format!("device.attributes['{DRIVER}'].color == 'red'")}}]),
            ),
        ] {
            let class = object(json!({"metadata": {"name": name}, "spec": {"selectors": selectors}}));
            all.set_class(name, Some(Arc::new(class)));
        }
        let taken = self.devices.iter().enumerate().filter(|(_, d)| d.taken);
        let results: Vec<Value> = taken.map(|(i, d)| d.taken_json(i)).collect();
        let claim = object(json!({"metadata": {"name": "others", "namespace": "n", "uid": "o"}, "spec": {},
            "status": {"allocation": {"devices": {"results": results}}}}));
        all.set_claim(Key::new("n", "others"), Some(Arc::new(claim)));
        all
    }

    fn is_red(&self, device: usize) -> bool {
        self.devices[device].color == 0
    }
}

impl Device {
    fn json(&self, place: usize) -> Value {
        let color = if self.color == 0 { "red" } else { "blue" };
        let node = if self.elsewhere { "other" } else { "here" };
        let mut device = json!({"name": format!("d{place}"), "nodeName": node,
            "attributes": {"color": {"string": color}, (format!("{DRIVER}/size")): {"int": self.size}}});
        if self.tainted {
            device["taints"] = json!([{"key": "t", "effect": "NoSchedule"}]);
        }
        if self.uses > 0 {
            let used = json!({"units": {"value": self.uses.to_string()}});
            device["consumesCounters"] = json!([{"counterSet": "set", "counters": used}]);
        }
        if let Some(amount) = self.shares {
            device["allowMultipleAllocations"] = json!(true);
            let policy = json!({"default": "1"});
            device["capacity"] = json!({"share": {"value": amount.to_string(), "requestPolicy": policy}});
        }
        device
    }

    fn taken_json(&self, place: usize) -> Value {
        let mut result =
            json!({"request": "r", "driver": DRIVER, "pool": "p", "device": format!("d{place}")});
        if self.shares.is_some() {
            result["shareID"] = json!("x");
            result["consumedCapacity"] = json!({"share": "1"});
        }
        result
    }
}

impl Claim {
    fn json(&self) -> Value {
        let wish = |wish: &Wish| {
            let mut asked = json!({"deviceClassName": if wish.red { "red" } else { "any" },
                "allocationMode": "ExactCount", "count": wish.count});
            if wish.admin {
                asked["adminAccess"] = json!(true);
            }
            if wish.tolerates {
                asked["tolerations"] = json!([{"key": "t", "operator": "Exists"}]);
            }
            if let Some(share) = wish.share {
                asked["capacity"] = json!({"requests": {"share": share.to_string()}});
            }
            asked
        };
        let requests = self.requests.iter().enumerate().map(|(i, choices)| {
            let name = format!("r{i}");
            match choices.as_slice() {
                [only] => json!({"name": name, "exactly": wish(only)}),
                several => {
                    let named = several.iter().enumerate().map(|(i, w)| {
                        let mut choice = wish(w);
                        choice["name"] = json!(format!("c{i}"));
                        choice
                    });
                    json!({"name": name, "firstAvailable": named.collect::<Vec<_>>()})
                }
            }
        });
        let mut constraints = Vec::new();
        if self.same_color {
            constraints.push(json!({"matchAttribute": format!("{DRIVER}/color")}));
        }
        if self.distinct_size {
            constraints.push(json!({"distinctAttribute": format!("{DRIVER}/size")}));
        }
        let requests: Vec<Value> = requests.collect();
        json!({"metadata": {"name": "c", "namespace": "n"},
            "spec": {"devices": {"requests": requests, "constraints": constraints}}})
    }
}

/// For each claim and request: which choice, and which devices.
type Handout = Vec<Vec<(usize, Vec<usize>)>>;

impl World {
    /// Whether all of it is as it must be, looked at from the start.
    fn allows(&self, handout: &Handout) -> bool {
        let mut counter = self.counter;
        let mut left: BTreeMap<usize, i64> = BTreeMap::new();
        for (i, device) in self.devices.iter().enumerate() {
            left.insert(i, device.shares.unwrap_or(0) - i64::from(device.taken));
            counter -= if device.taken { device.uses } else { 0 };
        }
        // The claims that a device has been given to.
        let mut given: Vec<Vec<usize>> = vec![Vec::new(); self.devices.len()];
        let mut begun: Vec<bool> = self.devices.iter().map(|d| d.taken && d.shares.is_some()).collect();
        for (number, (claim, requests)) in self.claims.iter().zip(handout).enumerate() {
            let mut mine = Vec::new();
            for (choices, (choice, devices)) in claim.requests.iter().zip(requests) {
                let wish = &choices[*choice];
                if devices.len() != wish.count {
                    return false;
                }
                for i in devices.iter().copied() {
                    let device = &self.devices[i];
                    let shared = device.shares.is_some();
                    let busy = match wish.admin {
                        true => !shared && given[i].contains(&number),
                        false => !shared && (device.taken || !given[i].is_empty()),
                    };
                    if busy
                        || device.elsewhere
                        || (wish.red && !self.is_red(i))
                        || (device.tainted && !wish.tolerates)
                        || (wish.share.is_some() && !shared)
                    {
                        return false;
                    }
                    if shared {
                        let rest = left.entry(i).or_default();
                        *rest -= wish.share.unwrap_or(1);
                        if *rest < 0 {
                            return false;
                        }
                    }
                    if device.uses > 0 && !begun[i] {
                        counter -= device.uses;
                        if counter < 0 {
                            return false;
                        }
                    }
                    begun[i] |= shared;
                    given[i].push(number);
                    mine.push(i);
                }
            }
            let devices = || mine.iter().map(|i| &self.devices[*i]);
            let sizes: std::collections::BTreeSet<i64> = devices().map(|d| d.size).collect();
            if claim.same_color && devices().any(|d| d.color != self.devices[mine[0]].color) {
                return false;
            }
            if claim.distinct_size && sizes.len() != mine.len() {
                return false;
            }
        }
        true
    }

    /// Every way to hand out devices.
    fn handouts(&self) -> Vec<Handout> {
        let mut all: Vec<Handout> = vec![Vec::new()];
        for claim in &self.claims {
            let mut of_claim: Vec<Vec<(usize, Vec<usize>)>> = vec![Vec::new()];
            for choices in &claim.requests {
                let mut longer = Vec::new();
                for (choice, wish) in choices.iter().enumerate() {
                    for devices in combinations(self.devices.len(), wish.count) {
                        longer.extend(of_claim.iter().map(|begun| {
                            let mut begun = begun.clone();
                            begun.push((choice, devices.clone()));
                            begun
                        }));
                    }
                }
                of_claim = longer;
            }
            all = all
                .iter()
                .flat_map(|begun| {
                    of_claim.iter().map(move |claim| {
                        let mut begun = begun.clone();
                        begun.push(claim.clone());
                        begun
                    })
                })
                .collect();
        }
        all
    }
}

fn combinations(of: usize, count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let with_last = |last: usize| {
        combinations(last, count - 1).into_iter().map(move |mut rest| {
            rest.push(last);
            rest
        })
    };
    (0..of).flat_map(with_last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_the_search_finds_is_allowed_and_it_finds_what_there_is(world in world()) {
        let (devices, labels, memo) = (world.devices(), Labels::new(), Memo::default());
        let wanted: Vec<Wanted> = world.claims.iter().map(|c| Wanted::of(&object(c.json()))).collect();
        let asked: Vec<Asked<'_>> = wanted.iter().map(|wanted| Asked { key: "n/c", wanted }).collect();
        let scene = Scene { node: "here", labels: &labels, devices: &devices, memo: &memo };
        let found = allocate(&asked, scene);
        let found = found.map_err(TestCaseError::fail)?;
        let is_possible = world.handouts().iter().any(|handout| world.allows(handout));
        prop_assert_eq!(found.is_some(), is_possible);
        let Some(found) = found else { return Ok(()) };
        let place = |name: &str| name[1..].parse::<usize>().unwrap();
        let handout = world.claims.iter().zip(&found).map(|(claim, picked)| {
            let of_request = |number: usize| {
                let mine: Vec<_> = picked.iter().filter(|p| p.request == number).collect();
                (mine[0].choice, mine.iter().map(|p| place(&p.offer.device.name)).collect())
            };
            (0..claim.requests.len()).map(of_request).collect()
        });
        prop_assert!(world.allows(&handout.collect()));
        // The same question has the same answer.
        let fresh = Memo::default();
        let again = allocate(&asked, Scene { memo: &fresh, ..scene }).unwrap().unwrap();
        let names = |all: &[Vec<super::allocate::Picked<'_>>]| -> Vec<String> {
            all.iter().flatten().map(|p| p.offer.id.to_string()).collect()
        };
        prop_assert_eq!(names(&found), names(&again));
    }
}
