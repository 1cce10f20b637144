//! The few verbs of sled that a table needs, with sled's errors in our words.

use std::{
    path::Path,
    thread::yield_now,
    time::{Duration, Instant},
};

use super::Row;
use crate::error::{Error, Result};

const CACHE_BYTES: u64 = 1 << 20;
const OPEN_WAIT_MAX: Duration = Duration::from_millis(200);

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    db: sled::Db,
}

impl Database {
    /// Opens or creates the database in a directory.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let start = Instant::now();
        loop {
            match config.open() {
                Ok(db) => return Ok(Self { db }),
                // After a database was dropped, a thread of sled's own still holds its lock for a moment.
                Err(e) if is_locked(&e.to_string()) && start.elapsed() < OPEN_WAIT_MAX => yield_now(),
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// All rows; more than `count_max` of them are an error.
    pub(super) fn rows(&self, count_max: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for row in self.db.iter().take(count_max + 1) {
            let (key, value) = row.map_err(failed)?;
            rows.push((key.to_vec(), value.to_vec()));
        }
        match rows.len() > count_max {
            true => Err(Error::corrupt("table", "too many rows")),
            false => Ok(rows),
        }
    }

    /// Removes all rows, durably.
    pub(super) fn clear(&self) -> Result<()> {
        self.db.clear().map_err(failed)?;
        self.sync()
    }

    /// Sets a row.
    pub(super) fn put(&self, key: &[u8], value: Vec<u8>) -> Result<()> {
        self.db.insert(key, value).map(drop).map_err(failed)
    }

    /// Makes all rows durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.db.flush().map(drop).map_err(failed)
    }
}

fn failed(error: sled::Error) -> Error {
    Error::corrupt("table", error.to_string())
}

/// Whether an error says that another process has the database open; sled tells it by its text alone.
pub(super) fn is_locked(error: &str) -> bool {
    error.contains("acquire lock")
}
