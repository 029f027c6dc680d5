//! Memory for a function that is built without WASI.
//!
//! The standard library's own allocator for such a target asks the host for more memory at the first allocation of every
//! call, which takes the host longer than a short call. This one begins with what the module has anyway.

use std::ptr;

/// What every block is aligned to that is at least as large, in bytes.
const ALIGN: usize = 16;
/// How many rooms there are: eight up to 64 bytes, and four for each doubling after that.
const CLASSES: usize = 8 + 4 * 26;
/// The most that is asked for ahead of need, in bytes.
const AHEAD: usize = 16 << 20;

/// Which list a block of that size is on when it is free, and how large it is. No layout is larger than `isize::MAX`.
fn class(size: usize) -> (usize, usize) {
    if size <= 64 {
        let class = size.saturating_sub(1) / 8;
        return (class, (class + 1) * 8);
    }
    let last = size - 1;
    let doublings = last.ilog2();
    let step = doublings - 2;
    let quarter = last >> step;
    (8 + (doublings as usize - 6) * 4 + quarter - 4, (quarter + 1) << step)
}

/// Where the memory comes from: addresses up to an end that can be moved on.
pub trait Source {
    /// The first address, and the end.
    fn bounds(&self) -> (usize, usize);
    /// Moves the end by at least so many bytes; the new one, or none where there is no more.
    fn grow(&self, bytes: usize) -> Option<usize>;
}

/// What is free, and what has never been given out.
pub struct Memory {
    free: [*mut Free; CLASSES],
    next: usize,
    end: usize,
}

/// A block that nobody has.
struct Free {
    next: *mut Free,
}

impl Memory {
    pub const fn new() -> Self {
        Self { free: [ptr::null_mut(); CLASSES], next: 0, end: 0 }
    }

    /// A block, or null.
    ///
    /// # Safety
    /// The source must be the same each time, and its memory used by nobody else.
    pub unsafe fn alloc(&mut self, size: usize, align: usize, source: &impl Source) -> *mut u8 {
        let (class, room) = class(size);
        if align <= ALIGN
            && align <= room
            && let Some(first) = self.free.get_mut(class)
            && !first.is_null()
        {
            let block = *first;
            // SAFETY: what is on a list is a block that nobody has, written by `dealloc`.
            *first = unsafe { (*block).next };
            return block.cast();
        }
        if self.end == 0 {
            (self.next, self.end) = source.bounds();
        }
        let align = align.max(if room < ALIGN { 8 } else { ALIGN });
        let Some(block) = self.next.checked_next_multiple_of(align) else { return ptr::null_mut() };
        let Some(next) = block.checked_add(room) else { return ptr::null_mut() };
        if !self.reach(next, source) {
            return ptr::null_mut();
        }
        self.next = next;
        ptr::with_exposed_provenance_mut(block)
    }

    /// Sees to it that there is memory up to there.
    fn reach(&mut self, next: usize, source: &impl Source) -> bool {
        if next <= self.end {
            return true;
        }
        let missing = next - self.end;
        let ahead = (self.end / 2).min(AHEAD);
        match source.grow(missing.max(ahead)).or_else(|| source.grow(missing)) {
            Some(end) => self.end = end,
            None => return false,
        }
        true
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It must be one of this memory that was made for that size, and in use by nobody.
    pub unsafe fn dealloc(&mut self, block: *mut u8, size: usize) {
        let (class, _) = class(size);
        let Some(first) = self.free.get_mut(class) else { return };
        let block: *mut Free = block.cast();
        // SAFETY: the smallest room is that of two pointers, and every block is aligned for one.
        unsafe { block.write(Free { next: *first }) };
        *first = block;
    }

    /// Makes a block another size; null, and all as it was, where there is no memory for it.
    ///
    /// # Safety
    /// As for [`alloc`](Self::alloc) and [`dealloc`](Self::dealloc), the block being of the size `from`.
    pub unsafe fn realloc(
        &mut self,
        block: *mut u8,
        from: usize,
        to: usize,
        align: usize,
        source: &impl Source,
    ) -> *mut u8 {
        let ((old, had), (new, room)) = (class(from), class(to));
        if old == new {
            return block;
        }
        // What was given out last can grow where it is.
        if block.addr() + had == self.next && room > had && self.reach(block.addr() + room, source) {
            self.next = block.addr() + room;
            return block;
        }
        // SAFETY: both are valid for what is copied, and don't overlap, as nobody else has the new one.
        unsafe {
            let moved = self.alloc(to, align, source);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, from.min(to));
                self.dealloc(block, from);
            }
            moved
        }
    }
}

/// The one memory of a module, and its allocator.
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "allocator"))]
mod global {
    use std::{
        alloc::{GlobalAlloc, Layout},
        arch::wasm32::{memory_grow, memory_size},
        cell::UnsafeCell,
    };

    use super::{Memory, Source};

    const PAGE: usize = 65536;

    unsafe extern "C" {
        /// The end of the module's own data, which the linker defines.
        static __heap_base: u8;
    }

    struct Linear;

    impl Source for Linear {
        fn bounds(&self) -> (usize, usize) {
            ((&raw const __heap_base).expose_provenance(), memory_size(0) * PAGE)
        }

        fn grow(&self, bytes: usize) -> Option<usize> {
            let pages = bytes.div_ceil(PAGE);
            match memory_grow(0, pages) {
                usize::MAX => None,
                before => (before + pages).checked_mul(PAGE),
            }
        }
    }

    struct Allocator(UnsafeCell<Memory>);

    // SAFETY: a module has one thread.
    unsafe impl Sync for Allocator {}

    // SAFETY: the memory's blocks are valid for their size and aligned as asked until they are given back, and nothing in
    // it calls an allocator.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: there is one source, and what is behind the module's data is nobody else's.
            unsafe { (*self.0.get()).alloc(layout.size(), layout.align(), &Linear) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the caller says so.
            unsafe { (*self.0.get()).dealloc(block, layout.size()) }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as in both.
            unsafe { (*self.0.get()).realloc(block, layout.size(), size, layout.align(), &Linear) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator(UnsafeCell::new(Memory::new()));
}

#[cfg(test)]
mod tests {
    use std::{alloc::Layout, cell::Cell};

    use super::*;

    /// Memory of a machine, of which a part is there at first.
    struct Arena {
        first: usize,
        end: Cell<usize>,
        most: usize,
    }

    impl Arena {
        fn new(bytes: usize) -> Self {
            let layout = Layout::from_size_align(bytes, 4096).unwrap();
            // SAFETY: it has a size; it is never given back, and no test needs it to be.
            let first = unsafe { std::alloc::alloc_zeroed(layout) }.expose_provenance();
            Self { first: first + 24, end: Cell::new(first + 8192), most: first + bytes }
        }
    }

    impl Source for Arena {
        fn bounds(&self) -> (usize, usize) {
            (self.first, self.end.get())
        }

        fn grow(&self, bytes: usize) -> Option<usize> {
            let end = self.end.get() + bytes;
            (end <= self.most).then(|| {
                self.end.set(end);
                end
            })
        }
    }

    #[test]
    fn a_class_has_room_for_what_it_is_for() {
        let mut before = (CLASSES, 0);
        for size in (1..5000).chain((13..32).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let (number, room) = class(size);
            assert!(number < CLASSES && room >= size, "{size}: {number}, {room}");
            assert!(room - size < 8.max(size / 4 + 1), "{size} wastes much in {room}");
            assert!((number == before.0) == (room == before.1), "one room a class: {size}");
            assert_eq!(class(room), (number, room));
            before = (number, room);
        }
    }

    #[test]
    fn blocks_are_aligned_keep_what_is_in_them_and_are_used_again() {
        let arena = Arena::new(8 << 20);
        let mut memory = Memory::new();
        let mut held: Vec<(*mut u8, usize, usize, u8)> = Vec::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            // Knuth's MMIX generator; its high bits are the better ones.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for step in 0..200_000_u32 {
            let most = 1 << next(14);
            let (size, mark) = (1 + next(most) as usize, step as u8);
            // SAFETY: each block is written within its size, and given back once.
            unsafe {
                if held.len() > 100 || (next(3) == 0 && !held.is_empty()) {
                    let (block, had, align, mark) = held.swap_remove(next(held.len() as u64) as usize);
                    assert!(std::slice::from_raw_parts(block, had).iter().all(|byte| *byte == mark));
                    if next(2) == 0 {
                        memory.dealloc(block, had);
                    } else {
                        let block = memory.realloc(block, had, size, align, &arena);
                        assert!(!block.is_null(), "what is given back is used again");
                        assert!(std::slice::from_raw_parts(block, had.min(size)).iter().all(|byte| *byte == mark));
                        block.write_bytes(mark, size);
                        held.push((block, size, align, mark));
                    }
                } else {
                    let align = 1 << next(5);
                    let block = memory.alloc(size, align, &arena);
                    assert!(!block.is_null(), "what is given back is used again");
                    assert!(block.addr().is_multiple_of(align.min(if size > 8 { align } else { 8 })));
                    block.write_bytes(mark, size);
                    held.push((block, size, align, mark));
                }
            }
        }
    }

    #[test]
    fn where_there_is_no_more_nothing_is_lost() {
        let arena = Arena::new(64 << 10);
        let mut memory = Memory::new();
        // SAFETY: as above.
        unsafe {
            assert!(memory.alloc(1 << 20, 1, &arena).is_null());
            assert!(memory.alloc(isize::MAX as usize, 1, &arena).is_null());
            let block = memory.alloc(1000, 1, &arena);
            block.write_bytes(7, 1000);
            assert!(memory.realloc(block, 1000, 1 << 20, 1, &arena).is_null());
            assert!(std::slice::from_raw_parts(block, 1000).iter().all(|byte| *byte == 7));
            let grown = memory.realloc(block, 1000, 40_000, 1, &arena);
            assert_eq!(grown, block, "the last block grows where it is");
            assert!(std::slice::from_raw_parts(grown, 1000).iter().all(|byte| *byte == 7));
        }
    }
}
