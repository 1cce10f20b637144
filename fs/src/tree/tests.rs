#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;

/// Nodes in a map, with a count of what was put.
#[derive(Default)]
pub(crate) struct MapStore {
    nodes: Mutex<HashMap<BlobId, Arc<[u8]>>>,
}

impl NodeStore for MapStore {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        let node = self.nodes.lock().get(id).cloned();
        node.ok_or_else(|| vellum_store::Error::BlobMissing { id: *id }.into())
    }

    fn put(&self, bytes: Vec<u8>, _interior: bool) -> Result<BlobId> {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        self.nodes.lock().insert(id, bytes.into());
        Ok(id)
    }
}

#[test]
fn what_was_inserted_is_found_and_nothing_else() {
    let store = Arc::new(MapStore::default());
    let mut tree = Tree::empty(store.clone(), NodeCache::new(1 << 20)).with_node_bytes(512);
    for i in 0..2000u32 {
        let i = i.wrapping_mul(2_654_435_761);
        assert!(tree.insert(&i.to_be_bytes(), &i.to_le_bytes()).unwrap());
    }
    let root = tree.store().unwrap();
    let tree = Tree::load(store, NodeCache::new(1 << 20), &root).unwrap();
    for i in 0..2000u32 {
        let i = i.wrapping_mul(2_654_435_761);
        assert_eq!(tree.get(&i.to_be_bytes()).unwrap(), Some(i.to_le_bytes().to_vec()));
        assert_eq!(tree.get(&(i ^ 1).to_be_bytes()).unwrap().is_some(), tree.contains(&(i ^ 1).to_be_bytes()).unwrap());
    }
}
