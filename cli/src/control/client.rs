//! The asking end: a command that wants something of a mount's process.

use std::{
    io::{self, BufReader},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{Answer, Request, read_line, write_line};
use crate::{
    error::{Error, Exit, Result},
    reports::StatusReport,
};

/// How often, and how long apart, a process that is busy is asked again: 5 s in all.
const BUSY_RETRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A connection to the process of a mount.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

/// Why no connection came about.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens: the process has ended.
    Gone,
    /// It belongs to another user.
    Forbidden,
    /// The system failed.
    Failed(io::Error),
}

impl ConnectError {
    /// The error of a command that needs the connection.
    pub fn into_error(self, socket: &Path) -> Error {
        match self {
            Self::Gone => Error::told(
                Exit::Failed,
                format!("the process of the mount does not answer at {}", socket.display()),
                "it may be ending; try again, and look into its log",
            ),
            Self::Forbidden => Error::refused(
                "the volume was mounted by another user",
                "ask as that user or as root; snapshots can also be taken with `mkdir DIR/.snapshots/NAME`, if the mount allows it",
            ),
            Self::Failed(error) => Error::io(format!("connect to {}", socket.display()), error),
        }
    }
}

impl Client {
    /// Connects to a socket.
    pub fn connect(socket: &Path) -> Result<Self, ConnectError> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), socket: socket.to_path_buf() }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::Gone,
                io::ErrorKind::PermissionDenied => ConnectError::Forbidden,
                _ => ConnectError::Failed(error),
            }),
        }
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        match write_line(self.stream.get_mut(), request) {
            // What it said before it ended the connection can still be read.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            written => written.map_err(|error| Error::io("ask the process of the mount", error)),
        }
    }

    /// The next line of the answer.
    pub fn next(&mut self) -> Result<Answer> {
        let line =
            read_line(&mut self.stream).map_err(|error| Error::io("read the answer of the mount's process", error))?;
        line.ok_or_else(|| {
            Error::told(
                Exit::Failed,
                "the process of the mount ended before it had answered",
                "look into its log; after the next mount everything that was synced is there",
            )
        })
    }

    /// Waits until the process has ended: its end of the connection goes with it.
    pub fn wait_for_end(mut self) {
        // It has said that everything is durable; how exactly the connection ends says nothing more.
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    /// Asks, and gives the result; `between` is told what comes before it. A process that is busy is asked again for a while.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request, between: &mut dyn FnMut(Answer)) -> Result<T> {
        let mut retries = BUSY_RETRIES;
        self.send(request)?;
        loop {
            match self.next()? {
                Answer::Busy if retries > 0 => {
                    retries -= 1;
                    thread::park_timeout(BUSY_PAUSE);
                    *self = Self::connect(&self.socket).map_err(|error| error.into_error(&self.socket))?;
                    self.send(request)?;
                }
                Answer::Busy => {
                    return Err(Error::refused(
                        "the process of the mount holds as many conversations as it can hold",
                        "try again when other commands that ask it have ended; `ulimit -n` limits how many files it may have open",
                    ));
                }
                Answer::Done(value) => {
                    let malformed = |error: serde_json::Error| {
                        Error::io("understand the answer of the mount's process", io::Error::other(error))
                    };
                    return serde_json::from_value(value).map_err(malformed);
                }
                Answer::Failed(report) => return Err(Error::Told(report)),
                other => between(other),
            }
        }
    }

    /// Asks for something that tells nothing before its result.
    pub fn get<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.ask(request, &mut |_| {})
    }

    /// How the mount is doing.
    pub fn status(&mut self) -> Result<StatusReport> {
        self.get(&Request::Status)
    }
}
