use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libmimalloc_sys::{mi_free, mi_malloc_aligned, mi_realloc_aligned, mi_zalloc_aligned};

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

#[cfg(test)]
mod tests {
    use super::*;

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
