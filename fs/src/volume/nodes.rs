//! Tree nodes kept in the repository: the adaptor from the tree's [`NodeStore`] to blobs of kind Node.
//!
//! *Ordering*: a node's children are put before it; the commit that publishes the root waits for all of them (F2).

use std::sync::Arc;

use vellum_store::{
    id::{BlobId, BlobKind},
    repository::{Copies, Repository},
};

use crate::{error::Result, tree::NodeStore};

/// Nodes as blobs of a repository.
#[derive(Debug)]
pub struct RepositoryNodes {
    repository: Arc<Repository>,
}

impl RepositoryNodes {
    /// Nodes of `repository`.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository }
    }
}

impl NodeStore for RepositoryNodes {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        Ok(self.repository.read_node(id)?)
    }

    fn put(&self, bytes: Vec<u8>, interior: bool) -> Result<BlobId> {
        // One damaged interior node would hide every file below it; leaves are covered by their neighbours' checks.
        let copies = if interior { Copies::Two } else { Copies::One };
        Ok(self.repository.put(BlobKind::Node, bytes, copies)?)
    }
}
