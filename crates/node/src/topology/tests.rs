use proptest::prelude::*;

use super::*;

fn hint(nodes: &[usize], preferred: bool) -> Hint {
    Hint { affinity: Some(Mask::of(nodes.iter().copied())), preferred }
}

fn wish(name: &str, hints: Option<Vec<Hint>>) -> Wishes {
    [(name.to_owned(), hints)].into()
}

fn both(policy: TopologyPolicy, wishes: &[Wishes]) -> (Hint, bool) {
    decide(policy, false, &made::machine(2, 1, 2, 2), wishes)
}

#[test]
fn sets_of_nodes_come_smallest_first() {
    let masks = Mask::all_of(&[0, 2, 5]);
    assert_eq!(masks.len(), 7);
    assert_eq!(masks[0], Mask::of([0]));
    assert_eq!(masks[3], Mask::of([0, 2]));
    assert_eq!(masks[6], Mask::of([0, 2, 5]));
    assert!(Mask::of([3]).is_narrower_than(Mask::of([0, 1])) && Mask::of([0]).is_narrower_than(Mask::of([1])));
}

#[test]
fn nobody_who_wishes_anything_gets_everything() {
    let (best, admitted) = both(TopologyPolicy::Restricted, &[Wishes::new(), wish("cpu", None)]);
    assert_eq!((best, admitted), (hint(&[0, 1], true), true));
    let (best, admitted) = both(TopologyPolicy::SingleNumaNode, &[]);
    assert_eq!((best, admitted), (Hint::ANY, true));
}

#[test]
fn what_both_can_do_is_chosen() {
    let cpu = wish("cpu", Some(vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]));
    let device = wish("d", Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    for policy in [TopologyPolicy::BestEffort, TopologyPolicy::Restricted, TopologyPolicy::SingleNumaNode] {
        assert_eq!(both(policy, &[cpu.clone(), device.clone()]), (hint(&[1], true), true), "{policy:?}");
    }
}

#[test]
fn what_cannot_lie_together_is_refused_by_the_strict() {
    let cpu = wish("cpu", Some(vec![hint(&[0], true), hint(&[0, 1], false)]));
    let device = wish("d", Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    let wishes = [cpu, device];
    assert!(both(TopologyPolicy::BestEffort, &wishes).1);
    assert!(!both(TopologyPolicy::Restricted, &wishes).1);
    let (best, admitted) = both(TopologyPolicy::SingleNumaNode, &wishes);
    assert_eq!((best.affinity, admitted), (None, false));
}

#[test]
fn two_nodes_are_as_good_as_it_gets_for_what_is_large() {
    let cpu = wish("cpu", Some(vec![hint(&[0, 1], true)]));
    assert_eq!(both(TopologyPolicy::Restricted, std::slice::from_ref(&cpu)), (hint(&[0, 1], true), true));
    assert!(!both(TopologyPolicy::SingleNumaNode, &[cpu]).1);
    assert!(!both(TopologyPolicy::Restricted, &[wish("cpu", Some(vec![]))]).1);
}

#[test]
fn near_nodes_are_taken_if_wished() {
    let machine = made::machine(2, 2, 2, 1);
    let cpu = wish("cpu", Some(vec![hint(&[0, 2], true), hint(&[2, 3], true)]));
    let best = |closest| decide(TopologyPolicy::BestEffort, closest, &machine, std::slice::from_ref(&cpu)).0;
    assert_eq!((best(false), best(true)), (hint(&[0, 2], true), hint(&[2, 3], true)));
}

fn some_hints() -> impl Strategy<Value = Option<Vec<Hint>>> {
    let one = (1u64..16, any::<bool>());
    prop::option::of(prop::collection::vec(one, 0..5).prop_map(|hints| {
        let nodes = |bits: u64| (0..4).filter(move |n| bits >> n & 1 == 1);
        hints.into_iter().map(|(bits, preferred)| Hint { affinity: Some(Mask::of(nodes(bits))), preferred }).collect()
    }))
}

proptest! {
    #[test]
    fn the_stricter_admit_less_and_only_what_fits(hints in prop::collection::vec(some_hints(), 0..4), closest: bool) {
        let machine = made::machine(2, 2, 2, 1);
        let wishes: Vec<Wishes> = hints.iter().map(|h| wish("x", h.clone())).collect();
        let admit = |policy| decide(policy, closest, &machine, &wishes);
        prop_assert!(admit(TopologyPolicy::BestEffort).1);
        let (restricted, single) = (admit(TopologyPolicy::Restricted), admit(TopologyPolicy::SingleNumaNode));
        prop_assert!(!single.1 || restricted.1);
        if single.1 {
            prop_assert!(single.0.affinity.is_none_or(|mask| mask.count() == 1));
        }
        if restricted.1 {
            // Everybody who has a wish has it fulfilled by this very set.
            for hints in hints.iter().flatten() {
                prop_assert!(hints.iter().any(|h| h.preferred && h.affinity == restricted.0.affinity));
            }
        }
    }
}
