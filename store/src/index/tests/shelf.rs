//! A backend in memory whose objects a test can damage, whose reads it can count, and whose publications it can refuse.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    backend::{Backend, ObjectName, OpenName, OpenObject, Put, Space},
    error::{Error, Result},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    open: Mutex<BTreeMap<OpenName, Vec<u8>>>,
    range_reads: AtomicU64,
    refuse_publish: AtomicBool,
}

impl Shelf {
    pub(super) fn change(&self, name: &ObjectName, f: impl FnOnce(&mut Vec<u8>)) {
        f(self.0.objects.lock().get_mut(name.as_str()).expect("the object is there"));
    }

    pub(super) fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.0.objects.lock()[name.as_str()].clone()
    }

    pub(super) fn range_reads(&self) -> u64 {
        self.0.range_reads.load(Ordering::Relaxed)
    }

    pub(super) fn refuse_publish(&self, refuse: bool) {
        self.0.refuse_publish.store(refuse, Ordering::Relaxed);
    }

    pub(super) fn open_count(&self) -> usize {
        self.0.open.lock().len()
    }
}

fn cut(bytes: &[u8], offset: u64, length: u32, object: &str) -> Result<Vec<u8>> {
    let range = offset as usize..offset as usize + length as usize;
    bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| Error::corrupt(object, "truncated"))
}

impl Backend for Shelf {
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let mut objects = self.0.objects.lock();
        if objects.contains_key(name.as_str()) {
            return Ok(Put::Exists);
        }
        objects.insert(name.to_string(), bytes.to_vec());
        Ok(Put::Stored)
    }

    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.0.objects.lock().insert(name.to_string(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, name: &ObjectName, length_max: u64) -> Result<Vec<u8>> {
        let length = self.length(name)?.ok_or_else(|| Error::NotFound { object: name.to_string() })?;
        self.get_range(name, 0, length.min(length_max) as u32)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.0.range_reads.fetch_add(1, Ordering::Relaxed);
        let objects = self.0.objects.lock();
        let bytes = objects.get(name.as_str()).ok_or_else(|| Error::NotFound { object: name.to_string() })?;
        cut(bytes, offset, length, name.as_str())
    }

    fn length(&self, name: &ObjectName) -> Result<Option<u64>> {
        Ok(self.0.objects.lock().get(name.as_str()).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str, f: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        let objects = self.0.objects.lock();
        let found: Vec<_> =
            objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(n, b)| (n.clone(), b.len())).collect();
        drop(objects);
        found.into_iter().try_for_each(|(name, length)| f(ObjectName::new(&name)?, length as u64))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.0.objects.lock().remove(name.as_str());
        Ok(())
    }

    fn set_aside(&self, name: &ObjectName) -> Result<bool> {
        let mut objects = self.0.objects.lock();
        let bytes = objects.remove(name.as_str());
        Ok(bytes.is_some_and(|bytes| objects.insert(name.aside().to_string(), bytes).is_none()))
    }

    fn create_open(&self, _: u64) -> Result<Box<dyn OpenObject>> {
        let name = OpenName::random();
        self.0.open.lock().insert(name.clone(), Vec::new());
        Ok(Box::new(OnShelf { shelf: self.clone(), name }))
    }

    fn list_open(&self) -> Result<Vec<OpenName>> {
        Ok(self.0.open.lock().keys().cloned().collect())
    }

    fn read_open(&self, name: &OpenName, offset: u64, length: u32) -> Result<Vec<u8>> {
        let open = self.0.open.lock();
        let bytes = open.get(name).ok_or_else(|| Error::NotFound { object: name.to_string() })?;
        cut(bytes, offset, length, name.as_str())
    }

    fn delete_open(&self, name: &OpenName) -> Result<()> {
        self.0.open.lock().remove(name);
        Ok(())
    }

    fn space(&self) -> Result<Space> {
        Err(Error::Invalid { what: "a shelf has no end".to_string() })
    }
}

#[derive(Debug)]
struct OnShelf {
    shelf: Shelf,
    name: OpenName,
}

impl OpenObject for OnShelf {
    fn name(&self) -> &OpenName {
        &self.name
    }

    fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut open = self.shelf.0.open.lock();
        let object = open.get_mut(&self.name).expect("still open");
        object.extend_from_slice(bytes);
        Ok((object.len() - bytes.len()) as u64)
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.shelf.read_open(&self.name, offset, length)
    }

    fn len(&self) -> u64 {
        self.shelf.0.open.lock().get(&self.name).map_or(0, |bytes| bytes.len() as u64)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn publish(&self, name: &ObjectName) -> Result<Put> {
        if self.shelf.0.refuse_publish.load(Ordering::Relaxed) {
            return Err(Error::io("publish", io::Error::from(io::ErrorKind::StorageFull)));
        }
        let bytes = self.shelf.0.open.lock().remove(&self.name).expect("still open");
        self.shelf.put_new(name, &bytes)
    }

    fn discard(&self) {
        self.shelf.0.open.lock().remove(&self.name);
    }
}
