//! Making a repository.
//!
//! *Ordering*: key slots -> `config` copies. A directory without `config` is no repository, so an `init` that was interrupted
//! can simply be repeated.

use std::ops::ControlFlow;

use super::{InitOptions, Repository, options::create_dirs};
use crate::{
    backend::{Backend, LocalBackend, ObjectName},
    config::{CONFIG_COPIES, RepositoryConfig},
    crypto::{Keyring, MasterKey, random, seal_config, seal_slot},
    disk::Disk,
    error::{Error, Result},
    id::RepositoryId,
};

/// What an interrupted `init` may have left.
const LEFT_BY_INIT: [&str; 2] = ["keys", "tmp"];

impl Repository {
    /// Makes a repository in a missing or empty directory, and gives its identity.
    ///
    /// [`Error::AlreadyExists`] if the directory holds anything else.
    pub fn init(options: &InitOptions) -> Result<RepositoryId> {
        let InitOptions { path, disk, .. } = options;
        let doing = || format!("create {}", path.display());
        refuse_occupied(&**disk, options)?;
        create_dirs(&**disk, path).map_err(|e| Error::io(doing(), e))?;
        let backend = LocalBackend::new(disk.clone(), path.clone(), false);
        backend.list("keys/", &mut |name, _| backend.delete(&name))?;

        let repository = RepositoryId(random());
        let config = RepositoryConfig {
            chunk_sizes: options.chunk_sizes,
            pack_bytes: options.pack_bytes,
            compression: options.compression,
            ..RepositoryConfig::new(repository, options.created_ns)
        };
        config.check()?;
        let master = MasterKey::generate();
        let InitOptions { slot, label, credential, kdf, created_ns, .. } = options;
        let sealed = seal_slot(&master, 0, repository, slot, label, credential, *kdf, *created_ns)?;
        for object in slot.objects() {
            backend.replace(&ObjectName::new(&object)?, &sealed)?;
        }
        let bytes = seal_config(&Keyring::new(&master, repository, 0), &config);
        for object in CONFIG_COPIES {
            backend.replace(&ObjectName::new(object)?, &bytes)?;
        }
        Ok(repository)
    }
}

fn refuse_occupied(disk: &dyn Disk, options: &InitOptions) -> Result<()> {
    let path = &options.path;
    let doing = || format!("look into {}", path.display());
    let occupied = |what: &str| Error::AlreadyExists { path: path.display().to_string(), what: what.to_string() };
    match disk.metadata(path).map_err(|e| Error::io(doing(), e))? {
        None => return Ok(()),
        Some(info) if !info.is_dir => return Err(occupied("a file")),
        Some(_) => {}
    }
    let mut found = None;
    let listed = disk.list_dir(path, &mut |name, _| {
        let name = name.to_string_lossy();
        if LEFT_BY_INIT.contains(&&*name) {
            return ControlFlow::Continue(());
        }
        found = Some(if CONFIG_COPIES.contains(&&*name) { "a repository".to_string() } else { format!("{name:?}") });
        ControlFlow::Break(())
    });
    listed.map_err(|e| Error::io(doing(), e))?;
    found.map_or(Ok(()), |what| Err(occupied(&what)))
}
