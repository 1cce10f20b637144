//! The answering end: the process of a mount.
//!
//! *Threads*: `control` accepts; each connection has a thread of its own, [`CONNECTIONS_MAX`] at most. The table of those who
//! wait for the end is a leaf lock.

use std::{
    fs,
    fs::File,
    io,
    io::{BufReader, Write},
    ops::ControlFlow,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use parking_lot::Mutex;
use serde::Serialize;
use vellum_fs::volume::Volume;
use vellum_store::spawn::{Spawner, Threads};

use super::{Answer, Request, place, read_line, write_line};
use crate::{
    actions,
    error::{Error, Report, Result},
    reports::StatusReport,
};

/// More who ask at the same time are sent away.
const CONNECTIONS_MAX: usize = 32;
/// Between attempts to accept, where no descriptor can be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A socket on which nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// What the answers are made of.
struct Shared {
    /// Weak, so that no connection keeps the volume when the mount is gone.
    volume: Weak<Volume>,
    status: StatusReport,
    connections: AtomicUsize,
    end: Mutex<End>,
}

/// The end of the mount, for those who want to know.
enum End {
    /// It is still to come; these wait for it.
    Ahead(Vec<Arc<UnixStream>>),
    /// It came, and this is how.
    Reached(Answer),
}

/// Connections of those who wait for the end of the process.
#[derive(Debug)]
pub struct Farewell {
    _waiting: Vec<Arc<UnixStream>>,
}

/// The answering of requests, until [`Server::finish`].
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Listener {
    /// Opens the socket of this process.
    pub fn bind() -> Result<Self> {
        let path = place::socket_path()?;
        Self::bind_at(path)
    }

    fn bind_at(path: PathBuf) -> Result<Self> {
        let shown = path.display().to_string();
        let doing = || format!("open the control socket {shown}");
        match fs::remove_file(&path) {
            // Of an earlier process with this number.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(doing(), error)),
        }
        let listener = UnixListener::bind(&path).map_err(|error| Error::io(doing(), error))?;
        let listener = Self { listener, path };
        fs::set_permissions(&listener.path, fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::io(doing(), error))?;
        Ok(listener)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket: the mount failed.
    pub fn discard(self) {
        remove(&self.path);
    }

    /// Answers from here on. `status` has what does not change.
    pub fn serve(self, volume: &Arc<Volume>, status: StatusReport) -> Result<Server> {
        let shared = Arc::new(Shared {
            volume: Arc::downgrade(volume),
            status,
            connections: AtomicUsize::new(0),
            end: Mutex::new(End::Ahead(Vec::new())),
        });
        let Self { listener, path } = self;
        let accepting = Arc::clone(&shared);
        Threads
            .spawn("control", Box::new(move || accept(&listener, &accepting)))
            .map_err(|error| Error::io("start the control thread", error))?;
        Ok(Server { shared, path })
    }
}

impl Server {
    /// Tells those who wait how it ended, and removes the socket. Their connections end with what is returned, which is to
    /// be kept until the process ends: that is what they wait for in the end.
    pub fn finish(self, closed: Result<(), &Error>) -> Farewell {
        remove(&self.path);
        let answer = match closed {
            Ok(()) => Answer::Done(serde_json::Value::Null),
            Err(error) => Answer::Failed(error.report()),
        };
        let end = std::mem::replace(&mut *self.shared.end.lock(), End::Reached(answer.clone()));
        let End::Ahead(waiting) = end else { return Farewell { _waiting: Vec::new() } };
        for stream in &waiting {
            // Who went away does not want to know.
            let _ = write_line(&mut &**stream, &answer);
        }
        Farewell { _waiting: waiting }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::debug!("cannot remove {}: {error}", path.display());
    }
}

/// A descriptor in reserve. A connection that cannot be accepted stays queued, and the next attempt fails at once: with this one let
/// go, it is taken and closed, so that who asked is told instead of waiting for ever.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Turns the first connection of the queue away.
    fn turn_away(&mut self, listener: &UnixListener) {
        self.0 = None;
        if let Ok((stream, _)) = listener.accept() {
            tell_busy(&stream);
        }
        *self = Self::new();
        if self.0.is_none() {
            // Somebody else was faster. Nothing wakes this thread when there are descriptors again.
            thread::park_timeout(ACCEPT_PAUSE);
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let (mut spare, mut failing) = (Spare::new(), false);
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("cannot accept a control connection: {error}");
                }
                spare.turn_away(listener);
                continue;
            }
        };
        failing = false;
        if !is_allowed(&stream) {
            continue;
        }
        if shared.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            tell_busy(&stream);
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (answering, stream) = (Arc::clone(shared), Arc::new(stream));
        let conversing = Arc::clone(&stream);
        let spawned = Threads.spawn(
            "control-answer",
            Box::new(move || {
                // The peer went away, or sent what is no request: the connection ends.
                if let Err(error) = converse(&answering, conversing) {
                    log::debug!("a control connection ended: {error}");
                }
                answering.connections.fetch_sub(1, Ordering::Relaxed);
            }),
        );
        if let Err(error) = spawned {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            log::warn!("cannot answer a control connection: {error}");
            tell_busy(&stream);
        }
    }
}

/// Sends somebody away, who may come again. The line is in his queue before the connection ends, so he reads it first; it says nothing
/// that only the owner may know.
fn tell_busy(mut stream: &UnixStream) {
    // Who went away does not want to know.
    let _ = write_line(&mut stream, &Answer::Busy);
}

/// Whether the peer is the owner of this process, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) => peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw(),
        Err(_) => false,
    }
}

fn converse(shared: &Shared, stream: Arc<UnixStream>) -> io::Result<()> {
    if answer_requests(shared, &stream)?.is_break() {
        return wait_for_end(&shared.end, stream);
    }
    Ok(())
}

/// Answers until the peer goes away, or breaks off because it wants to wait for the end. Reads and writes over one descriptor: a second would
/// be the one that [`Spare`] lets go when there is no other, and with it gone nobody in the queue could be told.
fn answer_requests(shared: &Shared, stream: &UnixStream) -> io::Result<ControlFlow<()>> {
    let (mut from, mut to) = (BufReader::new(stream), stream);
    while let Some(request) = read_line::<Request>(&mut from)? {
        if request == Request::UmountWait {
            return Ok(ControlFlow::Break(()));
        }
        let answer = match answer(shared, &request, &mut to) {
            Ok(value) => Answer::Done(value),
            Err(error) => Answer::Failed(error.report()),
        };
        write_line(&mut to, &answer)?;
    }
    Ok(ControlFlow::Continue(()))
}

fn wait_for_end(end: &Mutex<End>, to: Arc<UnixStream>) -> io::Result<()> {
    // Under the lock: once it is told that it waits, the other side may unmount, and the process must not end before it is listed.
    let mut end = end.lock();
    write_line(&mut &*to, &Answer::Waiting)?;
    let answer = match &mut *end {
        End::Ahead(waiting) => {
            waiting.push(to);
            return Ok(());
        }
        End::Reached(answer) => answer.clone(),
    };
    drop(end);
    write_line(&mut &*to, &answer)
}

fn answer(shared: &Shared, request: &Request, to: &mut impl Write) -> Result<serde_json::Value> {
    let volume = shared.volume.upgrade().ok_or_else(|| {
        Error::Told(Report {
            exit: crate::error::Exit::Failed,
            message: "the volume is being closed".into(),
            hint: None,
        })
    })?;
    match request {
        Request::Status => value(&actions::fill_status(&volume, shared.status.clone())?),
        Request::Snapshot { name, comment } => value(&actions::snapshot(&volume, name.as_ref(), comment)?),
        Request::Snapshots => value(&actions::snapshots(&volume)?),
        Request::Delete { name } => value(&actions::delete(&volume, name)?),
        Request::Rename { name, new_name } => value(&actions::rename(&volume, name, new_name)?),
        Request::Stats => value(&actions::stats(volume.repository())?),
        Request::Check { read_data, resume } => {
            // Who asked may go away meanwhile.
            let mut tell = |answer| {
                if let Answer::Found(damage) = &answer {
                    log::error!("a check finds damage: {}: {}", damage.object, damage.what);
                }
                drop(write_line(&mut *to, &answer));
            };
            let report = actions::check(volume.repository(), Some(&volume), *read_data, *resume, &mut tell)?;
            log::info!("a check has ended: {} packs, {} damaged objects", report.packs, report.damaged);
            value(&report)
        }
        Request::Gc { max_unused, dry_run } => {
            let mut tell = |answer| drop(write_line(&mut *to, &answer));
            value(&actions::gc(volume.repository(), Some(&volume), *max_unused, *dry_run, &mut tell)?)
        }
        Request::Sync => {
            volume.checkpoint()?;
            value(&())
        }
        // The conversation turns to this by itself.
        Request::UmountWait => value(&()),
    }
}

fn value(result: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(result).map_err(|error| Error::io("encode an answer", io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Who reads that he waits may unmount at once, and the process may end at once.
    #[test]
    fn who_is_told_that_he_waits_is_listed() {
        for _ in 0..300 {
            let (to, from) = UnixStream::pair().unwrap();
            let end = Mutex::new(End::Ahead(Vec::new()));
            thread::scope(|scope| {
                scope.spawn(|| wait_for_end(&end, Arc::new(to)).unwrap());
                let told = read_line::<Answer>(&mut BufReader::new(&from)).unwrap();
                assert_eq!(told, Some(Answer::Waiting));
                assert!(matches!(&*end.lock(), End::Ahead(waiting) if waiting.len() == 1));
            });
        }
    }
}
