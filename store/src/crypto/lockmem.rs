//! Memory for secrets: own pages, locked against swapping, left out of core dumps, zeroized before they are given back.
//!
//! *Invariants*
//! 1. A [`Locked`] value never shares a page with anything else, so unlocking one never exposes another.
//! 2. Locking is best effort: where the limit is spent the value works all the same, and a warning is logged once.
//!
//! *Threads*: plain data; a [`Locked`] is as shareable as what it holds.
//!
//! *Bounds*: a value takes one page in practice; a process holds a few.
//!
//! *Not here*: which secrets there are (`keys.rs`). This is the only module of the package that may use `unsafe`.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use zeroize::Zeroize;

/// Size of a page where the system does not say: a multiple of the real one is as good.
const PAGE_BYTES_FALLBACK: usize = 64 << 10;

/// Set after the first warning: every key would repeat it.
#[cfg(all(unix, not(miri)))]
static WARNED: std::sync::Once = std::sync::Once::new();

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
        let page = page_bytes();
        let bytes = size_of::<T>().max(1).next_multiple_of(page);
        let layout = Layout::from_size_align(bytes, page.max(align_of::<T>()))
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

/// Keeps secrets of this process out of core dumps and away from debuggers of the same user. To be called once, early; it
/// cannot be undone, and what the system refuses is an error that the caller may report and live with.
pub fn harden_process() -> std::io::Result<()> {
    #[cfg(unix)]
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(unix)]
fn page_bytes() -> usize {
    let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| bytes.is_power_of_two())
        .unwrap_or(PAGE_BYTES_FALLBACK)
}

#[cfg(not(unix))]
fn page_bytes() -> usize {
    PAGE_BYTES_FALLBACK
}

// Miri knows no `mlock`.
#[cfg(all(unix, not(miri)))]
fn lock(memory: *mut u8, bytes: usize) -> bool {
    // SAFETY: the range is one live allocation of whole pages; the call changes no byte of it.
    let locked = unsafe { libc::mlock(memory.cast(), bytes) } == 0;
    if !locked {
        let error = std::io::Error::last_os_error();
        WARNED.call_once(|| log::warn!("cannot lock keys in memory, they may reach the swap: {error}"));
    }
    #[cfg(target_os = "linux")]
    // SAFETY: as above. A refusal leaves the pages in core dumps, which `harden_process` forbids as well.
    let _ = unsafe { libc::madvise(memory.cast(), bytes, libc::MADV_DONTDUMP) };
    locked
}

#[cfg(all(unix, not(miri)))]
fn unlock(memory: *mut u8, bytes: usize) {
    // The allocator may reuse the pages for anything: undo what `lock` asked for. A refusal only leaves them locked.
    #[cfg(target_os = "linux")]
    // SAFETY: the range is one live allocation of whole pages.
    let _ = unsafe { libc::madvise(memory.cast(), bytes, libc::MADV_DODUMP) };
    // SAFETY: as above.
    let _ = unsafe { libc::munlock(memory.cast(), bytes) };
}

#[cfg(any(not(unix), miri))]
fn lock(_memory: *mut u8, _bytes: usize) -> bool {
    false
}

#[cfg(any(not(unix), miri))]
fn unlock(_memory: *mut u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_value_has_pages_of_its_own() {
        let values: Vec<Locked<[u8; 32]>> =
            (0..8).map(|i| Locked::new(|value: &mut [u8; 32]| *value = [i; 32])).collect();
        let mut pages: Vec<_> = values.iter().map(|value| value.as_ptr() as usize / page_bytes()).collect();
        pages.dedup();
        assert_eq!(pages.len(), values.len());
        for (i, value) in values.iter().enumerate() {
            assert_eq!(value.as_ptr() as usize % page_bytes(), 0);
            assert_eq!(**value, [i as u8; 32]);
        }
    }

    #[test]
    fn values_work_when_the_limit_on_locked_memory_is_spent() {
        // More than any usual limit would allow to lock at once; in the end all are given back.
        let values: Vec<Locked<Vec<u8>>> =
            (0..3000).map(|_| Locked::new(|value: &mut Vec<u8>| value.push(7))).collect();
        assert!(values.iter().all(|value| **value == [7]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_hardened_process_leaves_no_core_dump() {
        use nix::sys::{prctl, resource};
        harden_process().unwrap();
        assert_eq!(resource::getrlimit(resource::Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
    }
}
