//! Keys, sealing and key slots: the only module that names a cipher or a key derivation.
//!
//! *Invariants*
//! 1. Every key has one use, named in the one table of [`context`].
//! 2. Every sealing draws a random 24-byte nonce from the operating system: no counter survives a clone, a rollback or a crash
//!    better than chance does.
//! 3. Unsealing gives the plaintext that was sealed for that purpose, epoch and associated data in this repository, or an error.
//! 4. Secrets are zeroized when dropped, locked in memory where the system allows it, and absent from `Debug` and messages.

mod config;
pub mod context;
mod keys;
#[cfg(test)]
mod known_answers;
mod lockmem;
mod seal;
mod slot;

pub use config::{StoredConfig, VerifiedConfig, seal_config};
pub use context::{Purpose, SubkeyUse};
pub use keys::{Keyring, MasterKey, NONCE_LENGTH, SEAL_OVERHEAD, TAG_LENGTH};
pub use lockmem::harden_process;
pub use seal::BlobSealer;
pub use slot::{
    Credential, KEY_FILE_LENGTH_MAX, KdfParams, PASSPHRASE_LENGTH_MAX, SLOT_COPIES, SLOTS_MAX, SlotInfo, SlotKind,
    SlotName, describe_slot, generate_key_file, generate_recovery_code, seal_slot, unlock,
};

use crate::spawn::turns::simulated_random;

pub use crate::{
    compress::{Compression, Effort, Scratch},
    format::blob::BLOB_PLAIN_MAX,
};

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has none: nothing can be sealed safely then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// As [`random`], into bytes that are there.
///
/// # Panics
/// As [`random`].
pub fn fill_random(bytes: &mut [u8]) {
    if !simulated_random(bytes) {
        getrandom::fill(bytes).expect("the system's random source answers once the system has started");
    }
}
