//! What the processes of one server take.

use std::path::Path;
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

/// Time on a processor, of threads that have ended, too (proc(5): the 14th and 15th field, in hundredths of a second).
fn busy(process: &Path) -> Duration {
    let text = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The second field, the program's name, may hold spaces; it ends with the last bracket.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}
