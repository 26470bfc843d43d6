//! How evenly pods of one sort are spread (`podtopologyspread/scoring.go`).

use crate::place::{Ask, counts, has_all, is_eligible};
use crate::pod::Spread;
use crate::view::{HOSTNAME, NOWHERE};

use super::FULL;

/// One constraint, ready to be asked of each node.
struct Wish<'a> {
    of: &'a [u32],
    counts: &'a [u32],
    /// Pods in each domain; the domains of host names are the nodes, whose own counts are enough.
    sums: Option<Vec<i64>>,
    weight: f64,
    skew: f64,
}

pub(super) fn add(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64], weight: i64) {
    let view = ask.view;
    let (wishes, own) = view.wishes(ask.pod);
    let columns = wishes.iter().filter_map(|wish| Some((wish, view.topologies.find(&wish.topology)?)));
    let columns: Vec<(&Spread, usize)> = columns.collect();
    if columns.is_empty() {
        return;
    }
    let keys: Vec<usize> = columns.iter().map(|(_, column)| *column).collect();
    // Nodes without some label are left out of what a pod has wished for itself.
    let ignored = |row: usize| own && !has_all(view, &keys, row);
    let scored = fitting.iter().filter(|row| !ignored(**row)).count();
    let wishes: Vec<Wish<'_>> = columns
        .into_iter()
        .map(|(spread, column)| {
            let of = view.topologies.get(column).of.as_slice();
            let on = counts(view, &spread.matcher, true);
            let (sums, size) = match spread.topology == *HOSTNAME {
                true => (None, scored),
                false => {
                    let (sums, size) = sums(ask, spread, of, on, fitting, &ignored);
                    (Some(sums), size)
                }
            };
            let (weight, skew) = (((size + 2) as f64).ln(), (spread.max_skew - 1) as f64);
            Wish { of, counts: on, sums, weight, skew }
        })
        .collect();
    let crowd = |row: usize| {
        let mut score = 0.0;
        for wish in &wishes {
            let domain = wish.of[row];
            if domain == NOWHERE {
                continue;
            }
            let count = match &wish.sums {
                Some(sums) => sums[domain as usize],
                None => i64::from(wish.counts[row]),
            };
            score += count as f64 * wish.weight + wish.skew;
        }
        score.round() as i64
    };
    let crowds: Vec<Option<i64>> = fitting.iter().map(|row| (!ignored(*row)).then(|| crowd(*row))).collect();
    let least = crowds.iter().flatten().min().copied().unwrap_or(0);
    let most = crowds.iter().flatten().max().copied().unwrap_or(0);
    super::add(total, weight, |place| match crowds[place] {
        None => 0,
        Some(_) if most == 0 => FULL,
        Some(crowd) => FULL * (most + least - crowd) / most,
    });
}

/// The pods in each domain that a fitting node belongs to, and how many such domains there are.
fn sums(
    ask: &Ask<'_>,
    spread: &Spread,
    of: &[u32],
    on: &[u32],
    fitting: &[usize],
    ignored: &impl Fn(usize) -> bool,
) -> (Vec<i64>, usize) {
    let domains = of.iter().filter(|d| **d != NOWHERE).max().map_or(0, |d| *d as usize + 1);
    let mut seen = vec![false; domains];
    // Those that belong nowhere count as one domain.
    let (mut size, mut nowhere) = (0, false);
    for row in fitting.iter().filter(|row| !ignored(**row)) {
        let seen = match of[*row] {
            NOWHERE => &mut nowhere,
            domain => &mut seen[domain as usize],
        };
        size += usize::from(!std::mem::replace(seen, true));
    }
    let mut sums = vec![0; domains];
    for (row, count) in on.iter().enumerate().filter(|(_, count)| **count > 0) {
        let domain = of[row];
        if domain != NOWHERE && seen[domain as usize] && !ignored(row) && is_eligible(ask, spread, row) {
            sums[domain as usize] += i64::from(*count);
        }
    }
    (sums, size)
}
