use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libmimalloc_sys::{mi_free, mi_malloc_aligned, mi_realloc_aligned, mi_zalloc_aligned};

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

/// Lets mimalloc serve all that is allocated from now on.
///
/// For the beginning of a process that will be large: there may be no other thread yet, and no allocation so large that
/// the C library mapped it rather than took it from the heap (128 KiB).
pub fn allocate_with_mimalloc() {
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

    /// The allocator itself, beside the one of the test program.
    #[test]
    fn what_was_allocated_before_the_switch_goes_back_to_where_it_came_from() {
        let layout = Layout::from_size_align(48, 16).unwrap();
        // SAFETY: the pointers are used for what was asked for, and given back once.
        unsafe {
            let (kept, grown) = (Allocator.alloc(layout), Allocator.alloc_zeroed(layout));
            grown.write_bytes(7, 48);
            allocate_with_mimalloc();
            // Threads of the test program may have heaps of their own, which are mappings.
            let boundary = BOUNDARY.load(Ordering::Relaxed);
            if kept.addr() < boundary && grown.addr() < boundary {
                let grown = Allocator.realloc(grown, layout, 4096);
                assert!(grown.addr() >= boundary);
                assert_eq!(std::slice::from_raw_parts(grown, 48), [7; 48]);
                Allocator.dealloc(grown, Layout::from_size_align(4096, 16).unwrap());
                Allocator.dealloc(kept, layout);
            }
            let fresh = Allocator.alloc(Layout::from_size_align(100, 64).unwrap());
            assert!(fresh.addr() >= boundary && fresh.addr().is_multiple_of(64));
            let fresh = Allocator.realloc(fresh, Layout::from_size_align(100, 64).unwrap(), 1 << 20);
            assert!(fresh.addr().is_multiple_of(64));
            Allocator.dealloc(fresh, Layout::from_size_align(1 << 20, 64).unwrap());
        }
    }
}
