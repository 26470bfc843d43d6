/// The least and the most that something costs, or that its size is. Sums and products stop at the largest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostEstimate {
    /// At least this.
    pub min: u64,
    /// At most this; `u64::MAX` is without bound.
    pub max: u64,
}

impl CostEstimate {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };
    pub(crate) const ZERO: Self = Self::fixed(0);
    pub(crate) const ONE: Self = Self::fixed(1);

    pub(crate) const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    pub(crate) const fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self::new(self.min.saturating_add(other.min), self.max.saturating_add(other.max))
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self::new(self.min.saturating_mul(other.min), self.max.saturating_mul(other.max))
    }

    /// Times a factor, rounded up.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self::new(scale(self.min, factor), scale(self.max, factor))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self::new(self.min.min(other.min), self.max.max(other.max))
    }
}

/// Casting saturates, which is what is wanted.
pub(crate) fn scale(n: u64, factor: f64) -> u64 {
    (n as f64 * factor).ceil() as u64
}
