//! The log on this machine's disk, in one keyspace of a `fjall` database.
//!
//! | key | value |
//! |---|---|
//! | `f` + table | the table's floor |
//! | `l` + revision + index, big-endian | an entry (`codec.rs`) |
//! | `v` | the format of all this |

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Slice};

use crate::backend::{AppendError, Backend, Compaction, Entry, Floors, Position, Senseless};
use crate::codec;
use crate::error::{OpenError, WriteFailure};
use crate::folder::{Folder, refused};
use crate::journal::{JournalError, mend};
use crate::options::Options;
use crate::seal::Seal;

const FORMAT: &[u8] = b"1";
const FORMAT_KEY: &[u8] = b"v";
const FLOOR: u8 = b'f';
const LOG: u8 = b'l';
const KEYSPACE: &str = "log";
/// So many entries go from reading to replaying at once.
const BATCH: usize = 256;

/// The backend that needs nothing but a folder.
pub(crate) struct Embedded {
    log: Keyspace,
    database: Database,
    scratch: Vec<u8>,
    reserve: u64,
    seal: Option<Arc<dyn Seal>>,
    // Last: the lock goes after the database is closed.
    folder: Folder,
}

impl Embedded {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let folder = Folder::lock(path)?;
        let place = path.join("db");
        let exists = place.try_exists().map_err(|error| refused(path, "look into", error))?;
        if !exists {
            begin(&folder, &place, options)?;
        }
        mend(&place).map_err(|error| match error {
            JournalError::Io(error) => unreadable(path, error),
            JournalError::Damaged { .. } => corrupt(path, error),
        })?;
        let (database, log) = guard(path, || {
            let database = database(&place)?;
            let log = database.keyspace_exists(KEYSPACE).then(|| keyspace(&database, options)).transpose()?;
            Ok((database, log))
        })?;
        let log = log.ok_or_else(|| corrupt(path, "it holds no log"))?;
        let format =
            guard(path, || log.get(FORMAT_KEY))?.ok_or_else(|| corrupt(path, "it names no format"))?;
        if *format != *FORMAT {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Err(OpenError::Format {
                path: path.to_owned(),
                found: text(&format),
                known: text(FORMAT),
            });
        }
        Ok(Self {
            log,
            database,
            scratch: Vec::new(),
            reserve: options.reserve_bytes,
            seal: options.seal.clone(),
            folder,
        })
    }
}

/// Makes an empty database beside its place and moves it there whole, so that a crash leaves no half of one.
fn begin(folder: &Folder, place: &Path, options: &Options) -> Result<(), OpenError> {
    let path = folder.path();
    let draft: PathBuf = path.join("db.new");
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(refused(path, "clear a half-made database out of", error));
        }
        _ => {}
    }
    guard(path, || {
        let database = database(&draft)?;
        keyspace(&database, options)?.insert(FORMAT_KEY, FORMAT)?;
        database.persist(PersistMode::SyncAll)
    })?;
    fs::rename(&draft, place)
        .and_then(|()| folder.sync())
        .map_err(|error| refused(path, "put a new database into", error))
}

impl Embedded {
    /// Reads the log and hands it on in order, as long as somebody takes it.
    fn read(&self, hand_on: impl Fn(Vec<Entry>) -> bool) -> Result<(), OpenError> {
        let path = self.folder.path();
        let mut entries = guard(path, || Ok(self.log.prefix([LOG])))?;
        let mut batch = Vec::with_capacity(BATCH);
        while let Some((key, value)) =
            guard(path, || entries.next().map(fjall::Guard::into_inner).transpose())?
        {
            let position = position(&key).ok_or_else(|| corrupt(path, "a position is unreadable"))?;
            let entry = codec::decode(position, &value, self.seal.as_deref())
                .map_err(|error| corrupt(path, format!("revision {}: {error}", position.revision)))?;
            batch.push(entry);
            if batch.len() == BATCH && !hand_on(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))) {
                return Ok(());
            }
        }
        hand_on(batch);
        Ok(())
    }
}

fn database(place: &Path) -> fjall::Result<Database> {
    Database::builder(place)
        // Memory holds everything: blocks are read once at the start, and then only to be merged.
        .cache_size(256 << 10)
        .worker_threads(1)
        .max_journaling_size(64 << 20)
        .manual_journal_persist(true)
        .open()
}

fn keyspace(database: &Database, options: &Options) -> fjall::Result<Keyspace> {
    database.keyspace(KEYSPACE, || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.write_buffer_bytes)
            .manual_journal_persist(true)
            .data_block_compression_policy(CompressionPolicy::disabled())
            // Keys are never looked up, only walked through.
            .filter_policy(FilterPolicy::all(FilterPolicyEntry::None))
            .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(8 << 20)))
    })
}

impl Backend for Embedded {
    fn floors(&mut self) -> Result<Floors, OpenError> {
        let path = self.folder.path();
        let found: Vec<_> = guard(path, || {
            self.log.prefix([FLOOR]).map(fjall::Guard::into_inner).collect::<fjall::Result<_>>()
        })?;
        let floor = |(key, value): &(Slice, Slice)| {
            let table = std::str::from_utf8(key.get(1..)?).ok()?;
            Some((Arc::from(table), u64::from_be_bytes((**value).try_into().ok()?)))
        };
        found.iter().map(|pair| floor(pair).ok_or_else(|| corrupt(path, "a floor is unreadable"))).collect()
    }

    fn replay(&mut self, each: &mut dyn FnMut(Entry) -> Result<(), Senseless>) -> Result<(), OpenError> {
        let this = &*self;
        // Reading is half of the work, and what `each` does the other: a start is what one waits for.
        std::thread::scope(|scope| {
            let (sender, batches) = mpsc::sync_channel::<Result<Vec<Entry>, OpenError>>(4);
            scope.spawn(move || {
                if let Err(error) = this.read(|batch| sender.send(Ok(batch)).is_ok()) {
                    // Nobody listens who has found something wrong already.
                    let _ = sender.send(Err(error));
                }
            });
            for batch in batches {
                for entry in batch? {
                    each(entry).map_err(|error| corrupt(this.folder.path(), error))?;
                }
            }
            Ok(())
        })
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), AppendError> {
        let failed = |error| broken("append to the log", error);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut bytes = 0;
        for entry in entries {
            codec::encode(entry, self.seal.as_deref(), &mut self.scratch).map_err(AppendError::Sealing)?;
            bytes += self.scratch.len() as u64;
            batch.insert(&self.log, log_key(entry.position), Slice::from(&*self.scratch));
        }
        self.scratch.shrink_to(1 << 20);
        // A full disk in the middle of a write is past mending without opening anew, so it does not come to that.
        let available = self.folder.available().map_err(|error| failed(error.into()))?;
        let needed = self.reserve.saturating_add(bytes);
        if available < needed {
            return Err(AppendError::Full { available, needed });
        }
        batch.commit().map_err(failed)?;
        Ok(())
    }

    fn compact(&mut self, compaction: &Compaction) -> Result<(), WriteFailure> {
        // Flushed like any other: only the journal's last batch may ever be half written (`journal.rs`).
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (table, floor) in &compaction.floors {
            let mut key = vec![FLOOR];
            key.extend_from_slice(table.as_bytes());
            batch.insert(&self.log, key, floor.to_be_bytes());
        }
        for position in &compaction.forget {
            batch.remove(&self.log, log_key(*position));
        }
        batch.commit().map_err(|error| broken("compact the log", error))
    }

    fn close(self: Box<Self>) {
        if let Err(error) = self.database.persist(PersistMode::SyncAll) {
            // What was acknowledged is durable without it.
            tracing::warn!(%error, "cannot flush the log at the end");
        }
    }
}

fn log_key(Position { revision, index }: Position) -> [u8; 13] {
    let mut key = [LOG; 13];
    key[1..9].copy_from_slice(&revision.to_be_bytes());
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

fn position(key: &[u8]) -> Option<Position> {
    let (revision, index) = key.get(1..)?.split_at_checked(8)?;
    let revision = u64::from_be_bytes(revision.try_into().ok()?);
    Some(Position { revision, index: u32::from_be_bytes(index.try_into().ok()?) })
}

fn broken(attempt: &'static str, error: fjall::Error) -> WriteFailure {
    let reason = match error {
        fjall::Error::Poisoned => "the database could not write in the background".to_owned(),
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => error.to_string(),
        other => other.to_string(),
    };
    WriteFailure { attempt, reason }
}

fn corrupt(path: &Path, reason: impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), reason: reason.to_string() }
}

/// Runs a step of opening. The database panics over some of what it cannot understand; that is corruption too.
fn guard<T>(path: &Path, step: impl FnOnce() -> fjall::Result<T>) -> Result<T, OpenError> {
    let outcome = catch_unwind(AssertUnwindSafe(step));
    let error = match outcome {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(corrupt(path, "the database cannot make sense of its files")),
    };
    Err(match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => unreadable(path, error),
        fjall::Error::Locked => OpenError::Locked { path: path.to_owned(), pid: None },
        fjall::Error::InvalidVersion(found) => OpenError::Format {
            path: path.to_owned(),
            found: found.map_or_else(|| "unknown".to_owned(), |version| format!("{version:?}")),
            known: "V3".to_owned(),
        },
        other => corrupt(path, other),
    })
}

/// What it means when a file cannot be read.
fn unreadable(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::NotFound => corrupt(path, "a file is missing"),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => corrupt(path, error),
        _ => refused(path, "read", error),
    }
}
