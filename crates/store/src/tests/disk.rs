use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use crate::backend::{AppendError, Backend, Compaction, Entry, Floors, Position, Senseless};
use crate::error::{OpenError, WriteFailure};
use crate::tests::tight;
use crate::{Options, Store};

/// A disk in memory that outlives the stores on it and does what the test says.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    log: BTreeMap<Position, Entry>,
    floors: Floors,
    faults: VecDeque<Fault>,
    appends: Vec<usize>,
    compactions: usize,
    gate: Option<Gate>,
}

/// What shall happen at the next append.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It works.
    None,
    /// There is no room.
    Full,
    /// The flush fails, and nothing is there after a restart.
    Lost,
    /// The flush fails, and all is there after a restart.
    Kept,
    /// The thread dies.
    Panic,
}

struct Gate {
    arrived: Sender<usize>,
    go: Receiver<()>,
}

/// The test's end of a gate: each append says how many entries it brings, and waits.
pub(super) struct Keeper {
    pub(super) arrived: Receiver<usize>,
    pub(super) go: Sender<()>,
}

impl Disk {
    pub(super) fn open(&self) -> Store {
        self.open_with(tight())
    }

    pub(super) fn open_with(&self, options: Options) -> Store {
        Store::with_backend(Box::new(self.clone()), options).expect("open")
    }

    pub(super) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().faults = faults.into_iter().collect();
    }

    pub(super) fn gate(&self) -> Keeper {
        let ((arrive, arrived), (go, pass)) = (channel(), channel());
        self.0.lock().gate = Some(Gate { arrived: arrive, go: pass });
        Keeper { arrived, go }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().log.len()
    }

    pub(super) fn compactions(&self) -> usize {
        self.0.lock().compactions
    }

    pub(super) fn appends(&self) -> Vec<usize> {
        self.0.lock().appends.clone()
    }

    pub(super) fn remove(&self, revision: u64) {
        self.0.lock().log.retain(|position, _| position.revision != revision);
    }
}

impl Backend for Disk {
    fn floors(&mut self) -> Result<Floors, OpenError> {
        Ok(self.0.lock().floors.clone())
    }

    fn replay(&mut self, each: &mut dyn FnMut(Entry) -> Result<(), Senseless>) -> Result<(), OpenError> {
        let log = self.0.lock().log.clone();
        let corrupt =
            |error: Senseless| OpenError::Corrupt { path: "memory".into(), reason: error.to_string() };
        log.into_values().try_for_each(each).map_err(corrupt)
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), AppendError> {
        // Not under the lock: the test looks around while the append waits.
        let gate = self.0.lock().gate.take();
        if let Some(gate) = gate
            && gate.arrived.send(entries.len()).is_ok()
        {
            // An error means that the test has no more use for the gate.
            if gate.go.recv().is_ok() {
                self.0.lock().gate = Some(gate);
            }
        }
        let mut inside = self.0.lock();
        let fault = inside.faults.pop_front().unwrap_or(Fault::None);
        let broken = || WriteFailure { attempt: "flush", reason: "input/output error".to_owned() };
        match fault {
            Fault::Full => return Err(AppendError::Full { available: 1, needed: 2 }),
            Fault::Lost => return Err(broken().into()),
            Fault::Panic => panic!("a planned panic"),
            Fault::None | Fault::Kept => {}
        }
        inside.appends.push(entries.len());
        inside.log.extend(entries.iter().map(|entry| (entry.position, entry.clone())));
        if matches!(fault, Fault::Kept) { Err(broken().into()) } else { Ok(()) }
    }

    fn compact(&mut self, compaction: &Compaction) -> Result<(), WriteFailure> {
        let mut inside = self.0.lock();
        inside.compactions += 1;
        inside.floors.extend(compaction.floors.clone());
        inside.log.retain(|position, _| !compaction.forget.contains(position));
        Ok(())
    }

    fn close(self: Box<Self>) {}
}
