//! How a command reaches the process of a mount: an owner-only socket that carries one JSON document a line.
//!
//! A request is one line. The answer is any number of lines that tell progress, and one that ends it. Several requests may follow
//! each other on a connection.
//!
//! *Invariants*
//! 1. Only the owner of the mount and root are answered: the directory and the socket let nobody else in, and the peer's
//!    user is asked of the kernel as well.
//! 2. No secret goes over it; the process has its keys.
//!
//! *Bounds*: a line has at most [`LINE_BYTES_MAX`] bytes.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::Report,
    reports::{DamageReport, Name, ProgressReport},
};

pub mod client;
pub mod place;
pub mod server;

/// Longest line.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How the mount is doing.
    Status,
    /// Take a snapshot.
    Snapshot {
        /// Its name; the time otherwise.
        name: Option<Name>,
        /// A comment.
        comment: String,
    },
    /// List snapshots.
    Snapshots,
    /// Delete a snapshot.
    Delete {
        /// Its name.
        name: Name,
    },
    /// Rename a snapshot.
    Rename {
        /// Its name.
        name: Name,
        /// The new one.
        new_name: Name,
    },
    /// Count what the repository holds.
    Stats,
    /// Check the repository.
    Check {
        /// Every byte.
        read_data: bool,
        /// From where the last one was cut off.
        #[serde(default)]
        resume: bool,
    },
    /// Free the space that nothing reaches.
    Gc {
        /// Most that may stay unused, in percent.
        max_unused: Option<u8>,
        /// Only tell what would be done.
        dry_run: bool,
    },
    /// Make everything durable that was written so far.
    Sync,
    /// Say when the volume was closed and everything is durable. The answer comes after the mount is gone.
    UmountWait,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How far it is; more follows.
    Progress(ProgressReport),
    /// Damage that was found; more follows.
    Found(DamageReport),
    /// [`Request::UmountWait`] was understood; more follows.
    Waiting,
    /// No conversation can be held now; the connection ends without a look at what was asked.
    Busy,
    /// The result; ends the answer.
    Done(serde_json::Value),
    /// What failed; ends the answer.
    Failed(Report),
}

/// Writes one line.
pub fn write_line(to: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads one line; `None` at the end.
pub fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_one_line_each_and_come_back() {
        let requests = [
            Request::Status,
            Request::Snapshot { name: Some(Name(b"a\n\xff".to_vec())), comment: "x\ny".into() },
            Request::Check { read_data: true, resume: false },
            Request::Gc { max_unused: Some(5), dry_run: true },
            Request::UmountWait,
        ];
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| write_line(&mut bytes, request).unwrap());
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), requests.len());
        let mut from = &bytes[..];
        for request in requests {
            assert_eq!(read_line::<Request>(&mut from).unwrap(), Some(request));
        }
        assert_eq!(read_line::<Request>(&mut from).unwrap(), None);
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for text in ["{\"command\":\"explode\"}\n", "\n", "status\n", "{\"command\":\"status\"}"] {
            assert!(read_line::<Request>(&mut text.as_bytes()).is_err(), "{text}");
        }
    }
}
