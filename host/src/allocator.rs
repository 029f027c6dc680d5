//! The server's memory.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What every block of mimalloc is aligned to that is at least as large, in bytes (`MI_MAX_ALIGN_SIZE` in its types.h).
const NATURAL: usize = 16;

/// [mimalloc](https://github.com/microsoft/mimalloc): calls allocate in small pieces on many threads, which the system's
/// allocator is slower at, and does not give back as well.
///
/// It is asked for an alignment only where it does not have it anyhow: whoever names one gets a larger block with room to
/// move in, even for 8 bytes, where the size is no power of two and above a kilobyte, and such a block takes longer to
/// free, too.
#[derive(Debug)]
pub struct Allocator;

/// Whether a block of that size has that alignment without being asked for it.
const fn natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

// SAFETY: mimalloc's blocks are valid for their size until they are freed, and null where there is no memory; each is
// aligned as its layout says, by the allocator's promise or because it was asked to.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: an alignment of a layout is a power of two.
        let block = unsafe { if natural(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        let block = unsafe { if natural(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller says that it is one of ours, and not freed yet.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        // SAFETY: as in `dealloc`; what stays in its place keeps its alignment.
        let block = unsafe {
            if natural(size, align) { mi_realloc(block, size) } else { mi_realloc_aligned(block, size, align) }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_aligned_as_its_layout_says_and_keeps_what_is_in_it() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in (1..80).chain([100, 1000, 1025, 1100, 2056, 5000, 70_001, 3 << 20]) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: each is freed once, with the layout it has, and written within its bounds.
                unsafe {
                    let plain = Allocator.alloc(layout);
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(
                        plain.addr().is_multiple_of(align) && block.addr().is_multiple_of(align),
                        "{size}, {align}"
                    );
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0), "{size}, {align}");
                    block.write_bytes(7, size);
                    let more = Allocator.realloc(block, layout, size * 3 + 1);
                    assert!(more.addr().is_multiple_of(align), "{size}, {align}");
                    assert!(std::slice::from_raw_parts(more, size).iter().all(|byte| *byte == 7), "{size}, {align}");
                    Allocator.dealloc(more, Layout::from_size_align(size * 3 + 1, align).expect("a layout"));
                    Allocator.dealloc(plain, layout);
                }
            }
        }
    }
}
