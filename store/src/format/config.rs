//! The plain file `config`: what must be known before a key is.

/// Newest version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 0;
