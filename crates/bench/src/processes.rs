//! What the processes of one server take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Outcome;

/// The server and its shims.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The sum of what is resident, in megabytes; shared pages count in each process.
    pub resident: f64,
    /// The same with shared pages counted once, in megabytes.
    pub shared: f64,
    /// The share of each shim, in megabytes: shared pages count by how many share them.
    pub shims: Vec<f64>,
    /// Time on a processor since the start.
    pub busy: Duration,
}

impl Memory {
    /// Of `gantry` and the shims, as far as their arguments name something inside `folder`.
    pub fn of(gantry: &Path, folder: &Path) -> Outcome<Self> {
        let mut memory = Self::default();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(arguments) = ours(&path, gantry, folder) else { continue };
            // It may end meanwhile.
            let Ok(rollup) = std::fs::read_to_string(path.join("smaps_rollup")) else { continue };
            memory.resident += megabytes(&rollup, "Rss:");
            memory.shared += megabytes(&rollup, "Pss:");
            memory.busy += busy(&path);
            if arguments.get(1).is_some_and(|a| a == "shim") {
                memory.shims.push(megabytes(&rollup, "Pss:"));
            }
        }
        Ok(memory)
    }
}

fn ours(process: &Path, gantry: &Path, folder: &Path) -> Option<Vec<String>> {
    let program = std::fs::read_link(process.join("exe")).ok()?;
    let arguments = std::fs::read(process.join("cmdline")).ok()?;
    let arguments: Vec<String> =
        arguments.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    let folder = folder.to_str()?;
    // A shim's program has no path: it is run out of a mount that is nowhere.
    let is_shim = arguments.get(1).is_some_and(|a| a == "shim");
    ((program == gantry || is_shim) && arguments.iter().any(|a| a.contains(folder))).then_some(arguments)
}

fn megabytes(rollup: &str, field: &str) -> f64 {
    let line = rollup.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Nanoseconds on a processor, thread by thread.
fn busy(process: &Path) -> Duration {
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let one = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(|t| one(t.path())).sum())
}
