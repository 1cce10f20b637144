//! The one error type of volumes; each kind that a front end answers differently is a variant and names its object.
//!
//! *Invariants*
//! 1. Front ends map every variant with a `match` that has no wildcard arm, so a variant added here must be decided
//!    there.
//! 2. [`Error::NotFound`] means that the tree was read and the thing is not there; a read that failed is
//!    [`Error::Store`] or [`Error::Damaged`].

use std::fmt;

use crate::ino::Ino;

/// Result of a volume operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error is about; cheap to build, because a failed lookup is ordinary work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An inode.
    Inode(Ino),
    /// A name in a directory.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name looked for.
        name: Box<[u8]>,
    },
    /// A snapshot's name or id, a path, a setting.
    Text(String),
    /// One of a fixed set of things.
    Fixed(&'static str),
}

impl Object {
    /// A name in a directory.
    pub fn entry(parent: Ino, name: &[u8]) -> Self {
        Self::Entry { parent, name: name.into() }
    }
}

impl From<Ino> for Object {
    fn from(ino: Ino) -> Self {
        Self::Inode(ino)
    }
}

impl From<(Ino, &[u8])> for Object {
    fn from((parent, name): (Ino, &[u8])) -> Self {
        Self::entry(parent, name)
    }
}

impl From<String> for Object {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&'static str> for Object {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(ino) => ino.fmt(f),
            Self::Entry { parent, name } => write!(f, "{:?} in {parent}", String::from_utf8_lossy(name)),
            Self::Text(text) => f.write_str(text),
            Self::Fixed(text) => f.write_str(text),
        }
    }
}

/// What can go wrong in a volume. Cheap to clone, so that all who wait for one operation get the same answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The tree holds no such object.
    #[error("{0} does not exist")]
    NotFound(Object),
    /// The name is taken.
    #[error("{0} already exists")]
    Exists(Object),
    /// A directory is needed here.
    #[error("{0} is not a directory")]
    NotDirectory(Object),
    /// Anything but a directory is needed here.
    #[error("{0} is a directory")]
    IsDirectory(Object),
    /// The directory has entries.
    #[error("{0} is not empty")]
    NotEmpty(Object),
    /// The rules forbid this to everybody.
    #[error("operation not permitted on {0}")]
    NotPermitted(Object),
    /// The caller lacks the right.
    #[error("access to {0} denied")]
    Access(Object),
    /// Snapshots, read-only mounts.
    #[error("{0} is read-only")]
    ReadOnly(Object),
    /// The name exceeds 255 bytes, or a path its limit.
    #[error("name too long: {0}")]
    NameTooLong(Object),
    /// An argument outside its bounds, or arguments that contradict each other.
    #[error("invalid argument: {0}")]
    InvalidArgument(Object),
    /// The backing store is full, or the keep-free reserve would be touched.
    #[error("no space left for {0}")]
    NoSpace(Object),
    /// The file would exceed the largest size.
    #[error("{0} would become too large")]
    TooBig(Object),
    /// The object has as many names as it can have.
    #[error("{0} has too many links")]
    TooManyLinks(Object),
    /// The object lacks this extended attribute.
    #[error("no such attribute: {0}")]
    NoAttribute(Object),
    /// The caller's buffer is too small for the answer.
    #[error("result too large for the buffer: {0}")]
    Range(Object),
    /// The extended attribute's value exceeds its limit.
    #[error("attribute value too large: {0}")]
    AttributeTooBig(Object),
    /// This filesystem does not do that.
    #[error("not supported: {0}")]
    Unsupported(Object),
    /// The object was deleted while the kernel still knew it.
    #[error("{0} is gone")]
    Stale(Object),
    /// The handle is not open, or not for this use.
    #[error("bad handle: {0}")]
    BadHandle(Object),
    /// No data, or no hole, at or after the offset.
    #[error("nothing there: {0}")]
    NoData(Object),
    /// In use, or held.
    #[error("{0} is busy")]
    Busy(Object),
    /// The operation would cross from one tree into another.
    #[error("{0} is in another tree")]
    CrossDevice(Object),
    /// Too many symbolic links on the way.
    #[error("too many levels of symbolic links: {0}")]
    Loop(Object),
    /// A record or node that was read breaks the rules of the format.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// What was read.
        object: Object,
        /// Which rule it breaks.
        what: String,
    },
    /// An earlier failure made the volume read-only until it is opened again.
    #[error("the volume can no longer be written: {why}")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// The caller was interrupted while it waited.
    #[error("interrupted")]
    Interrupted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] vellum_store::Error),
}

impl Error {
    /// Short form for a name that is not there.
    pub fn not_found(object: impl Into<Object>) -> Self {
        Self::NotFound(object.into())
    }

    /// Short form for an argument outside its bounds.
    pub fn invalid(object: impl Into<Object>) -> Self {
        Self::InvalidArgument(object.into())
    }

    /// Short form for bytes that break the format.
    pub fn damaged(object: impl Into<Object>, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.into(), what: what.into() }
    }

    /// Whether this is [`Error::NotFound`].
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Whether the disk is full. Nothing is lost then, and trying again may succeed.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace(_) | Self::Store(vellum_store::Error::NoSpace { .. }))
    }

    /// Whether this is damage: bytes were read and a check of them failed.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(source) => source.is_damage(),
            _ => false,
        }
    }
}
