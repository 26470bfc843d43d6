use proptest::prelude::*;

use super::*;
use crate::topology::made;

fn who<'a>(uid: &'a str, container: &'a str) -> Who<'a> {
    Who { uid, container, ended: &[] }
}

fn memory(bytes: u64) -> Amounts {
    [("memory".to_owned(), bytes)].into()
}

/// Two nodes of 1000 bytes, of which 100 are huge pages and 100 are kept back.
fn two() -> MemoryState {
    let reserved = (0..2).map(|node| (node, memory(100))).collect();
    MemoryState::fresh(&made::machine(2, 1, 2, 1), &reserved)
}

fn hint(nodes: &[usize], preferred: bool) -> Hint {
    Hint { affinity: Some(Mask::of(nodes.iter().copied())), preferred }
}

#[test]
fn pages_have_their_names() {
    assert_eq!([4, 64, 2048, 1 << 20].map(hugepages), ["hugepages-4Ki", "hugepages-64Ki", "hugepages-2Mi", "hugepages-1Gi"]);
    assert_eq!(two().machine_state[&0].memory_map["memory"].free, 800);
    assert_eq!(two().machine_state[&0].memory_map["hugepages-2Mi"].free, 100);
}

#[test]
fn one_node_or_a_group_of_them() {
    let mut state = two();
    assert_eq!(state.hints(who("p", "c"), &memory(500)), [hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]);
    state.allocate(who("p", "c"), &memory(500), hint(&[1], true)).unwrap();
    assert_eq!(state.nodes_of("p", "c"), Some(Mask::of([1])));
    // Node 1 serves single ones now: no group can have it.
    assert_eq!(state.hints(who("q", "c"), &memory(500)), [hint(&[0], true)]);
    assert_eq!(state.hints(who("q", "c"), &memory(900)), []);
    assert_eq!(state.allocate(who("q", "c"), &memory(900), Hint::ANY), Err(MemoryError::NoNodes));
    assert_eq!(state.allocate(who("q", "c"), &memory(900), hint(&[0], false)), Err(MemoryError::NoExtension));
    // What a container has is what it is told again.
    assert_eq!(state.hints(who("p", "c"), &memory(500)), [hint(&[1], true)]);
    state.check(&two()).unwrap();
    assert!(state.release("p") && !state.release("p"));
    assert_eq!(state, two());
    state.allocate(who("q", "c"), &memory(900), Hint::ANY).unwrap();
    assert_eq!(state.nodes_of("q", "c"), Some(Mask::of([0, 1])));
    assert_eq!(state.hints(who("r", "c"), &memory(100)), [hint(&[0, 1], false)]);
    state.check(&two()).unwrap();
}

#[test]
fn containers_take_over_what_init_containers_had() {
    let mut state = two();
    state.allocate(who("p", "init"), &memory(600), hint(&[0], true)).unwrap();
    let main = Who { ended: &["init"], ..who("p", "main") };
    state.allocate(main, &memory(700), hint(&[0], true)).unwrap();
    assert_eq!(state.of("p", "init").unwrap()[0].size, 0);
    assert_eq!(state.machine_state[&0].memory_map["memory"].free, 100);
    state.check(&two()).unwrap();
    state.release("p");
    assert_eq!(state, two());
}

#[test]
fn another_machine_is_noticed() {
    let mut state = two();
    state.allocate(who("p", "c"), &memory(500), Hint::ANY).unwrap();
    let none = MemoryState::fresh(&made::machine(2, 1, 2, 1), &BTreeMap::new());
    assert_eq!(
        state.check(&none),
        Err("[memorymanager] the expected machine state is different from the real one".into())
    );
    state.entries.get_mut("p").unwrap().get_mut("c").unwrap()[0].numa_affinity = vec![7];
    assert!(state.check(&two()).unwrap_err().contains("NUMA that does not exist"));
    let written = serde_json::to_string(&two()).unwrap();
    assert_eq!(serde_json::from_str::<MemoryState>(&written).unwrap(), two());
}

proptest! {
    /// Whatever happens in whatever order: the books are right, and no node gives more than it has.
    #[test]
    fn the_books_are_right(steps in prop::collection::vec((0usize..4, 0u64..1500, 0u64..150, prop::option::of(1u64..16), any::<bool>()), 1..20)) {
        let fresh = MemoryState::fresh(&made::machine(2, 2, 2, 1), &BTreeMap::new());
        let mut state = fresh.clone();
        for (pod, bytes, pages, nodes, init) in steps {
            let uid = pod.to_string();
            if bytes == 0 || bytes % 5 == 0 {
                state.release(&uid);
            } else {
                let asked: Amounts = [("memory".to_owned(), bytes), ("hugepages-2Mi".to_owned(), pages)].into();
                let affinity = nodes.map(|bits| Mask::of((0..4).filter(move |n| bits >> n & 1 == 1)));
                let before = state.clone();
                let container = if init { "init" } else { "main" };
                let ended: &[&str] = if init { &[] } else { &["init"] };
                let who = Who { uid: &uid, container, ended };
                if state.allocate(who, &asked, Hint { affinity, preferred: false }).is_err() {
                    prop_assert_eq!(&state, &before);
                }
            }
            prop_assert_eq!(state.check(&fresh), Ok(()));
            for node in state.machine_state.values() {
                for table in node.memory_map.values() {
                    prop_assert_eq!(table.reserved + table.free, table.allocatable);
                }
            }
        }
        for pod in 0..4 {
            state.release(&pod.to_string());
        }
        prop_assert_eq!(state, fresh);
    }
}
