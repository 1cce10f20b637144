//! Memory for secrets: own pages, locked against swapping, left out of core dumps, zeroized before they are given back.
//!
//! *Invariants*
//! 1. A [`Locked`] value never shares a page with anything else, so unlocking one never exposes another.
//! 2. Locking is best effort: where the limit is spent the value works all the same, and a warning is logged.
//!
//! *Threads*: plain data; a [`Locked`] is as shareable as what it holds.
//!
//! *Not here*: which secrets there are (`keys.rs`). This is the only module of the package that may use `unsafe`.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use zeroize::Zeroize;

/// Pages are at most this large where vellum runs; a multiple of the real size is as good.
const PAGE_BYTES: usize = 16 << 10;

/// One value on pages of its own.
pub struct Locked<T: Zeroize> {
    value: NonNull<T>,
    layout: Layout,
    is_locked: bool,
}

// SAFETY: a `Locked` owns its value alone, like a `Box`.
unsafe impl<T: Zeroize + Send> Send for Locked<T> {}
// SAFETY: shared access gives out `&T` only, like a `Box`.
unsafe impl<T: Zeroize + Sync> Sync for Locked<T> {}

impl<T: Zeroize + Default> Locked<T> {
    /// A default value that `fill` completes in place, so that the secret lies nowhere else on its way here.
    pub fn new(fill: impl FnOnce(&mut T)) -> Self {
        let bytes = size_of::<T>().max(1).next_multiple_of(PAGE_BYTES);
        let layout = Layout::from_size_align(bytes, PAGE_BYTES.max(align_of::<T>()))
            .expect("a page and the size of a type are valid bounds of an allocation");
        // SAFETY: the layout has a size of at least one page.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(value) = NonNull::new(memory.cast::<T>()) else { handle_alloc_error(layout) };
        // SAFETY: the memory is as large and as aligned as a `T` and belongs to nobody else.
        unsafe { value.write(T::default()) };
        let is_locked = lock(memory, bytes);
        let mut locked = Self { value, layout, is_locked };
        fill(&mut locked);
        locked
    }
}

impl<T: Zeroize> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` initialised the value, and it lives until `drop`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Zeroize> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and the borrow is exclusive.
        unsafe { self.value.as_mut() }
    }
}

impl<T: Zeroize> Drop for Locked<T> {
    fn drop(&mut self) {
        self.zeroize();
        let memory = self.value.as_ptr().cast::<u8>();
        // SAFETY: the value is initialised and is not used after this.
        unsafe { self.value.drop_in_place() };
        if self.is_locked {
            unlock(memory, self.layout.size());
        }
        // SAFETY: `new` allocated this memory with this layout.
        unsafe { dealloc(memory, self.layout) };
    }
}

impl<T: Zeroize> std::fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locked(..)")
    }
}

#[cfg(unix)]
fn lock(memory: *mut u8, bytes: usize) -> bool {
    // SAFETY: the range is one live allocation of whole pages; the call changes no byte of it.
    let locked = unsafe { libc::mlock(memory.cast(), bytes) } == 0;
    if !locked {
        log::warn!("cannot lock keys in memory: {}", std::io::Error::last_os_error());
    }
    #[cfg(target_os = "linux")]
    // SAFETY: as above. A refusal leaves the pages in core dumps, which `harden_process` forbids as well.
    let _ = unsafe { libc::madvise(memory.cast(), bytes, libc::MADV_DONTDUMP) };
    locked
}

#[cfg(unix)]
fn unlock(memory: *mut u8, bytes: usize) {
    // The allocator may reuse the pages for anything: undo what `lock` asked for. A refusal only leaves them locked.
    #[cfg(target_os = "linux")]
    // SAFETY: the range is one live allocation of whole pages.
    let _ = unsafe { libc::madvise(memory.cast(), bytes, libc::MADV_DODUMP) };
    // SAFETY: as above.
    let _ = unsafe { libc::munlock(memory.cast(), bytes) };
}

#[cfg(not(unix))]
fn lock(_memory: *mut u8, _bytes: usize) -> bool {
    false
}

#[cfg(not(unix))]
fn unlock(_memory: *mut u8, _bytes: usize) {}
