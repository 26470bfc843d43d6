//! Growth of a file system that is not mounted, for machines on which the kernel may not be asked (it wants
//! `CAP_SYS_RESOURCE`, which containers seldom have). Only file systems that this module has made, and only as far as
//! their table of groups reaches.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;

use super::crc::crc32c;
use super::layout::{BLOCK, DESCRIPTOR, Layout, PER_GROUP};
use super::{Bytes, COMPATIBLE, INCOMPATIBLE, Maker};

/// Bytes for a place in the file.
pub(crate) type Write = (u64, Vec<u8>);

fn number(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
}

fn short(bytes: &[u8], at: usize) -> u64 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}

fn refuse<T>(why: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, why))
}

/// Prepares new groups, which nobody sees yet, and gives what is to be written to make them part of the file system: all
/// of it or nothing. The file has `bytes` already, and reads as zeros behind the old end.
pub(crate) fn prepare_growth(file: &File, bytes: u64) -> Result<Vec<Write>> {
    let mut head = vec![0; 1024];
    file.read_exact_at(&mut head, 1024)?;
    let foreign = short(&head, 0x38) != 0xEF53
        || number(&head, 0x5C) != u64::from(COMPATIBLE)
        || number(&head, 0x20) != PER_GROUP
        || number(&head, 0x54) != super::FIRST_INODE;
    if foreign {
        return refuse("it is no file system of ours");
    }
    if number(&head, 0x60) != u64::from(INCOMPATIBLE)
        || short(&head, 0x3A) & 1 == 0
        || number(&head, 0xE8) != 0
    {
        return refuse("it was not unmounted cleanly");
    }
    let old = Layout::shape(number(&head, 0x04), number(&head, 0x28), 0);
    let Some(new) = Layout::grown(bytes, &old) else {
        return refuse("its table of groups is full: it can only grow while it is mounted");
    };
    if new.blocks <= old.blocks {
        return Ok(Vec::new());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&head[0x68..0x78]);
    let maker = Maker { file, layout: new, id, now: 0, seed: crc32c(!0, &id) };
    let mut table = Bytes::zeros(old.table * BLOCK);
    file.read_exact_at(&mut table.0, BLOCK)?;
    let mut writes = Vec::new();
    let (bitmap, more) = maker.extend_last(&old, &mut table)?;
    writes.extend(bitmap);
    let mut free = number(&head, 0x0C) + more;
    for group in old.groups..new.groups {
        let descriptor = maker.group(group)?;
        table.put((group * DESCRIPTOR) as usize, &descriptor.0);
        free += new.free(group);
    }
    file.sync_all()?;
    let inodes = (new.groups - old.groups) * new.inodes_per_group;
    let mut head = Bytes(head);
    for (at, value) in [
        (0x00, number(&head.0, 0x00) + inodes),
        (0x04, new.blocks),
        (0x0C, free),
        (0x10, number(&head.0, 0x10) + inodes),
    ] {
        head.u32(at, value);
    }
    for group in (0..new.groups).filter(|g| Layout::has_copy(*g)) {
        let first = Layout::first(group);
        writes.push(((first + 1) * BLOCK, table.0.clone()));
        head.u16(0x5A, group as u16);
        let sum = crc32c(!0, &head.0[..0x3FC]);
        head.u32(0x3FC, sum.into());
        writes.push((first * BLOCK + if group == 0 { 1024 } else { 0 }, head.0.clone()));
    }
    Ok(writes)
}

impl Maker<'_> {
    /// Gives the last group of old all the room that it has now: its bitmap, and how many blocks more.
    fn extend_last(&self, old: &Layout, table: &mut Bytes) -> Result<(Option<Write>, u64)> {
        let last = old.groups - 1;
        let (had, has) = (old.size(last), self.layout.size(last));
        if had == has {
            return Ok((None, 0));
        }
        let at = (last * DESCRIPTOR) as usize;
        let place = number(&table.0, at) * BLOCK;
        let mut bitmap = Bytes::zeros(BLOCK);
        self.file.read_exact_at(&mut bitmap.0, place)?;
        for bit in had..has {
            bitmap.0[(bit / 8) as usize] &= !(1 << (bit % 8));
        }
        table.u16(at + 0xC, (short(&table.0, at + 0xC) + has - had) as u16);
        table.u16(at + 0x18, crc32c(self.seed, &bitmap.0[..(PER_GROUP / 8) as usize]) as u16);
        table.u16(at + 0x1E, 0);
        let own = &table.0[at..at + DESCRIPTOR as usize];
        let sum = crc32c(crc32c(self.seed, &(last as u32).to_le_bytes()), own);
        table.u16(at + 0x1E, sum as u16);
        Ok((Some((place, bitmap.0)), has - had))
    }
}
