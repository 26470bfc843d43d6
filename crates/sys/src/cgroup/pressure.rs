use std::path::Path;

use super::Group;

/// How long processes stood still for want of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// In all, in microseconds.
    pub total_us: u64,
    /// The share of the last 10 seconds, in hundredths of a percent.
    pub avg10: u64,
    /// The same of the last 60 seconds.
    pub avg60: u64,
    /// The same of the last 300 seconds.
    pub avg300: u64,
}

/// How much was waited for one thing (the kernel's "pressure stall information").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one process stood still.
    pub some: Stall,
    /// All did that had something to do.
    pub full: Stall,
}

/// How much was waited for what; absent where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// The CPU.
    pub cpu: Option<Pressure>,
    /// Memory.
    pub memory: Option<Pressure>,
    /// Disks.
    pub io: Option<Pressure>,
}

impl Pressures {
    /// Those of the whole machine.
    pub fn of_machine() -> Self {
        Self::read(|what| Path::new("/proc/pressure").join(what))
    }

    fn read<P: AsRef<Path>>(file: impl Fn(&str) -> P) -> Self {
        let one = |what: &str| parse(&std::fs::read_to_string(file(what)).ok()?);
        Self { cpu: one("cpu"), memory: one("memory"), io: one("io") }
    }
}

impl Group {
    /// How much was waited in it and the cgroups below (v2 only).
    pub(super) fn pressures(&self) -> Pressures {
        let (true, Some(hierarchy)) = (self.all.is_v2(), self.all.resource().first()) else {
            return Pressures::default();
        };
        let dir = self.dir(hierarchy);
        Pressures::read(|what| dir.join(format!("{what}.pressure")))
    }
}

/// Lines of the form `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. Kernels before 5.13 have no `full` for the CPU.
fn parse(text: &str) -> Option<Pressure> {
    let stall = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let value = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        let share = |key: &str| Some((value(key)?.parse::<f64>().ok()? * 100.0).round() as u64);
        Some(Stall {
            total_us: value("total")?.trim().parse().ok()?,
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_read() {
        let text = "some avg10=1.29 avg60=0.50 avg300=100.00 total=123456\nfull avg10=0.00 avg60=0.07 avg300=0.00 total=9\n";
        let some = Stall { total_us: 123_456, avg10: 129, avg60: 50, avg300: 10_000 };
        let full = Stall { total_us: 9, avg60: 7, ..Stall::default() };
        assert_eq!(parse(text), Some(Pressure { some, full }));
        let old = text.lines().next().unwrap();
        assert_eq!(parse(old), Some(Pressure { some, full: Stall::default() }));
        assert_eq!(parse(""), None);
        assert_eq!(parse("some avg10=x total=1"), None);
    }
}
