use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libmimalloc_sys::{mi_free, mi_malloc_aligned, mi_realloc_aligned, mi_zalloc_aligned};

use crate::error::{Attempt, Result};
use crate::process::thread_count;

/// The allocator of the binary: the C library's, which takes next to nothing for a process that stays small, until the
/// process asks for mimalloc, which is faster with many small allocations on several threads and gives memory back.
///
/// A pod's shim allocates a few kilobytes: mimalloc's first pages alone would be several times that.
pub struct Allocator;

/// Where the C library's heap ended when mimalloc took over; nothing has been taken over at 0.
///
/// What lies below was allocated before, and goes back to where it came from. What mimalloc maps lies above: the system
/// places mappings above the heap.
static BOUNDARY: AtomicUsize = AtomicUsize::new(0);

/// Lets mimalloc serve all that is allocated from now on. For the first line of a process that will be large.
///
/// Nothing changes if it comes too late: when there are other threads, whose heaps are mappings, or an allocation so large
/// that the C library mapped it, too.
pub fn allocate_with_mimalloc() {
    // SAFETY: it counts, and nothing else.
    let mapped = unsafe { libc::mallinfo2() }.hblks;
    if mapped == 0 && thread_count().is_ok_and(|threads| threads == 1) {
        take_over();
    }
}

/// Lets mimalloc take over. All that is allocated must be in the heap.
fn take_over() {
    // SAFETY: an increment of 0 changes nothing.
    let end = unsafe { libc::sbrk(0) };
    BOUNDARY.store(end.addr(), Ordering::Relaxed);
}

/// Whether an allocation is the C library's.
fn is_systems(place: *mut u8, boundary: usize) -> bool {
    boundary == 0 || place.addr() < boundary
}

// SAFETY: every pointer goes back to the allocator that it is from: before the switch that is the C library's; after it,
// what lies below the boundary is the C library's still, because nothing of it grows or moves any more (`realloc` takes
// such memory over to mimalloc), and mimalloc's mappings lie above. Both allocators keep to `Layout`.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if BOUNDARY.load(Ordering::Relaxed) == 0 {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: any size and any power of two will do.
        unsafe { mi_malloc_aligned(layout.size(), layout.align()) }.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if BOUNDARY.load(Ordering::Relaxed) == 0 {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: any size and any power of two will do.
        unsafe { mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if is_systems(place, BOUNDARY.load(Ordering::Relaxed)) {
            // SAFETY: it came from there.
            return unsafe { System.dealloc(place, layout) };
        }
        // SAFETY: it came from there.
        unsafe { mi_free(place.cast()) };
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let boundary = BOUNDARY.load(Ordering::Relaxed);
        if boundary == 0 {
            // SAFETY: it came from there.
            return unsafe { System.realloc(place, layout, size) };
        }
        if !is_systems(place, boundary) {
            // SAFETY: it came from there, with this alignment.
            return unsafe { mi_realloc_aligned(place.cast(), size, layout.align()) }.cast();
        }
        // SAFETY: any size and any power of two will do.
        let moved: *mut u8 = unsafe { mi_malloc_aligned(size, layout.align()) }.cast();
        if !moved.is_null() {
            // SAFETY: both are at least that long, and the new one is nobody else's; the old one came from there.
            unsafe {
                ptr::copy_nonoverlapping(place, moved, layout.size().min(size));
                System.dealloc(place, layout);
            }
        }
        moved
    }
}

/// Mappings that are at least as long as this are the heap's.
const LONG: usize = 64 << 20;

/// Asks the kernel for huge pages where the heap is: a process that has much in memory finds it faster by them, and one
/// that has little would hold many times what it uses. Gives how many mappings there are.
///
/// What is there already is put together by the kernel in time; new memory comes in huge pages at once. On machines without
/// them nothing changes.
///
/// # Errors
/// When the process's mappings cannot be read.
pub fn use_huge_pages() -> Result<usize> {
    let maps = Path::new("/proc/self/maps");
    let maps = std::fs::read_to_string(maps).attempt("read", || maps.display().to_string())?;
    let heap: Vec<_> = maps.lines().filter_map(anonymous).filter(|(_, length)| *length >= LONG).collect();
    for (start, length) in &heap {
        // SAFETY: it says how memory is to be kept, and changes nothing of what is in it; of what is unmapped by now the
        // kernel says that it is not there.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(*start), *length, libc::MADV_HUGEPAGE) };
    }
    Ok(heap.len())
}

/// Start and length of a mapping that is memory and nothing else.
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, rights, inode) = (words.next()?, words.next()?, words.nth(2)?);
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let plain = rights == "rw-p" && inode == "0" && words.next().is_none();
    plain.then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_nothing_else() {
        assert_eq!(
            anonymous("20000000000-20040000000 rw-p 00000000 00:00 0 "),
            Some((0x200_0000_0000, 1 << 30))
        );
        for other in [
            "00400000-00401000 r-xp 00000000 fe:00 1234 /bin/true",
            "20000000000-20040000000 ---p 00000000 00:00 0 ",
            "7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]",
            "rubbish",
            "",
        ] {
            assert_eq!(anonymous(other), None, "{other}");
        }
    }

    /// What is asked for is seen in the process's mappings (`hg`).
    #[test]
    fn a_long_mapping_gets_huge_pages() {
        let long: Vec<u8> = Vec::with_capacity(2 * LONG);
        assert!(use_huge_pages().unwrap() > 0);
        let start = long.as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let flags = maps.lines().find(|line| {
            if let Some((from, length)) = anonymous(line) {
                within = (from..from + length).contains(&start);
            }
            within && line.starts_with("VmFlags:")
        });
        let without = !Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert!(without || flags.unwrap().contains(" hg"), "{flags:?}");
    }

    const IN_CHILD: &str = "GANTRY_TEST_ALLOCATOR";

    /// In a process of its own, for which the switch is; its threads share one heap, as the first thread of a server has
    /// it (those of others are mappings).
    #[test]
    fn what_was_allocated_before_the_switch_goes_back_to_where_it_came_from() {
        if std::env::var_os(IN_CHILD).is_some() {
            return switch();
        }
        let name = "alloc::tests::what_was_allocated_before_the_switch_goes_back_to_where_it_came_from";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(IN_CHILD, "1")
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
    }

    /// The allocator itself, beside the one of the test program.
    fn switch() {
        let of = |size, align| Layout::from_size_align(size, align).unwrap();
        let layout = of(48, 16);
        // SAFETY: the pointers are used for what was asked for, and given back once.
        unsafe {
            let (kept, grown) = (Allocator.alloc(layout), Allocator.alloc_zeroed(layout));
            grown.write_bytes(7, 48);
            take_over();
            let boundary = BOUNDARY.load(Ordering::Relaxed);
            assert!(is_systems(kept, boundary) && is_systems(grown, boundary));
            let grown = Allocator.realloc(grown, layout, 4096);
            assert!(!is_systems(grown, boundary), "it stayed where it was");
            assert_eq!(std::slice::from_raw_parts(grown, 48), [7; 48]);
            Allocator.dealloc(grown, of(4096, 16));
            Allocator.dealloc(kept, layout);
            let fresh = Allocator.alloc(of(100, 64));
            assert!(!is_systems(fresh, boundary) && fresh.addr().is_multiple_of(64));
            let fresh = Allocator.realloc(fresh, of(100, 64), 1 << 20);
            assert!(fresh.addr().is_multiple_of(64));
            Allocator.dealloc(fresh, of(1 << 20, 64));
        }
    }
}
