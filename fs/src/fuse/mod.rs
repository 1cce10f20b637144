//! The FUSE front end: translates a request, calls one method of the volume, translates the answer.
//!
//! *Invariants*
//! 1. It decides nothing: rules are the volume's, times to live and caching follow from what the volume says of an entry.
//! 2. A request that may wait for the disk or for memory is answered from the pool; everything else by the thread that
//!    received it, since waking another one costs more than the work.
//!
//! *Threads*: fuser's event loops, and the pool of [`pool`].

pub mod convert;
mod device;
pub mod errno;
pub mod handler;
mod ioctl;
pub mod options;
mod places;
pub mod pool;
pub mod session;
mod sync;
mod sys;

pub use options::MountOptions;
pub use session::{MountError, Mounted};
