use std::fmt;

/// A set of NUMA nodes (kubernetes/kubernetes, `pkg/kubelet/cm/topologymanager/bitmask/bitmask.go`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mask(u64);

impl Mask {
    /// These nodes; numbers of 64 and more are left out, as no machine has them.
    pub(crate) fn of(nodes: impl IntoIterator<Item = usize>) -> Self {
        Self(nodes.into_iter().filter(|n| *n < 64).fold(0, |bits, node| bits | 1 << node))
    }

    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn has(self, node: usize) -> bool {
        node < 64 && self.0 >> node & 1 == 1
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it holds any of these.
    pub(crate) fn any(self, nodes: &[usize]) -> bool {
        nodes.iter().any(|node| self.has(*node))
    }

    pub(crate) fn nodes(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |node| self.has(*node))
    }

    /// Whether it has fewer nodes, or as many and lower ones.
    pub(crate) fn is_narrower_than(self, other: Self) -> bool {
        match self.count().cmp(&other.count()) {
            std::cmp::Ordering::Equal => self.0 < other.0,
            order => order.is_lt(),
        }
    }

    /// All sets of one and more of these nodes, the smaller ones first.
    pub(crate) fn all_of(nodes: &[usize]) -> Vec<Self> {
        let mut masks: Vec<Self> = (1u64..1 << nodes.len().min(16))
            .map(|bits| Self::of(nodes.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, n)| *n)))
            .collect();
        masks.sort_by_key(|mask| (mask.count(), mask.nodes().collect::<Vec<_>>()));
        masks
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.nodes()).finish()
    }
}
