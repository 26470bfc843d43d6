//! A store in one file.
//!
//! ```text
//! "gantry backup 1\n" | revision (8) | records … | 0 (4) | number of records (8) | XXH3 of all before it (16)
//! ```
//! A record is its length (4), its revision (8) and its entry as in the log (`codec.rs`), sealed if it is in the store.
//! Numbers are little-endian.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::backend::{Backend, Change, Compaction, Entry, Floors, Position};
use crate::codec;
use crate::embedded::Embedded;
use crate::error::{CommitError, OpenError};
use crate::options::Options;
use crate::record::{Record, Revision};
use crate::recover::recover;
use crate::seal::{Seal, SealError};
use crate::store::Store;
use crate::txn::{Expect, Op, Txn};

const MAGIC: &[u8] = b"gantry backup 1\n";
/// Etcd takes transactions of 128 operations and 1.5 MB.
const BATCH_OPS: usize = 100;
const BATCH_BYTES: usize = 700_000;

/// Why a backup could not be made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It could not be written.
    #[error("cannot write the backup: {0}")]
    Write(#[from] io::Error),
    /// A record cannot be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It is not whole.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// Something is there already.
    #[error("there are {0} objects already")]
    NotEmpty(usize),
    /// The place it shall go to cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record could not be written there.
    #[error("cannot put the records back: {0}")]
    Commit(#[from] CommitError),
    /// The folder cannot be replaced.
    #[error("cannot replace {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// All records as of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// The revision.
    pub revision: Revision,
    /// Tables and records.
    pub records: Vec<(Arc<str>, Arc<Record>)>,
}

impl Store {
    /// Everything as it is now.
    pub fn export(&self) -> Backup {
        let state = self.shared.read();
        let tables = state.tables.iter();
        let records = tables
            .flat_map(|(name, table)| table.records.values().map(|r| (name.clone(), r.clone())))
            .collect();
        Backup { revision: state.revision, records }
    }

    /// Writes everything that a backup holds as if it were new; nothing may be there. Revisions are new ones.
    pub async fn import(&self, backup: &Backup) -> Result<(), BackupError> {
        let there = self.stats().records;
        if there > 0 {
            return Err(BackupError::NotEmpty(there));
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        for (table, record) in &backup.records {
            let value = record.template().ok_or_else(|| {
                BackupError::Damaged(format!("the revision of {table} {:?} cannot be found", record.key))
            })?;
            if !ops.is_empty() && (ops.len() >= BATCH_OPS || bytes + value.bytes.len() > BATCH_BYTES) {
                self.commit(Txn { ops: std::mem::take(&mut ops) }).await?;
                bytes = 0;
            }
            bytes += value.bytes.len() + 512;
            let (table, key) = (Arc::clone(table), Arc::clone(&record.key));
            ops.push(Op::Put { table, key, value, terms: record.terms.clone(), expect: Expect::Absent });
        }
        self.commit(Txn { ops }).await?;
        Ok(())
    }

    /// Removes everything.
    pub async fn clear(&self) -> Result<(), BackupError> {
        let everything = self.export().records;
        for part in everything.chunks(BATCH_OPS) {
            let delete = |(table, record): &(Arc<str>, Arc<Record>)| Op::Delete {
                table: Arc::clone(table),
                key: Arc::clone(&record.key),
                value: None,
                expect: Expect::Revision(record.revision),
            };
            self.commit(Txn { ops: part.iter().map(delete).collect() }).await?;
        }
        Ok(())
    }

    /// Writes every record of a table anew, so that it is sealed as it would be today; gives their number. One that
    /// somebody else writes meanwhile needs it no more.
    pub async fn rewrite(&self, table: &str) -> Result<usize, BackupError> {
        let mut count = 0;
        for record in self.snapshot(table).records.values() {
            let value = record.template().ok_or_else(|| {
                BackupError::Damaged(format!("the revision of {table} {:?} cannot be found", record.key))
            })?;
            let (key, terms) = (Arc::clone(&record.key), record.terms.clone());
            let expect = Expect::Revision(record.revision);
            match self.commit(Op::Put { table: table.into(), key, value, terms, expect }.into()).await {
                Ok(_) | Err(CommitError::Conflict { .. } | CommitError::NotFound { .. }) => count += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    /// Writes a backup, its records sealed as they are in this store.
    pub fn backup(&self, out: &mut dyn Write) -> Result<Backup, BackupError> {
        let backup = self.export();
        backup.write(self.seal.as_deref(), out)?;
        Ok(backup)
    }
}

impl Backup {
    /// Writes the file.
    pub fn write(&self, seal: Option<&dyn Seal>, out: &mut dyn Write) -> Result<(), BackupError> {
        let mut sum = Xxh3::new();
        let mut put = |bytes: &[u8]| {
            sum.update(bytes);
            out.write_all(bytes)
        };
        put(MAGIC)?;
        put(&self.revision.to_le_bytes())?;
        let mut bytes = Vec::new();
        for (table, record) in &self.records {
            let change = Change::Put(Arc::clone(record));
            let entry = Entry { position: Position::of(record), table: Arc::clone(table), change };
            codec::encode(&entry, seal, &mut bytes)?;
            put(&u32::try_from(bytes.len() + 8).unwrap_or(u32::MAX).to_le_bytes())?;
            put(&record.revision.to_le_bytes())?;
            put(&bytes)?;
        }
        put(&0u32.to_le_bytes())?;
        put(&(self.records.len() as u64).to_le_bytes())?;
        let digest = sum.digest128();
        out.write_all(&digest.to_le_bytes())?;
        Ok(out.flush()?)
    }

    /// Reads a file; one that is not whole is refused.
    pub fn read(bytes: &[u8], seal: Option<&dyn Seal>) -> Result<Self, BackupError> {
        let damaged = |why: &str| BackupError::Damaged(why.to_owned());
        let Some((body, digest)) = bytes.split_last_chunk::<16>().filter(|_| bytes.starts_with(MAGIC)) else {
            return Err(damaged("it does not begin as a backup does"));
        };
        let mut sum = Xxh3::new();
        sum.update(body);
        if sum.digest128() != u128::from_le_bytes(*digest) {
            return Err(damaged("its checksum is wrong"));
        }
        let short = |_| damaged("it ends too early");
        let mut rest = codec::Reader(&body[MAGIC.len().min(body.len())..]);
        let revision = u64::from_le_bytes(rest.array().map_err(short)?);
        let mut records = Vec::new();
        loop {
            let length = u32::from_le_bytes(rest.array().map_err(short)?) as usize;
            if length == 0 {
                break;
            }
            let at = u64::from_le_bytes(rest.array().map_err(short)?);
            let bytes = rest.take(length.saturating_sub(8)).map_err(short)?;
            let position = Position { revision: at, index: 0 };
            let entry =
                codec::decode(position, bytes, seal).map_err(|e| damaged(&format!("revision {at}: {e}")))?;
            let Change::Put(record) = entry.change else { return Err(damaged("it holds a removal")) };
            records.push((entry.table, record));
        }
        if u64::from_le_bytes(rest.array().map_err(short)?) != records.len() as u64 {
            return Err(damaged("it holds another number of records than it says"));
        }
        Ok(Self { revision, records })
    }

    /// Makes a store of it in the folder `path` of this machine, with all revisions as they were. What is there is
    /// replaced only if `force` says so, and once the new one is complete.
    pub fn place(&self, path: &Path, options: &Options, force: bool) -> Result<(), BackupError> {
        let folder = |source| BackupError::Folder { path: path.to_owned(), source };
        if path.join("db").exists() {
            let there = count(path, options);
            match there {
                Err(error @ (OpenError::Locked { .. } | OpenError::Permission { .. })) => {
                    return Err(error.into());
                }
                Ok(count) if count > 0 && !force => return Err(BackupError::NotEmpty(count)),
                Err(error) if !force => return Err(error.into()),
                _ => {}
            }
        }
        let draft = path.with_extension("restored");
        match std::fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(folder(error)),
            _ => {}
        }
        let mut backend: Box<dyn Backend> = Box::new(Embedded::open(&draft, options)?);
        backend
            .append(&self.entries())
            .map_err(|error| BackupError::Write(io::Error::other(error.to_string())))?;
        let tables = self.records.iter().map(|(table, _)| (Arc::clone(table), self.revision));
        // A floor even if there is no record, for the revision.
        let floors: Floors = tables.chain([(Arc::from("restored"), self.revision)]).collect();
        let written = backend.compact(&Compaction { forget: Vec::new(), floors });
        written.map_err(|error| BackupError::Write(io::Error::other(error.to_string())))?;
        backend.close();
        // The old one is kept until the new one is in its place.
        let old = path.with_extension("replaced");
        let _ = std::fs::remove_dir_all(&old);
        if path.exists() {
            std::fs::rename(path, &old).map_err(folder)?;
        }
        std::fs::rename(&draft, path).map_err(folder)?;
        let _ = std::fs::remove_dir_all(&old);
        Ok(())
    }

    /// The log that such a store would have.
    fn entries(&self) -> Vec<Entry> {
        let mut sorted: Vec<_> = self.records.iter().collect();
        sorted.sort_by_key(|(_, record)| record.revision);
        let mut last = Position { revision: 0, index: 0 };
        let entry = |(table, record): &(Arc<str>, Arc<Record>)| {
            let index = if record.revision == last.revision { last.index + 1 } else { 0 };
            last = Position { revision: record.revision, index };
            let record = Record { index, ..Record::clone(record) };
            Entry { position: last, table: Arc::clone(table), change: Change::Put(Arc::new(record)) }
        };
        sorted.into_iter().map(entry).collect()
    }
}

/// How many records the store in a folder has.
fn count(path: &Path, options: &Options) -> Result<usize, OpenError> {
    let mut backend = Box::new(Embedded::open(path, options)?);
    let found = recover(&mut *backend, options);
    backend.close();
    Ok(found?.0.read().tables.values().map(|table| table.records.len()).sum())
}
