//! Signals, by number of the interface, which is not the kernel's.

use crate::wire::enums;

enums! {
    /// What a container is asked to end by. Names are the kernel's.
    Signal {
        RuntimeDefault,
        SigAbrt = 1, SigAlrm = 2, SigBus = 3, SigChld = 4, SigCld = 5, SigCont = 6, SigFpe = 7, SigHup = 8,
        SigIll = 9, SigInt = 10, SigIo = 11, SigIot = 12, SigKill = 13, SigPipe = 14, SigPoll = 15,
        SigProf = 16, SigPwr = 17, SigQuit = 18, SigSegv = 19, SigStkflt = 20, SigStop = 21, SigSys = 22,
        SigTerm = 23, SigTrap = 24, SigTstp = 25, SigTtin = 26, SigTtou = 27, SigUrg = 28, SigUsr1 = 29,
        SigUsr2 = 30, SigVtalrm = 31, SigWinch = 32, SigXcpu = 33, SigXfsz = 34, SigRtMin = 35,
        SigRtMinPlus1 = 36, SigRtMinPlus2 = 37, SigRtMinPlus3 = 38, SigRtMinPlus4 = 39, SigRtMinPlus5 = 40,
        SigRtMinPlus6 = 41, SigRtMinPlus7 = 42, SigRtMinPlus8 = 43, SigRtMinPlus9 = 44, SigRtMinPlus10 = 45,
        SigRtMinPlus11 = 46, SigRtMinPlus12 = 47, SigRtMinPlus13 = 48, SigRtMinPlus14 = 49,
        SigRtMinPlus15 = 50, SigRtMaxMinus14 = 51, SigRtMaxMinus13 = 52, SigRtMaxMinus12 = 53,
        SigRtMaxMinus11 = 54, SigRtMaxMinus10 = 55, SigRtMaxMinus9 = 56, SigRtMaxMinus8 = 57,
        SigRtMaxMinus7 = 58, SigRtMaxMinus6 = 59, SigRtMaxMinus5 = 60, SigRtMaxMinus4 = 61,
        SigRtMaxMinus3 = 62, SigRtMaxMinus2 = 63, SigRtMaxMinus1 = 64, SigRtMax = 65,
    }
}

impl Signal {
    /// The signal's name as specifications and images write it, `SIGTERM` and `SIGRTMIN+3`; nothing for the default.
    pub fn name(self) -> Option<String> {
        let words = format!("{self:?}").to_uppercase();
        let words = words.strip_prefix("SIG")?.replace("PLUS", "+").replace("MINUS", "-");
        Some(format!("SIG{words}"))
    }

    /// The signal of such a name, with or without `SIG`; the default for one that is not known.
    pub fn of(name: &str) -> Self {
        let name = name.trim().to_uppercase();
        let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
        Self::ALL.iter().copied().find(|signal| signal.name().is_some_and(|n| n == name)).unwrap_or_default()
    }
}
