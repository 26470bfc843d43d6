//! Sets of completion indexes, as a job's status writes them: `1,3-5,7` (kubernetes/kubernetes,
//! `pkg/controller/job/indexed_job_utils.go`, `orderedIntervals`).

use std::cmp::Ordering;
use std::fmt;

/// A set of indexes as intervals that neither overlap nor touch, in order. Both ends belong to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// What a status or a rule says. Parts that cannot be read, and indexes from `completions` on, count for nothing.
    pub(super) fn parse(text: &str, completions: u32) -> Self {
        let parts = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && first < completions).then(|| (first, last.min(completions - 1)))
        });
        Self::of(parts.collect())
    }

    fn of(mut intervals: Vec<(u32, u32)>) -> Self {
        intervals.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// These, and single ones besides.
    pub(super) fn with(&self, more: impl IntoIterator<Item = u32>) -> Self {
        let more = more.into_iter().map(|index| (index, index));
        Self::of(self.0.iter().copied().chain(more).collect())
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(super) fn has(&self, index: u32) -> bool {
        let found = self.0.binary_search_by(|&(first, last)| match index {
            _ if index < first => Ordering::Greater,
            _ if index > last => Ordering::Less,
            _ => Ordering::Equal,
        });
        found.is_ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many indexes there are.
    pub(super) fn total(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many indexes are in both sets.
    pub(super) fn in_common(&self, other: &Self) -> u32 {
        let (mut total, mut mine, mut theirs) = (0, self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(a, b)), Some(&&(c, d))) = (mine.peek(), theirs.peek()) {
            total += (b.min(d) + 1).saturating_sub(a.max(c));
            if b <= d {
                mine.next();
            }
            if d <= b {
                theirs.next();
            }
        }
        total
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub(super) fn missing(&self, completions: u32, count: usize) -> Vec<u32> {
        let (mut found, mut next) = (Vec::new(), 0);
        for &(first, last) in self.0.iter().chain([&(completions, completions)]) {
            let room = count - found.len();
            found.extend((next..first.min(completions)).take(room));
            next = last.saturating_add(1).max(next);
        }
        found
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(first, last)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(of: &BTreeSet<u32>) -> Indexes {
        Indexes::default().with(of.iter().copied())
    }

    #[test]
    fn as_the_status_writes_them() {
        for (text, canonical) in [
            ("", ""),
            ("1,3-5,7", "1,3-5,7"),
            ("1-2", "1,2"),
            ("0,1,2", "0-2"),
            ("0-3,4", "0-4"),
            ("x,2,5-y,3-9", "2-9"),
            ("7-30", "7-9"),
            ("12", ""),
            ("5-2", ""),
        ] {
            assert_eq!(Indexes::parse(text, 10).to_string(), canonical, "{text}");
        }
        assert_eq!(Indexes::parse("0,3-4", 10).missing(7, 3), [1, 2, 5]);
        assert!(Indexes::parse("0", 0).is_empty());
    }

    proptest! {
        #[test]
        fn are_sets(a in prop::collection::btree_set(0u32..60, 0..40), b in prop::collection::btree_set(0u32..60, 0..40), count in 0usize..70) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(&Indexes::parse(&x.to_string(), 60), &x);
            prop_assert_eq!(x.total() as usize, a.len());
            prop_assert_eq!(x.union(&y), set(&(&a | &b)));
            prop_assert_eq!(x.in_common(&y) as usize, (&a & &b).len());
            for i in 0..60 {
                prop_assert_eq!(x.has(i), a.contains(&i));
            }
            let missing: Vec<u32> = (0..60).filter(|i| !a.contains(i)).take(count).collect();
            prop_assert_eq!(x.missing(60, count), missing);
        }

        #[test]
        fn parsing_never_panics(text in "[-,0-9x]{0,30}", completions in 0u32..100) {
            let read = Indexes::parse(&text, completions);
            prop_assert_eq!(Indexes::parse(&read.to_string(), completions), read);
        }
    }
}
