//! `docs/conformance.md`: each entry of upstream's suite, the check that covers it, and what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Check;
use crate::cluster::root;

/// A check, and whether it passed.
pub type Outcome = (&'static Check, bool);

const UPSTREAM: &str = include_str!("upstream.txt");

const HEAD: &str = "\
# Conformance

What upstream's conformance suite demands, entry by entry, and the check of ours (`tests/conformance/`) that shows it on
a real cluster. `make conformance` runs them all and writes this page; `make test` fails when it is not true any more.
The list of entries is that of Kubernetes 1.20; later releases only add to it.

";

/// Whether the page says what was found; if not, why. Writes it if that is asked for.
pub fn agrees(outcomes: &[Outcome]) -> Result<(), String> {
    let (found, missing) = page(outcomes);
    if !missing.is_empty() {
        return Err(format!("no entries of upstream.txt: {missing:?}"));
    }
    let path = root().join("docs/conformance.md");
    if std::env::var_os("WRITE_TABLE").is_some() {
        std::fs::write(&path, &found).expect("a writable page");
    }
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    if said == found {
        Ok(())
    } else {
        Err("not what this run found: `make conformance` writes it".to_owned())
    }
}

/// The page, and what checks claim to cover that is no entry.
fn page(outcomes: &[Outcome]) -> (String, Vec<&'static str>) {
    let mut areas: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (area, entry) in UPSTREAM.lines().filter_map(|line| line.split_once('\t')) {
        areas.entry(area).or_default().push(entry);
    }
    let mut covered: BTreeMap<&str, Vec<Outcome>> = BTreeMap::new();
    for (check, ok) in outcomes {
        for entry in check.covers {
            covered.entry(entry).or_default().push((check, *ok));
        }
    }
    covered.values_mut().for_each(|found| found.sort_by_key(|(check, _)| check.name));
    let known = |entry: &str| areas.values().flatten().any(|e| *e == entry);
    let missing = covered.keys().copied().filter(|entry| !known(entry)).collect();
    let (mut holds, mut all) = (0, 0);
    let mut body = String::new();
    for (area, entries) in &areas {
        let _ = write!(body, "\n## {area}\n\n| entry | check | holds |\n|---|---|---|\n");
        for entry in entries {
            let found = covered.get(entry).map(Vec::as_slice).unwrap_or_default();
            let names: Vec<String> =
                found.iter().map(|(check, _)| format!("`{}`", short(check.name))).collect();
            let ok = !found.is_empty() && found.iter().all(|(_, ok)| *ok);
            let verdict = match (found.is_empty(), ok) {
                (true, _) => "not shown yet",
                (_, true) => "yes",
                (_, false) => "**no**",
            };
            let _ = writeln!(body, "| {entry} | {} | {verdict} |", names.join(", "));
            holds += usize::from(ok);
            all += 1;
        }
    }
    (format!("{HEAD}{holds} of {all} entries hold.\n{body}"), missing)
}

fn short(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}
