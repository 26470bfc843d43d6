//! Where things are in an ext4 file system of a given size. Every group of blocks keeps its own bitmaps and inodes, so
//! that the kernel can add groups later.

/// Bytes of a block.
pub(super) const BLOCK: u64 = 4096;
pub(super) const PER_GROUP: u64 = 32768;
pub(super) const INODE: u64 = 256;
/// A descriptor of a group has 32 bytes.
pub(super) const DESCRIPTOR: u64 = 32;
/// Blocks have numbers of 32 bits.
const MOST_BLOCKS: u64 = u32::MAX as u64;
/// The least that a journal and a few files fit into.
const LEAST_BLOCKS: u64 = (8 << 20) / BLOCK;
/// A last group with less room than this beyond its own needs is not worth having.
const WORTHWHILE: u64 = 50;

/// The shape of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u64,
    /// Blocks of the table of groups.
    pub(super) table: u64,
    /// Blocks of the journal.
    pub(super) journal: u64,
}

impl Layout {
    /// For so many bytes; none where they are too few or too many.
    pub(super) fn of(bytes: u64) -> Option<Self> {
        let mut blocks = bytes / BLOCK;
        if !(LEAST_BLOCKS..=MOST_BLOCKS).contains(&blocks) {
            return None;
        }
        // A file system that begins small may grow: it has more inodes than its size asks for.
        let inodes_per_group = if blocks >= PER_GROUP / 2 { 8192 } else { 2048 };
        let journal = match blocks {
            0..32_768 => 1024,
            32_768..524_288 => 4096,
            524_288..4_194_304 => 8192,
            _ => 16384,
        };
        let shape = |blocks| Self::shape(blocks, inodes_per_group, journal);
        blocks = shape(blocks).trimmed();
        Some(shape(blocks))
    }

    pub(super) fn shape(blocks: u64, inodes_per_group: u64, journal: u64) -> Self {
        let groups = blocks.div_ceil(PER_GROUP);
        let table = (groups * DESCRIPTOR).div_ceil(BLOCK);
        Self { blocks, groups, inodes_per_group, table, journal }
    }

    /// The blocks without a last group that is not worth having.
    fn trimmed(&self) -> u64 {
        let last = self.groups - 1;
        if last > 0 && self.size(last) < self.overhead(last) + WORTHWHILE {
            return last * PER_GROUP;
        }
        self.blocks
    }

    /// A file system of so many bytes that was once as `old`; none where the table of groups has no room.
    pub(super) fn grown(bytes: u64, old: &Self) -> Option<Self> {
        let shape = |blocks| Self::shape(blocks, old.inodes_per_group, old.journal);
        let new = shape(shape(bytes / BLOCK).trimmed());
        (new.blocks <= MOST_BLOCKS && new.table == old.table).then_some(new)
    }

    /// Whether a group holds a copy of the superblock and of the table of groups.
    pub(super) fn has_copy(group: u64) -> bool {
        let power = |base: u64| {
            let mut n = base;
            while n < group {
                n *= base;
            }
            n == group
        };
        group <= 1 || power(3) || power(5) || power(7)
    }

    pub(super) fn first(group: u64) -> u64 {
        group * PER_GROUP
    }

    /// Blocks of a group.
    pub(super) fn size(&self, group: u64) -> u64 {
        PER_GROUP.min(self.blocks - Self::first(group))
    }

    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        Self::first(group) + if Self::has_copy(group) { 1 + self.table } else { 0 }
    }

    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 1
    }

    pub(super) fn inodes(&self, group: u64) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// Blocks of a group's inodes.
    pub(super) fn inode_blocks(&self) -> u64 {
        self.inodes_per_group * INODE / BLOCK
    }

    /// Blocks of a group that hold no files.
    pub(super) fn overhead(&self, group: u64) -> u64 {
        self.inodes(group) + self.inode_blocks() - Self::first(group)
    }

    /// The blocks of the first group behind its inodes: the root, `lost+found`, the journal.
    pub(super) fn root(&self) -> u64 {
        self.inodes(0) + self.inode_blocks()
    }

    pub(super) fn lost_and_found(&self) -> u64 {
        self.root() + 1
    }

    pub(super) fn journal_start(&self) -> u64 {
        self.root() + 2
    }

    /// Blocks of a group that are taken from the start.
    pub(super) fn used(&self, group: u64) -> u64 {
        self.overhead(group) + if group == 0 { 2 + self.journal } else { 0 }
    }

    pub(super) fn free(&self, group: u64) -> u64 {
        self.size(group) - self.used(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_are_sparse() {
        let with: Vec<u64> = (0..130).filter(|g| Layout::has_copy(*g)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn too_small_and_too_large() {
        assert_eq!(Layout::of(1 << 20), None);
        assert_eq!(Layout::of(17 << 40), None);
        assert_eq!(Layout::of(8 << 20).unwrap().journal, 1024);
    }

    proptest! {
        #[test]
        fn everything_fits(bytes in (8u64 << 20)..(16u64 << 40)) {
            if let Some(layout) = Layout::of(bytes) {
                prop_assert!(layout.blocks * BLOCK <= bytes);
                prop_assert!(bytes - layout.blocks * BLOCK < 4 << 20);
                for group in [0, 1, layout.groups / 2, layout.groups - 1] {
                    if group < layout.groups {
                        prop_assert!(layout.used(group) <= layout.size(group), "{layout:?} {group}");
                    }
                }
            }
        }
    }
}
