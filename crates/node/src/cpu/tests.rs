use std::sync::Arc;

use proptest::prelude::*;

use super::take::packed;
use super::*;
use crate::topology::{TopologyPolicy, made};

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn policy(machine: Machine, reserved: &str, options: Options) -> Static {
    Static::new(Arc::new(machine), cpus(reserved), options)
}

fn take(machine: &Machine, free: &str, count: usize) -> String {
    packed(machine, &cpus(free), count, false).unwrap().to_string()
}

// Two sockets, each one node with four cores of two threads: node 0 has 0-3 and 8-11, core 0 has 0 and 8.
fn two() -> Machine {
    made::machine(2, 1, 4, 2)
}

#[test]
fn what_is_whole_is_taken_whole() {
    let machine = two();
    assert_eq!(take(&machine, "0-15", 2), "0,8");
    assert_eq!(take(&machine, "0-15", 8), "0-3,8-11");
    assert_eq!(take(&machine, "0-15", 10), "0-4,8-12");
    // The socket with fewer free ones first, and the half-used core before a whole one.
    assert_eq!(take(&machine, "1-15", 1), "8");
    assert_eq!(take(&machine, "1-15", 3), "1,8-9");
    assert_eq!(take(&machine, "2-15", 2), "2,10");
    assert_eq!(take(&machine, "0-15", 0), "");
    assert_eq!(
        packed(&machine, &cpus("0-1"), 3, false).unwrap_err().to_string(),
        "not enough cpus available to satisfy request: requested=3, available=2"
    );
}

#[test]
fn caches_are_shared_by_as_few_as_can_be() {
    // Two cores share a cache: 0,1,8,9 and 2,3,10,11.
    let machine = two();
    let by_cache = |free: &str, count| packed(&machine, &cpus(free), count, true).unwrap().to_string();
    assert_eq!(by_cache("1-15", 4), "2-3,10-11");
    assert_eq!(by_cache("1-3,9-11", 3), "2-3,10");
    assert_eq!(take(&machine, "1-3,9-11", 4), "1-2,9-10");
}

#[test]
fn sub_nodes_of_a_socket_are_kept_together() {
    // Two sockets of two nodes of two cores: node 1 is cores 2 and 3.
    let machine = made::machine(2, 2, 2, 1);
    assert_eq!(take(&machine, "0-7", 2), "0-1");
    assert_eq!(take(&machine, "1-7", 2), "2-3");
    assert_eq!(take(&machine, "1-7", 4), "4-7");
}

#[test]
fn cpus_are_spread_evenly() {
    let machine = two();
    let spread = |free: &str, count, group| {
        super::spread::spread(&machine, &cpus(free), count, group).unwrap().to_string()
    };
    // All fit on one node.
    assert_eq!(spread("0-15", 8, 1), "0-3,8-11");
    let both = cpus(&spread("0-15", 12, 2));
    assert_eq!((both.and(&machine.in_node(0)).len(), both.and(&machine.in_node(1)).len()), (6, 6));
    let odd = cpus(&spread("0-15", 10, 2));
    let parts = [odd.and(&machine.in_node(0)).len(), odd.and(&machine.in_node(1)).len()];
    assert!(parts == [6, 4] || parts == [4, 6], "{parts:?}");
}

#[test]
fn a_container_has_cpus_until_its_pod_ends() {
    let policy = policy(two(), "0,8", Options::default());
    let mut state = policy.fresh();
    let got = policy.allocate(&mut state, ("p", "c"), 2, Some(Mask::of([1])), &CpuSet::default()).unwrap();
    assert_eq!(
        (got.to_string(), state.default_cpu_set.to_string()),
        ("4,12".into(), "0-3,5-11,13-15".into())
    );
    // Asked again, it keeps them.
    let again = policy.allocate(&mut state, ("p", "c"), 2, None, &CpuSet::default()).unwrap();
    assert_eq!(again, got);
    policy.check(&state).unwrap();
    assert!(state.release("p") && !state.release("p"));
    assert_eq!(state, policy.fresh());
    let all = policy.allocate(&mut state, ("p", "c"), 15, None, &CpuSet::default());
    assert_eq!(all, Err(CpuError::NotEnough(NotEnough { requested: 15, available: 14 })));
    assert_eq!(state, policy.fresh());
}

#[test]
fn whole_cores_or_none() {
    let options = Options { full_cores: true, ..Options::default() };
    let policy = policy(two(), "0", options);
    let mut state = policy.fresh();
    let mut ask = |count| {
        policy.allocate(&mut state, ("p", "c"), count, None, &CpuSet::default()).map_err(|e| e.to_string())
    };
    assert_eq!(ask(3), Err("SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2".into()));
    let why = "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 14, requested CPUs = 16, CPUs per core = 2";
    assert_eq!(ask(16), Err(why.into()));
    assert_eq!(ask(14), Ok(cpus("1-7,9-15")));
}

#[test]
fn reserved_ones_are_shared_unless_strictly_reserved() {
    let plain = policy(two(), "0,8", Options::default());
    assert_eq!(plain.fresh().default_cpu_set, cpus("0-15"));
    let strict = policy(two(), "0,8", Options { strict_reserved: true, ..Options::default() });
    assert_eq!(strict.fresh().default_cpu_set, cpus("1-7,9-15"));
    strict.check(&strict.fresh()).unwrap();
    let why = "some of strictly reserved cpus: \"0,8\" are present in defaultCpuSet: \"0-15\"";
    assert_eq!(strict.check(&plain.fresh()), Err(why.into()));
    let why = "not all reserved cpus: \"0,8\" are present in defaultCpuSet: \"1-7,9-15\"";
    assert_eq!(plain.check(&strict.fresh()), Err(why.into()));
    let smaller = policy(made::machine(1, 1, 4, 2), "0", Options::default());
    assert!(smaller.check(&plain.fresh()).unwrap_err().contains("doesn't match with CPUs in state"));
    assert_eq!(reserve(&two(), 2), Ok(cpus("0,8")));
}

#[test]
fn hints_prefer_as_few_nodes_as_an_empty_machine_needs() {
    let plain = policy(two(), "0", Options::default());
    let hints = |asked| plain.hints(&plain.available(&plain.fresh()), &CpuSet::default(), asked);
    let hint =
        |nodes: &[usize], preferred| Hint { affinity: Some(Mask::of(nodes.iter().copied())), preferred };
    assert_eq!(hints(2), [hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]);
    // Node 0 has seven that can be had.
    assert_eq!(hints(8), [hint(&[1], true), hint(&[0, 1], false)]);
    assert_eq!(hints(9), [hint(&[0, 1], true)]);
    let reused = plain.hints(&cpus("1-7"), &cpus("8"), 2);
    assert_eq!(reused, [hint(&[0], true), hint(&[0, 1], false)]);
    let by_socket = Options { by_socket: true, ..Options::default() };
    let sockets = policy(made::machine(2, 2, 2, 1), "0", by_socket);
    let all = sockets.hints(&sockets.available(&sockets.fresh()), &CpuSet::default(), 2);
    // Both nodes of one socket are as good as one of them.
    assert!(all.contains(&hint(&[2, 3], true)) && all.contains(&hint(&[1, 2], false)), "{all:?}");
}

#[test]
fn options_are_read_and_checked() {
    let parse = |name: &str, value: &str| Options::parse(&[(name.to_owned(), value.to_owned())].into());
    assert!(parse("full-pcpus-only", "true").unwrap().full_cores);
    assert_eq!(parse("x", "true"), Err("unsupported cpumanager option: \"x\" with value \"true\"".into()));
    assert!(parse("align-by-socket", "maybe").is_err());
    let both = Options { by_cache: true, across_nodes: true, ..Options::default() };
    assert!(both.check(TopologyPolicy::None, &two()).is_err());
    let by_socket = Options { by_socket: true, ..Options::default() };
    assert!(by_socket.check(TopologyPolicy::SingleNumaNode, &two()).is_err());
    by_socket.check(TopologyPolicy::Restricted, &two()).unwrap();
}

fn machines() -> impl Strategy<Value = Machine> {
    (1usize..3, 1usize..3, 1usize..5, 1usize..3).prop_map(|(s, n, c, t)| made::machine(s, n, c, t))
}

fn some_options() -> impl Strategy<Value = Options> {
    any::<[bool; 5]>().prop_map(|[full_cores, across_nodes, by_socket, strict_reserved, by_cache]| Options {
        full_cores,
        across_nodes,
        by_socket,
        strict_reserved,
        by_cache: by_cache && !across_nodes,
    })
}

proptest! {
    /// Whatever happens in whatever order: nobody has what another has, each has as many as he asked for, nothing is lost,
    /// and reserved ones are nobody's.
    #[test]
    fn nothing_is_given_twice_or_lost(
        machine in machines(),
        options in some_options(),
        steps in prop::collection::vec((0usize..4, 0usize..9, prop::option::of(1u64..16)), 1..20),
    ) {
        let reserved = reserve(&machine, 1).unwrap();
        let policy = Static::new(Arc::new(machine.clone()), reserved.clone(), options);
        let mut state = policy.fresh();
        for (pod, count, nodes) in steps {
            let uid = pod.to_string();
            let before = state.clone();
            if count == 0 {
                state.release(&uid);
            } else {
                let affinity = nodes.map(|bits| Mask::of((0..4).filter(move |n| bits >> n & 1 == 1)));
                let had = state.of(&uid, "c").cloned();
                match policy.allocate(&mut state, (&uid, "c"), count, affinity, &CpuSet::default()) {
                    Ok(got) => {
                        prop_assert!(had.is_some() || got.len() == count);
                        if options.full_cores && had.is_none() {
                            let cores = machine.parts(&got, |cpu| cpu.core);
                            prop_assert_eq!(machine.having(|cpu| cores.contains(&cpu.core)), got);
                        }
                    }
                    Err(_) => prop_assert_eq!(&state, &before),
                }
            }
            prop_assert_eq!(policy.check(&state), Ok(()));
            let mut seen = CpuSet::default();
            for cpus in state.entries.values().flat_map(|c| c.values()) {
                prop_assert!(seen.and(cpus).is_empty() && reserved.and(cpus).is_empty());
                seen = seen.or(cpus);
            }
        }
    }

    /// A hint that names nodes can be fulfilled from them.
    #[test]
    fn hints_hold(machine in machines(), asked in 1usize..9, free in prop::collection::btree_set(0usize..32, 0..32)) {
        let policy = Static::new(Arc::new(machine.clone()), CpuSet::default(), Options::default());
        let free: CpuSet = free.into_iter().collect::<CpuSet>().and(&machine.all());
        for hint in policy.hints(&free, &CpuSet::default(), asked) {
            let mask = hint.affinity.unwrap();
            prop_assert!(free.and(&machine.in_nodes(mask)).len() >= asked);
        }
    }
}
