//! A mount: made, served until it is unmounted, and its volume closed.
//!
//! *Ordering*: after the last request the volume is closed, which makes everything durable; only then does [`Mounted::serve`]
//! return, and the process may end. A process that dies instead leaves "Transport endpoint is not connected".

use std::{io, sync::Arc};

use fuser::{Config, MountOption, Session, SessionACL};

#[cfg(target_os = "linux")]
use super::direct::{DirectMount, mount_direct};
use super::{MountOptions, handler::Handler};
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

/// A mounted volume that waits to be served.
pub struct Mounted {
    session: Session<Handler>,
    volume: Arc<Volume>,
    #[cfg(target_os = "linux")]
    direct: Option<DirectMount>,
}

impl Mounted {
    /// Mounts `volume`. When this returns, the mountpoint is there, and requests wait for [`Self::serve`].
    pub fn new(volume: &Arc<Volume>, options: &MountOptions) -> Result<Self, MountError> {
        let mut config = Config::default();
        config.mount_options = mount_options(options);
        config.acl = match (options.allow_other, options.allow_root) {
            (true, _) => SessionACL::All,
            (false, true) => SessionACL::RootAndOwner,
            (false, false) => SessionACL::Owner,
        };
        config.n_threads = Some(if options.threads == 0 { THREADS_DEFAULT } else { options.threads });
        config.clone_fd = true;
        if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            return Err(MountError::NoDevice(error));
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound if options.mountpoint.exists() => MountError::NoHelper,
            _ => MountError::Refused { mountpoint: options.mountpoint.display().to_string(), source },
        };
        let handler = Handler::new(Arc::clone(volume), options);
        #[cfg(target_os = "linux")]
        if let Some((device, direct)) = mount_direct(options).map_err(refused)? {
            let acl = config.acl;
            let session = Session::from_fd(handler, device, acl, config).map_err(refused)?;
            return Ok(Self { session, volume: Arc::clone(volume), direct: Some(direct) });
        }
        let session = Session::new(handler, &options.mountpoint, &config).map_err(refused)?;
        Ok(Self {
            session,
            volume: Arc::clone(volume),
            #[cfg(target_os = "linux")]
            direct: None,
        })
    }

    /// Answers requests until the mount is gone, then closes the volume.
    pub fn serve(self) -> crate::Result<()> {
        let served = self.session.run();
        #[cfg(target_os = "linux")]
        if let (Ok(()), Some(direct)) = (&served, self.direct) {
            direct.release();
        }
        let closed = self.volume.close();
        served.map_err(|error| vellum_store::Error::io("serve the mount", error))?;
        closed
    }
}

fn mount_options(options: &MountOptions) -> Vec<MountOption> {
    let pick = |choice, yes, no| if choice { yes } else { no };
    let mut list = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("vellum".to_string()),
        // The kernel checks modes and ACLs; the volume would have to repeat its rules.
        MountOption::DefaultPermissions,
        pick(options.suid, MountOption::Suid, MountOption::NoSuid),
        pick(options.dev, MountOption::Dev, MountOption::NoDev),
        pick(options.read_only, MountOption::RO, MountOption::RW),
        MountOption::NoAtime,
    ];
    if options.noexec {
        list.push(MountOption::NoExec);
    }
    list
}
