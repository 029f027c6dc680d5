//! The server's memory.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr,
};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What every block of mimalloc is aligned to that is at least as large, in bytes (`MI_MAX_ALIGN_SIZE` in its types.h).
const NATURAL: usize = 16;

/// [mimalloc](https://github.com/microsoft/mimalloc): calls allocate in small pieces on many threads, which the system's
/// allocator is slower at, and does not give back as well.
///
/// A thread that called [`keep_near`] keeps some of what it frees, and takes first what it freed last: that is still in
/// the processor's cache. mimalloc gives out the blocks of a page one after the other, among them those that another
/// thread gave back, which the processor has to wait for.
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

/// Up to this size each multiple of 8 bytes has a shelf, and beyond it up to `LARGE` each multiple of 256, in bytes.
const SMALL: usize = 1024;
const LARGE: usize = 16 * 1024;
const SMALL_STEP: usize = 8;
const LARGE_STEP: usize = 256;
const SHELVES: usize = SMALL / SMALL_STEP + (LARGE - SMALL) / LARGE_STEP;
/// How many blocks a shelf holds at most.
const SMALL_HELD: u32 = 32;
const LARGE_HELD: u32 = 4;

/// Where blocks of a layout are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shelf: usize,
    /// What each block there has room for, in bytes.
    room: usize,
    held: u32,
}

/// The place for a layout, if it has one: every block for that layout, whichever thread asks, is made with the room that
/// blocks there have.
const fn place(size: usize, align: usize) -> Option<Place> {
    if !natural(size, align) || size == 0 || size > LARGE {
        None
    } else if size <= SMALL {
        let shelf = (size - 1) / SMALL_STEP;
        Some(Place { shelf, room: (shelf + 1) * SMALL_STEP, held: SMALL_HELD })
    } else {
        let step = (size - SMALL - 1) / LARGE_STEP;
        Some(Place { shelf: SMALL / SMALL_STEP + step, room: SMALL + (step + 1) * LARGE_STEP, held: LARGE_HELD })
    }
}

/// A block that nobody has, holding where the next one is.
struct Block {
    next: *mut Block,
}

/// Blocks of one room, the last one that was freed first.
struct Shelf {
    first: Cell<*mut Block>,
    held: Cell<u32>,
}

/// What a thread keeps.
struct Near {
    on: Cell<bool>,
    shelves: [Shelf; SHELVES],
}

impl Near {
    /// The block that was freed last, or null.
    fn take(&self, place: Place) -> *mut u8 {
        let Some(shelf) = self.shelves.get(place.shelf) else { return ptr::null_mut() };
        let block = shelf.first.get();
        if !block.is_null() {
            // SAFETY: what is on a shelf is a block of ours that nobody else has, written by `keep`.
            shelf.first.set(unsafe { (*block).next });
            shelf.held.set(shelf.held.get() - 1);
        }
        block.cast()
    }

    /// Whether it was kept.
    ///
    /// # Safety
    /// It must be a block with the place's room that is not used any more.
    unsafe fn keep(&self, place: Place, block: *mut u8) -> bool {
        let Some(shelf) = self.shelves.get(place.shelf) else { return false };
        if !self.on.get() || shelf.held.get() >= place.held {
            return false;
        }
        let block: *mut Block = block.cast();
        // SAFETY: the smallest room is that of a pointer, and every block of it is aligned for one.
        unsafe { block.write(Block { next: shelf.first.get() }) };
        shelf.first.set(block);
        shelf.held.set(shelf.held.get() + 1);
        true
    }
}

thread_local! {
    // Nothing here is dropped, so that looking at it costs no look at whether it still is.
    static NEAR: Near = const {
        Near { on: Cell::new(false), shelves: [const { Shelf { first: Cell::new(ptr::null_mut()), held: Cell::new(0) } }; SHELVES] }
    };
}

/// Lets this thread keep some of what it frees for itself: at most 4 MB, and never given back, so this is for threads that
/// live as long as the process.
pub fn keep_near() {
    NEAR.with(|near| near.on.set(true));
}

// SAFETY: mimalloc's blocks are valid for their size until they are freed, and null where there is no memory; each is
// aligned as its layout says, by the allocator's promise or because it was asked to. A block from a shelf has the room of
// every layout that has its place there, and mimalloc's promise of alignment depends on nothing else.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if let Some(place) = place(size, align) {
            let block = NEAR.with(|near| near.take(place));
            // SAFETY: any size may be asked for.
            return if block.is_null() { unsafe { mi_malloc(place.room).cast() } } else { block };
        }
        // SAFETY: an alignment of a layout is a power of two.
        let block = unsafe { if natural(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if let Some(place) = place(size, align) {
            let block = NEAR.with(|near| near.take(place));
            if block.is_null() {
                // SAFETY: as above.
                return unsafe { mi_zalloc(place.room).cast() };
            }
            // SAFETY: there is room for so many bytes, which nobody else uses.
            unsafe { block.write_bytes(0, size) };
            return block;
        }
        // SAFETY: as above.
        let block = unsafe { if natural(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(place) = place(layout.size(), layout.align())
            // SAFETY: the caller is done with it, and blocks of this layout are made with this room.
            && NEAR.with(|near| unsafe { near.keep(place, block) })
        {
            return;
        }
        // SAFETY: the caller says that it is one of ours, and not freed yet.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        let to = place(size, align);
        if to.is_some() && to == place(layout.size(), align) {
            return block;
        }
        let size = to.map_or(size, |place| place.room);
        let block = block.cast();
        // SAFETY: as in `dealloc`; what stays in its place keeps its alignment.
        let block = unsafe {
            if natural(size, align) { mi_realloc(block, size) } else { mi_realloc_aligned(block, size, align) }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_has_room_for_what_it_is_for() {
        for size in 1..=LARGE {
            let place = place(size, 1).expect("a place");
            assert!(place.room >= size && place.room - size < LARGE_STEP && place.shelf < SHELVES, "{size}: {place:?}");
            assert_eq!(super::place(place.room, 1), Some(place), "the room of a place is one of its own sizes");
        }
        for (size, align) in [(0, 1), (8, 16), (64, 64), (LARGE + 1, 8)] {
            assert_eq!(place(size, align), None, "{size}, {align}");
        }
    }

    #[test]
    fn what_is_freed_last_is_taken_first_and_no_more_is_kept_than_may_be() {
        thread::spawn(|| {
            keep_near();
            let layout = Layout::from_size_align(72, 8).expect("a layout");
            // SAFETY: each is freed once, with the layout it has.
            unsafe {
                let blocks: Vec<_> = (0..SMALL_HELD + 9).map(|_| Allocator.alloc(layout)).collect();
                blocks.iter().for_each(|block| Allocator.dealloc(*block, layout));
                let held = NEAR.with(|near| near.shelves[place(72, 8).expect("a place").shelf].held.get());
                assert_eq!(held, SMALL_HELD);
                let kept = blocks.iter().take(SMALL_HELD as usize).rev();
                let again: Vec<_> = kept.map(|block| (Allocator.alloc(layout), *block)).collect();
                assert!(again.iter().all(|(taken, kept)| taken == kept));
                again.iter().for_each(|(taken, _)| Allocator.dealloc(*taken, layout));
            }
        })
        .join()
        .expect("no panic");
    }

    proptest! {
        /// Blocks that two threads make, move and free for each other, one of which keeps some, are never two at once.
        #[test]
        fn no_block_is_given_out_twice(
            steps in prop::collection::vec((any::<bool>(), 0..40_usize, 1..20_000_usize, 0..6_u32), 1..200),
        ) {
            struct Held(*mut u8, Layout, u8);
            // SAFETY: one thread at a time works with it.
            unsafe impl Send for Held {}

            keep_near();
            let mut held: Vec<Held> = Vec::new();
            for (number, (near, at, size, align)) in steps.into_iter().enumerate() {
                let mark = number as u8;
                let step = move |mut held: Vec<Held>| {
                    let layout = Layout::from_size_align(size, 1 << align).expect("a layout");
                    // SAFETY: each is freed once, with the layout it has, and written within its bounds.
                    unsafe {
                        if at < held.len() {
                            let Held(block, old, mark) = held.swap_remove(at);
                            assert!(std::slice::from_raw_parts(block, old.size()).iter().all(|byte| *byte == mark));
                            if size.is_multiple_of(2) {
                                Allocator.dealloc(block, old);
                            } else {
                                let block = Allocator.realloc(block, old, size);
                                let new = Layout::from_size_align(size, old.align()).expect("a layout");
                                let same = old.size().min(size);
                                assert!(std::slice::from_raw_parts(block, same).iter().all(|byte| *byte == mark));
                                block.write_bytes(mark, size);
                                held.push(Held(block, new, mark));
                            }
                        } else {
                            let block = if size.is_multiple_of(3) { Allocator.alloc_zeroed(layout) } else { Allocator.alloc(layout) };
                            assert!(block.addr().is_multiple_of(layout.align()));
                            if size.is_multiple_of(3) {
                                assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                            }
                            block.write_bytes(mark, size);
                            held.push(Held(block, layout, mark));
                        }
                    }
                    held
                };
                held = if near { step(held) } else { thread::spawn(move || step(held)).join().expect("no panic") };
            }
            for Held(block, layout, mark) in held {
                // SAFETY: as above.
                unsafe {
                    assert!(std::slice::from_raw_parts(block, layout.size()).iter().all(|byte| *byte == mark));
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }

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
