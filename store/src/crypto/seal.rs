//! Sealing of blobs: compress, seal, and on the way back unseal, decompress within bounds, recompute the id.
//!
//! *Invariants*
//! 1. What [`BlobSealer::unseal`] returns has the id that was asked for, under the kind that was asked for (P2).
//! 2. Nothing sealed is trusted for a size: the output is bounded by the caller's expectation before it is allocated.
//!
//! *Threads*: shared by all workers. Sealing takes the worker's own [`Scratch`]; unsealing borrows one from a small pool, whose
//! lock is held only to take it and to put it back.
//!
//! *Bounds*: the pool keeps at most [`POOL_MAX`] scratches.
//!
//! *Format*: in `format/blob.rs`.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    context::Purpose,
    keys::{Keyring, NONCE_LENGTH, SEAL_OVERHEAD, TAG_LENGTH},
};
use crate::{
    codec::{Reader, Writer},
    compress::{Compression, Effort, Scratch},
    error::{Error, Result},
    format::blob::{BLOB_HEADER_LENGTH, BLOB_PLAIN_MAX, BlobHeader, Codec},
    id::{BlobId, BlobKind},
};

/// Scratches kept for unsealing: as many as threads that read at once, and few enough to forget.
const POOL_MAX: usize = 16;

/// A blob's header and body with room for nonce and tag, not yet sealed.
#[derive(Clone, Debug)]
pub struct BlobFrame(Vec<u8>);

/// Seals and unseals the blobs of one repository.
#[derive(Debug)]
pub struct BlobSealer {
    keyring: Arc<Keyring>,
    compression: Compression,
    pool: Mutex<Vec<Scratch>>,
}

impl BlobSealer {
    /// A sealer under these keys; `compression` is what [`Self::seal`] uses.
    pub fn new(keyring: Arc<Keyring>, compression: Compression) -> Self {
        Self { keyring, compression, pool: Mutex::new(Vec::new()) }
    }

    /// The keys it seals under.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Compresses where that pays, and seals; one allocation, the returned one.
    ///
    /// # Panics
    /// If the plaintext is longer than [`BLOB_PLAIN_MAX`].
    pub fn seal(
        &self,
        kind: BlobKind,
        id: &BlobId,
        plaintext: &[u8],
        effort: Effort,
        scratch: &mut Scratch,
    ) -> Vec<u8> {
        self.seal_with(kind, id, plaintext, self.compression, effort, scratch)
    }

    /// As [`Self::seal`], with the compression that a directory asks for.
    pub fn seal_with(
        &self,
        kind: BlobKind,
        id: &BlobId,
        plaintext: &[u8],
        compression: Compression,
        effort: Effort,
        scratch: &mut Scratch,
    ) -> Vec<u8> {
        let frame = self.frame(plaintext, compression, effort, scratch);
        self.seal_frame(kind, id, frame)
    }

    /// The first half of [`Self::seal`]: compresses where that pays. A blob with several copies is compressed once.
    ///
    /// # Panics
    /// If the plaintext is longer than [`BLOB_PLAIN_MAX`].
    pub fn frame(
        &self,
        plaintext: &[u8],
        compression: Compression,
        effort: Effort,
        scratch: &mut Scratch,
    ) -> BlobFrame {
        assert!(plaintext.len() <= BLOB_PLAIN_MAX as usize, "a blob holds at most 16 MiB");
        scratch.buffer.clear();
        let (codec, body) = match scratch.compress(plaintext, compression, effort) {
            true => (Codec::Zstd, &scratch.buffer[..]),
            false => (Codec::Raw, plaintext),
        };
        let mut frame = Writer::with_capacity(SEAL_OVERHEAD + BLOB_HEADER_LENGTH + body.len());
        frame.zeros(NONCE_LENGTH);
        BlobHeader { codec, plain_length: plaintext.len() as u32 }.encode(&mut frame);
        frame.bytes(body);
        frame.zeros(TAG_LENGTH);
        BlobFrame(frame.0)
    }

    /// The second half of [`Self::seal`], under a nonce of its own. The id must be that of the frame's plaintext.
    pub fn seal_frame(&self, kind: BlobKind, id: &BlobId, frame: BlobFrame) -> Vec<u8> {
        let mut sealed = frame.0;
        self.keyring.seal_slice(purpose_of(kind), id.as_bytes(), &mut sealed);
        sealed
    }

    /// The compression that [`Self::seal`] uses.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Unseals a blob and proves that it is the one asked for; anything else is [`Error::Corrupt`] naming the blob.
    ///
    /// `plain_length_max` is the length the caller expects, where it knows it, and [`BLOB_PLAIN_MAX`] where not.
    pub fn unseal(
        &self,
        kind: BlobKind,
        epoch: u32,
        id: &BlobId,
        sealed: &[u8],
        plain_length_max: u32,
    ) -> Result<Vec<u8>> {
        let mut scratch = self.pool.lock().pop().unwrap_or_default();
        let plaintext = self.unseal_with(kind, epoch, id, sealed, plain_length_max, &mut scratch);
        let mut pool = self.pool.lock();
        if pool.len() < POOL_MAX {
            pool.push(scratch);
        }
        plaintext
    }

    /// As [`Self::unseal`], with the caller's own scratch.
    pub fn unseal_with(
        &self,
        kind: BlobKind,
        epoch: u32,
        id: &BlobId,
        sealed: &[u8],
        plain_length_max: u32,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>> {
        let plaintext = self
            .open_body(kind, epoch, id, sealed, plain_length_max, scratch)
            .map_err(|what| Error::corrupt(format!("blob {id}"), what))?;
        // The tag proves that a holder of the key sealed this under that id; only the hash proves that the bytes have it.
        if self.keyring.blob_id(kind, &plaintext) != *id {
            return Err(Error::corrupt(format!("blob {id}"), "the content has another id"));
        }
        Ok(plaintext)
    }

    fn open_body(
        &self,
        kind: BlobKind,
        epoch: u32,
        id: &BlobId,
        sealed: &[u8],
        plain_length_max: u32,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>, String> {
        // No writer makes more than this: header and a raw body of the largest blob.
        if sealed.len() > BLOB_PLAIN_MAX as usize + BLOB_HEADER_LENGTH + SEAL_OVERHEAD {
            return Err(format!("{} sealed bytes are over the limit", sealed.len()));
        }
        let object = "blob";
        scratch.buffer.clear();
        scratch.buffer.extend_from_slice(sealed);
        let aad = id.as_bytes();
        let text =
            self.keyring.unseal_slice(purpose_of(kind), epoch, aad, &mut scratch.buffer, object).map_err(what)?;
        let length = text.len();
        let mut reader = Reader::new(text, object);
        let header = BlobHeader::decode(&mut reader, plain_length_max).map_err(what)?;
        let body = NONCE_LENGTH + BLOB_HEADER_LENGTH..NONCE_LENGTH + length;
        match header.codec {
            Codec::Raw => Ok(scratch.buffer[body].to_vec()),
            Codec::Zstd => scratch
                .decompress(body, header.plain_length as usize)
                .ok_or_else(|| format!("the body does not decompress to {} bytes", header.plain_length)),
        }
    }
}

fn purpose_of(kind: BlobKind) -> Purpose {
    match kind {
        BlobKind::Data => Purpose::Data,
        BlobKind::Node => Purpose::Node,
    }
}

fn what(error: Error) -> String {
    match error {
        Error::Corrupt { what, .. } => what,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
