//! Makes ext4 file systems without any helper program (Linux, `Documentation/filesystems/ext4`).
//!
//! Only what differs from zero is written: superblocks, tables of groups, the first and the last group's bitmaps, three
//! inodes, two directories and the journal's head. The file must read as zeros otherwise, as a new sparse file does.

mod crc;
mod grow;
mod layout;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crc::crc32c;
pub(crate) use grow::{Write, prepare_growth};
use layout::{BLOCK, DESCRIPTOR, INODE, Layout, PER_GROUP};

const FIRST_INODE: u64 = 11;
const ROOT: u64 = 2;
const JOURNAL: u64 = 8;
const LOST_AND_FOUND: u64 = FIRST_INODE;
const EXTRA: u16 = 32;
// `EXT4_FEATURE_*`.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20; // journal, extended attributes, indexed directories
const INCOMPATIBLE: u32 = 0x2 | 0x40; // types in directories, extents
const READ_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400; // ..., checksums of metadata
// `EXT4_BG_*`.
const NO_INODES_YET: u16 = 1;
const NO_BLOCKS_YET: u16 = 2;
const INODES_ZEROED: u16 = 4;
const EXTENTS: u32 = 0x8_0000;

/// Bytes that are written by offset.
struct Bytes(Vec<u8>);

impl Bytes {
    fn zeros(len: u64) -> Self {
        Self(vec![0; len as usize])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    fn u32(&mut self, at: usize, value: u64) {
        self.put(at, &(value as u32).to_le_bytes());
    }

    /// Sets `count` bits from the bit `from` on.
    fn bits(&mut self, from: u64, count: u64) {
        for bit in from..from + count {
            self.0[(bit / 8) as usize] |= 1 << (bit % 8);
        }
    }
}

struct Maker<'a> {
    file: &'a File,
    layout: Layout,
    id: [u8; 16],
    /// Seconds since 1970.
    now: u32,
    seed: u32,
}

/// Makes an ext4 file system of `bytes` in a file that reads as zeros.
///
/// # Errors
/// When it cannot be written, or the size is too small or too large.
pub(crate) fn format(file: &File, bytes: u64, id: [u8; 16], now: u32) -> io::Result<()> {
    let Some(layout) = Layout::of(bytes) else {
        let why = format!("an ext4 file system of {bytes} bytes is not possible: it takes 8 MiB to 16 TiB");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    };
    let maker = Maker { file, layout, id, now, seed: crc32c(!0, &id) };
    maker.directories()?;
    maker.inodes()?;
    maker.journal()?;
    maker.groups()?;
    file.sync_all()
}

/// The blocks that a file system of so many bytes has.
pub(crate) fn blocks(bytes: u64) -> u64 {
    Layout::of(bytes).map_or(0, |layout| layout.blocks)
}

impl Maker<'_> {
    fn write(&self, block: u64, bytes: &Bytes) -> io::Result<()> {
        self.file.write_all_at(&bytes.0, block * BLOCK)
    }

    /// The checksum that everything of an inode begins with.
    fn inode_seed(&self, inode: u64) -> u32 {
        crc32c(crc32c(self.seed, &(inode as u32).to_le_bytes()), &[0; 4])
    }

    fn directories(&self) -> io::Result<()> {
        let lost = (LOST_AND_FOUND, "lost+found");
        let root = self.directory(ROOT, &[(ROOT, "."), (ROOT, ".."), lost]);
        self.write(self.layout.root(), &root)?;
        let lost = self.directory(LOST_AND_FOUND, &[(LOST_AND_FOUND, "."), (ROOT, "..")]);
        self.write(self.layout.lost_and_found(), &lost)
    }

    fn directory(&self, inode: u64, entries: &[(u64, &str)]) -> Bytes {
        const DIRECTORY: u8 = 2;
        const TAIL: usize = 12;
        let mut block = Bytes::zeros(BLOCK);
        let end = BLOCK as usize - TAIL;
        let mut at = 0;
        for (i, (number, name)) in entries.iter().enumerate() {
            let own = (8 + name.len()).next_multiple_of(4);
            let length = if i + 1 == entries.len() { end - at } else { own };
            block.u32(at, *number);
            block.u16(at + 4, length as u16);
            block.put(at + 6, &[name.len() as u8, DIRECTORY]);
            block.put(at + 8, name.as_bytes());
            at += length;
        }
        block.u16(end + 4, TAIL as u16);
        block.put(end + 7, &[0xDE]);
        let sum = crc32c(self.inode_seed(inode), &block.0[..end]);
        block.u32(end + 8, sum.into());
        block
    }

    fn inodes(&self) -> io::Result<()> {
        let layout = &self.layout;
        for inode in [
            self.inode(ROOT, 0o040_755, 3, layout.root(), 1),
            self.inode(JOURNAL, 0o100_600, 1, layout.journal_start(), layout.journal),
            self.inode(LOST_AND_FOUND, 0o040_700, 2, layout.lost_and_found(), 1),
        ] {
            let (number, bytes) = inode;
            self.file.write_all_at(&bytes.0, layout.inodes(0) * BLOCK + (number - 1) * INODE)?;
        }
        Ok(())
    }

    /// An inode of one run of blocks.
    fn inode(&self, number: u64, mode: u16, links: u16, start: u64, blocks: u64) -> (u64, Bytes) {
        let mut inode = Bytes::zeros(INODE);
        inode.u16(0x0, mode);
        inode.u32(0x4, blocks * BLOCK);
        for time in [0x8, 0xC, 0x10, 0x90] {
            inode.u32(time, self.now.into());
        }
        inode.u16(0x1A, links);
        inode.u32(0x1C, blocks * (BLOCK / 512));
        inode.u32(0x20, EXTENTS.into());
        inode.put(0x28, &extent(start, blocks));
        inode.u16(0x80, EXTRA);
        let sum = crc32c(self.inode_seed(number), &inode.0);
        inode.u16(0x7C, sum as u16);
        inode.u16(0x82, (sum >> 16) as u16);
        (number, inode)
    }

    /// The journal's head (`include/linux/jbd2.h`, `journal_superblock_t`): its numbers have the other byte order.
    fn journal(&self) -> io::Result<()> {
        let mut head = Bytes::zeros(BLOCK);
        for (at, value) in [
            (0x0, 0xC03B_3998),
            (0x4, 4), // a head of the second version
            (0xC, BLOCK as u32),
            (0x10, self.layout.journal as u32),
            (0x14, 1), // the first block of records
            (0x18, 1), // the first transaction expected
            (0x40, 1), // one user
        ] {
            head.put(at, &u32::to_be_bytes(value));
        }
        head.put(0x30, &self.id);
        head.put(0x100, &self.id);
        self.write(self.layout.journal_start(), &head)
    }

    fn groups(&self) -> io::Result<()> {
        let layout = &self.layout;
        let mut table = Bytes::zeros(layout.table * BLOCK);
        for group in 0..layout.groups {
            let descriptor = self.group(group)?;
            table.put((group * DESCRIPTOR) as usize, &descriptor.0);
        }
        for group in (0..layout.groups).filter(|g| Layout::has_copy(*g)) {
            let first = Layout::first(group);
            self.write(first + 1, &table)?;
            // The first 1,024 bytes belong to boot loaders; copies begin at once.
            let at = first * BLOCK + if group == 0 { 1024 } else { 0 };
            self.file.write_all_at(&self.superblock(group).0, at)?;
        }
        Ok(())
    }

    /// Writes the bitmaps that are not empty, and gives the group's descriptor.
    fn group(&self, group: u64) -> io::Result<Bytes> {
        let layout = &self.layout;
        let (is_first, is_last) = (group == 0, group + 1 == layout.groups);
        let (mut blocks_sum, mut inodes_sum) = (0, 0);
        if is_first || is_last {
            let mut bitmap = Bytes::zeros(BLOCK);
            bitmap.bits(0, layout.used(group));
            // What lies behind the end is taken.
            bitmap.bits(layout.size(group), PER_GROUP - layout.size(group));
            blocks_sum = crc32c(self.seed, &bitmap.0[..(PER_GROUP / 8) as usize]);
            self.write(layout.block_bitmap(group), &bitmap)?;
        }
        if is_first {
            let mut bitmap = Bytes::zeros(BLOCK);
            bitmap.bits(0, FIRST_INODE);
            bitmap.bits(layout.inodes_per_group, BLOCK * 8 - layout.inodes_per_group);
            inodes_sum = crc32c(self.seed, &bitmap.0[..(layout.inodes_per_group / 8) as usize]);
            self.write(layout.inode_bitmap(group), &bitmap)?;
        }
        let inodes = layout.inodes_per_group - if is_first { FIRST_INODE } else { 0 };
        let flags = match (is_first, is_last) {
            (true, _) => INODES_ZEROED,
            (false, true) => INODES_ZEROED | NO_INODES_YET,
            _ => INODES_ZEROED | NO_INODES_YET | NO_BLOCKS_YET,
        };
        let mut descriptor = Bytes::zeros(DESCRIPTOR);
        descriptor.u32(0x0, layout.block_bitmap(group));
        descriptor.u32(0x4, layout.inode_bitmap(group));
        descriptor.u32(0x8, layout.inodes(group));
        descriptor.u16(0xC, layout.free(group) as u16);
        descriptor.u16(0xE, inodes as u16);
        descriptor.u16(0x10, if is_first { 2 } else { 0 });
        descriptor.u16(0x12, flags);
        descriptor.u16(0x18, blocks_sum as u16);
        descriptor.u16(0x1A, inodes_sum as u16);
        descriptor.u16(0x1C, inodes as u16);
        let sum = crc32c(crc32c(self.seed, &(group as u32).to_le_bytes()), &descriptor.0);
        descriptor.u16(0x1E, sum as u16);
        Ok(descriptor)
    }

    fn superblock(&self, group: u64) -> Bytes {
        let layout = &self.layout;
        let inodes = layout.groups * layout.inodes_per_group;
        let free = (0..layout.groups).map(|g| layout.free(g)).sum();
        let mut block = Bytes::zeros(1024);
        for (at, value) in [
            (0x00, inodes),
            (0x04, layout.blocks),
            (0x0C, free),
            (0x10, inodes - FIRST_INODE),
            (0x18, 2), // blocks of 4 KiB
            (0x1C, 2),
            (0x20, PER_GROUP),
            (0x24, PER_GROUP),
            (0x28, layout.inodes_per_group),
            (0x30, self.now.into()),
            (0x40, self.now.into()),
            (0x4C, 1), // the revision that has features
            (0x54, FIRST_INODE),
            (0x5C, COMPATIBLE.into()),
            (0x60, INCOMPATIBLE.into()),
            (0x64, READ_COMPATIBLE.into()),
            (0xE0, JOURNAL),
            (0x100, 0xC), // extended attributes and access lists
            (0x108, self.now.into()),
            (0x148, 0), // the journal's size, high
            (0x14C, layout.journal * BLOCK),
            (0x160, 1), // names are hashed as signed characters
        ] {
            block.u32(at, value);
        }
        for (at, value) in [
            (0x36, u16::MAX),
            (0x38, 0xEF53),
            (0x3A, 1),
            (0x3C, 1),
            (0x58, INODE as u16),
            (0x5A, group as u16),
        ] {
            block.u16(at, value);
        }
        block.u16(0x15C, EXTRA);
        block.u16(0x15E, EXTRA);
        block.put(0x68, &self.id);
        block.put(0xEC, &self.id);
        // Half MD4 for names; a copy of the journal's inode is kept; CRC-32C.
        block.put(0xFC, &[1, 1]);
        block.put(0x10C, &extent(layout.journal_start(), layout.journal));
        block.put(0x175, &[1]);
        let sum = crc32c(!0, &block.0[..0x3FC]);
        block.u32(0x3FC, sum.into());
        block
    }
}

/// The root of a tree of extents with one leaf.
fn extent(start: u64, blocks: u64) -> [u8; 24] {
    let mut bytes = Bytes::zeros(24);
    bytes.u16(0, 0xF30A);
    bytes.u16(2, 1);
    bytes.u16(4, 4);
    bytes.u16(16, blocks as u16);
    bytes.u32(20, start);
    let mut out = [0; 24];
    out.copy_from_slice(&bytes.0);
    out
}

#[cfg(test)]
mod tests;
