//! A mount: made, served until it is unmounted, and its volume closed.
//!
//! *Ordering*: after the last request the volume is closed, which makes everything durable; only then does [`Mounted::serve`]
//! return, and the process may end. A process that dies instead leaves "Transport endpoint is not connected".

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use fuser::{Config, Session, SessionACL};

use super::{MountOptions, device, handler::Handler};
use crate::volume::Volume;

/// Threads that receive requests, unless told otherwise: as measured, two with a descriptor each halve what one needs for a
/// tree of small files, and more do not help two cores.
const THREADS_DEFAULT: usize = 2;

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or this process may not use it.
    #[error("/dev/fuse cannot be opened: {0}")]
    NoDevice(io::Error),
    /// Only root mounts without the helper.
    #[error("fusermount3 was not found")]
    NoHelper,
    /// The mount itself was refused.
    #[error("mounting on {mountpoint} was refused: {source}")]
    Refused {
        /// Where.
        mountpoint: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// A mounted volume that waits to be served. If it is dropped instead, it is unmounted.
pub struct Mounted {
    session: Option<Session<Handler>>,
    attached: Attached,
    volume: Arc<Volume>,
}

/// A connection of which nothing shall stay mounted.
struct Attached {
    device: OwnedFd,
    mountpoint: PathBuf,
}

impl Drop for Attached {
    fn drop(&mut self) {
        device::detach(&self.device, &self.mountpoint);
    }
}

impl Mounted {
    /// Mounts `volume`. When this returns, the mountpoint is there, and requests wait for [`Self::serve`].
    pub fn new(volume: &Arc<Volume>, options: &MountOptions) -> Result<Self, MountError> {
        let mut config = Config::default();
        config.acl = match (options.allow_other, options.allow_root) {
            (true, _) => SessionACL::All,
            (false, true) => SessionACL::RootAndOwner,
            (false, false) => SessionACL::Owner,
        };
        config.n_threads = Some(if options.threads == 0 { THREADS_DEFAULT } else { options.threads });
        config.clone_fd = true;
        let refused = |source| MountError::Refused { mountpoint: options.mountpoint.display().to_string(), source };
        let device = device::attach(options)?;
        let session_device = device.try_clone();
        // From here on, a failure takes the mount away again.
        let attached = Attached { device, mountpoint: options.mountpoint.clone() };
        let handler = Handler::new(Arc::clone(volume), options);
        let notifier = handler.notifier();
        let session =
            Session::from_fd(handler, session_device.map_err(refused)?, config.acl, config).map_err(refused)?;
        // Nobody else knows of it yet, and no request was received.
        let _ = notifier.set(session.notifier());
        Ok(Self { session: Some(session), attached, volume: Arc::clone(volume) })
    }

    /// Answers requests until the mount is gone, then closes the volume.
    pub fn serve(mut self) -> crate::Result<()> {
        let session = self.session.take().expect("only serving takes it, and that ends with this value");
        let served = match session.run() {
            // The kernel ended the connection, for the last user of a mount that was detached or for an administrator: nothing more
            // will come, as after any other unmount.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            served => served,
        };
        drop(self.attached);
        let closed = self.volume.close();
        served.map_err(|error| vellum_store::Error::io("serve the mount", error))?;
        closed
    }
}
