//! Objects in memory: a backend for tests of the layers above, without durability of its own.
//!
//! *Not here*: crashes; they need a [`super::LocalBackend`] on a [`crate::disk::MemoryDisk`].

use std::{
    collections::{BTreeMap, btree_map},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{ASIDE_MAX, Backend, ObjectName, OpenName, OpenObject, Put, Space};
use crate::error::{Error, Result};

/// A repository's objects in memory; clones are the same repository.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    state: Arc<Mutex<State>>,
    reads: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<Vec<u8>>>,
    open: BTreeMap<OpenName, Vec<u8>>,
}

impl MemoryBackend {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads of objects so far, whole or ranged.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Changes a stored object as damage does, or does nothing if there is none.
    pub fn damage(&self, name: &ObjectName, f: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.state.lock().objects.get_mut(name) {
            f(Arc::make_mut(bytes));
        }
    }

    fn object(&self, name: &ObjectName) -> Result<Arc<Vec<u8>>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.state.lock().objects.get(name).cloned();
        found.ok_or_else(|| Error::NotFound { object: name.to_string() })
    }
}

fn range(object: &str, bytes: &[u8], offset: u64, length: u32) -> Result<Vec<u8>> {
    let start = usize::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(length as usize));
    match start.zip(end).and_then(|(start, end)| bytes.get(start..end)) {
        Some(found) => Ok(found.to_vec()),
        None => Err(Error::corrupt(object, format!("truncated: {length} bytes at {offset} reach beyond its end"))),
    }
}

impl Backend for MemoryBackend {
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let mut state = self.state.lock();
        if state.objects.contains_key(name) {
            return Ok(Put::Exists);
        }
        state.objects.insert(name.clone(), Arc::new(bytes.to_vec()));
        Ok(Put::Stored)
    }

    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        if !name.is_replaceable() {
            return Err(Error::Invalid { what: format!("{name} is never replaced") });
        }
        self.state.lock().objects.insert(name.clone(), Arc::new(bytes.to_vec()));
        Ok(())
    }

    fn get(&self, name: &ObjectName, length_max: u64) -> Result<Vec<u8>> {
        let bytes = self.object(name)?;
        if bytes.len() as u64 > length_max {
            return Err(Error::corrupt(
                name.as_str(),
                format!("{} bytes, where {length_max} are the most", bytes.len()),
            ));
        }
        Ok(bytes.to_vec())
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: u32) -> Result<Vec<u8>> {
        range(name.as_str(), &self.object(name)?, offset, length)
    }

    fn length(&self, name: &ObjectName) -> Result<Option<u64>> {
        Ok(self.state.lock().objects.get(name).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str, f: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        let found: Vec<_> = {
            let state = self.state.lock();
            let named = state.objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
            named.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
        };
        found.into_iter().try_for_each(|(name, length)| f(name, length))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.state.lock().objects.remove(name);
        Ok(())
    }

    fn set_aside(&self, name: &ObjectName) -> Result<bool> {
        let mut state = self.state.lock();
        let Some(bytes) = state.objects.remove(name) else { return Ok(false) };
        let names = std::iter::once(name.aside()).chain((2..=ASIDE_MAX).map(|count| name.aside_again(count)));
        for aside in names {
            if let btree_map::Entry::Vacant(free) = state.objects.entry(aside) {
                free.insert(bytes);
                return Ok(true);
            }
        }
        state.objects.insert(name.clone(), bytes);
        Err(Error::AlreadyExists { path: name.aside().to_string(), what: "too many damaged objects".to_string() })
    }

    fn create_open(&self, _size_hint: u64) -> Result<Box<dyn OpenObject>> {
        let name = OpenName::random();
        self.state.lock().open.insert(name.clone(), Vec::new());
        Ok(Box::new(MemoryOpen { state: self.state.clone(), name, place: Mutex::new(Place::Open) }))
    }

    fn list_open(&self) -> Result<Vec<OpenName>> {
        Ok(self.state.lock().open.keys().cloned().collect())
    }

    fn read_open(&self, name: &OpenName, offset: u64, length: u32) -> Result<Vec<u8>> {
        match self.state.lock().open.get(name) {
            Some(bytes) => range(&name.to_string(), bytes, offset, length),
            None => Err(Error::NotFound { object: name.to_string() }),
        }
    }

    fn delete_open(&self, name: &OpenName) -> Result<()> {
        self.state.lock().open.remove(name);
        Ok(())
    }

    fn space(&self) -> Result<Space> {
        Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX, reserve_bytes: 0, unreserved_bytes: 0 })
    }
}

#[derive(Debug)]
struct MemoryOpen {
    state: Arc<Mutex<State>>,
    name: OpenName,
    place: Mutex<Place>,
}

/// Where the bytes of an open object are.
#[derive(Debug)]
enum Place {
    Open,
    /// Nothing can be appended; the bytes stay readable.
    Published(Arc<Vec<u8>>),
    /// The same, but the bytes are in no object.
    Discarded(Arc<Vec<u8>>),
}

impl MemoryOpen {
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        match &*self.place.lock() {
            Place::Published(bytes) | Place::Discarded(bytes) => f(bytes),
            Place::Open => f(self.state.lock().open.get(&self.name).map_or(&[], |bytes| bytes)),
        }
    }

    fn closed(&self) -> Error {
        Error::Invalid { what: format!("{} was published or discarded already", self.name) }
    }
}

impl OpenObject for MemoryOpen {
    fn name(&self) -> &OpenName {
        &self.name
    }

    fn append(&self, bytes: &[u8]) -> Result<u64> {
        let place = self.place.lock();
        let mut state = self.state.lock();
        match (&*place, state.open.get_mut(&self.name)) {
            (Place::Open, Some(open)) => {
                let offset = open.len() as u64;
                open.extend_from_slice(bytes);
                Ok(offset)
            }
            _ => Err(self.closed()),
        }
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.with_bytes(|bytes| range(&self.name.to_string(), bytes, offset, length))
    }

    fn len(&self) -> u64 {
        self.with_bytes(|bytes| bytes.len() as u64)
    }

    fn sync(&self) -> Result<()> {
        match &*self.place.lock() {
            Place::Open | Place::Published(_) => Ok(()),
            Place::Discarded(_) => Err(self.closed()),
        }
    }

    fn publish(&self, name: &ObjectName) -> Result<Put> {
        let mut place = self.place.lock();
        let mut state = self.state.lock();
        let bytes = match (&*place, state.open.remove(&self.name)) {
            (Place::Open, Some(bytes)) => Arc::new(bytes),
            _ => return Err(self.closed()),
        };
        *place = Place::Published(bytes.clone());
        if state.objects.contains_key(name) {
            return Ok(Put::Exists);
        }
        state.objects.insert(name.clone(), bytes);
        Ok(Put::Stored)
    }

    fn discard(&self) {
        let mut place = self.place.lock();
        if let Some(bytes) = self.state.lock().open.remove(&self.name) {
            *place = Place::Discarded(Arc::new(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::backend::conformance::check(&|| Box::new(MemoryBackend::new()));
    }
}
