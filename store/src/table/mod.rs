//! Small local tables in sled: figures that save a walk, and that can be lost at any time.
//!
//! *Invariants*
//! 1. A table tells exactly one state of the repository: it carries a stamp made of the heads and the gc generation that it describes,
//!    and is read only by whoever sees the same. The stamp is taken away before rows change and comes back after they are durable.
//! 2. After a mismatch, any error or panic of sled, or a change of version, the table is dropped unread; nothing depends on it.
//! 3. Rows are sealed; what is altered or moved to another key does not unseal.
//!
//! *Threads*: one process at a time, which sled's own lock sees to; another one goes without. sled starts threads of its own
//! while a table is open, so it is opened for one reading or writing and closed again.
//!
//! *Bounds*: [`ROWS_MAX`] rows. sled 0.34 took 3.3 KB of memory a row, so nothing that grows with the repository is kept here.
//!
//! *Not here*: anything that cannot be rebuilt.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    crypto::{Keyring, Purpose},
    error::{Error, Result},
    id::RepositoryId,
};

// Named for the rule that only modules of this name know sled.
#[allow(clippy::module_inception)]
mod table;

use table::{Database, is_locked};

/// Most rows of a table.
pub const ROWS_MAX: usize = 4096;
const VERSION: u32 = 0;
/// No row has an empty key.
const STAMP_KEY: &[u8] = b"";

/// Key and value of a row.
pub type Row = (Vec<u8>, Vec<u8>);

/// The state of a repository that a table describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; 32]);

impl Stamp {
    /// A stamp of anything that differs between states.
    pub fn of(state: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&VERSION.to_le_bytes()).update(env!("CARGO_PKG_VERSION").as_bytes()).update(state);
        Self(*hasher.finalize().as_bytes())
    }
}

/// The place of one repository's table.
#[derive(Debug)]
pub struct Table {
    dir: PathBuf,
    keyring: Arc<Keyring>,
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Names of the threads that sled starts.
const SLED_THREADS: [&str; 2] = ["sled-io-", "log flusher"];

/// Whether a panic of the calling thread does no harm: it happens in a table that can be lost, and is caught or ends a thread of sled. For
/// a program that ends with any other panic.
pub fn is_guarded() -> bool {
    let of_sled = |name: &str| SLED_THREADS.iter().any(|prefix| name.starts_with(prefix));
    GUARDED.get() || std::thread::current().name().is_some_and(of_sled)
}

impl Table {
    /// The table of a repository below the directory of all tables; nothing is touched yet.
    pub fn new(tables: &Path, repository: RepositoryId, keyring: Arc<Keyring>) -> Self {
        Self { dir: tables.join(repository.to_hex()), keyring }
    }

    /// All rows, if the table describes this state; otherwise it is dropped.
    pub fn load(&self, stamp: &Stamp) -> Option<Vec<Row>> {
        if !self.dir.exists() {
            return None;
        }
        match self.guarded(|| self.read(stamp)) {
            Ok(rows) => Some(rows),
            Err(error) => {
                self.forget(&error);
                None
            }
        }
    }

    /// Replaces the table by these rows. A failure leaves no table, or one that will be dropped.
    pub fn store(&self, stamp: &Stamp, rows: &[Row]) {
        if let Err(error) = self.guarded(|| self.write(stamp, rows)) {
            self.forget(&error);
        }
    }

    fn read(&self, stamp: &Stamp) -> Result<Vec<Row>> {
        let mut rows = Database::open(&self.dir)?.rows(ROWS_MAX + 1)?;
        for (key, value) in &mut rows {
            *value = self.keyring.unseal(Purpose::Table, self.keyring.epoch(), key, value, "table")?;
        }
        let stamp_at = rows.iter().position(|(key, _)| key == STAMP_KEY);
        match stamp_at.map(|at| rows.swap_remove(at).1) {
            Some(found) if found == stamp.0 => {
                rows.sort();
                Ok(rows)
            }
            _ => Err(Error::corrupt(format!("table {}", self.dir.display()), "it describes another state")),
        }
    }

    fn write(&self, stamp: &Stamp, rows: &[Row]) -> Result<()> {
        assert!(rows.len() <= ROWS_MAX && rows.iter().all(|(key, _)| !key.is_empty()), "rows are few and named");
        let seal = |key: &[u8], value: &[u8]| self.keyring.seal(Purpose::Table, key, value);
        let database = Database::open(&self.dir)?;
        database.clear()?;
        for (key, value) in rows {
            database.put(key, seal(key, value))?;
        }
        database.sync()?;
        database.put(STAMP_KEY, seal(STAMP_KEY, &stamp.0))?;
        database.sync()
    }

    /// Runs sled, whose bugs show as panics.
    fn guarded<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        let before = GUARDED.replace(true);
        let done = catch_unwind(AssertUnwindSafe(f));
        GUARDED.set(before);
        done.unwrap_or_else(|_| Err(Error::corrupt(format!("table {}", self.dir.display()), "sled panicked")))
    }

    /// Drops the table, unless another process is using it.
    fn forget(&self, why: &Error) {
        log::debug!("{why}");
        if is_locked(&why.to_string()) {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            // It will be tried again, and never believed without its stamp.
            log::debug!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::MasterKey;

    fn table(dir: &Path, key: u8) -> Table {
        let repository = RepositoryId([1; 16]);
        Table::new(dir, repository, Arc::new(Keyring::new(&MasterKey::from_bytes(&[key; 32]), repository, 0)))
    }

    #[test]
    fn a_panic_of_sled_is_known_to_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path(), 1);
        assert!(!is_guarded());
        let refused = table.guarded(|| -> Result<()> {
            assert!(is_guarded());
            panic!("as sled does")
        });
        assert!(refused.unwrap_err().to_string().contains("sled panicked"));
        assert!(!is_guarded());
    }

    fn rows() -> Vec<Row> {
        (0..20u8).map(|n| (vec![n + 1], vec![n; usize::from(n)])).collect()
    }

    #[test]
    fn rows_come_back_under_the_same_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path(), 1);
        assert_eq!(table.load(&Stamp::of(b"a")), None);
        table.store(&Stamp::of(b"a"), &rows());
        assert_eq!(table.load(&Stamp::of(b"a")), Some(rows()));
        table.store(&Stamp::of(b"b"), &rows()[..2]);
        assert_eq!(table.load(&Stamp::of(b"b")), Some(rows()[..2].to_vec()));
    }

    #[test]
    fn another_state_or_key_drops_the_table_unread() {
        let dir = tempfile::tempdir().unwrap();
        table(dir.path(), 1).store(&Stamp::of(b"a"), &rows());
        assert_eq!(table(dir.path(), 1).load(&Stamp::of(b"b")), None);
        assert_eq!(table(dir.path(), 1).load(&Stamp::of(b"a")), None, "it is gone");
        table(dir.path(), 1).store(&Stamp::of(b"a"), &rows());
        assert_eq!(table(dir.path(), 2).load(&Stamp::of(b"a")), None);
    }

    #[test]
    fn damaged_files_give_no_table_or_the_true_one() {
        for round in 0..24usize {
            let dir = tempfile::tempdir().unwrap();
            let table = table(dir.path(), 1);
            table.store(&Stamp::of(b"a"), &rows());
            let db = table.dir.join("db");
            let mut bytes = std::fs::read(&db).unwrap();
            let at = bytes.len() * round / 24;
            bytes[at..].iter_mut().take(40).for_each(|byte| *byte ^= 0x41);
            std::fs::write(&db, &bytes).unwrap();
            let loaded = table.load(&Stamp::of(b"a"));
            assert!(loaded.is_none() || loaded == Some(rows()), "round {round}");
            table.store(&Stamp::of(b"a"), &rows());
            let loaded = table.load(&Stamp::of(b"a"));
            assert!(loaded.is_none() || loaded == Some(rows()), "round {round}");
        }
    }
}
