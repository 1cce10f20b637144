//! Tests of packs: building, reading from the end, damage.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    crypto::{MasterKey, random},
    id::{BlobId, BlobKind, RepositoryId},
};

fn keyring(epoch: u32) -> Arc<Keyring> {
    Arc::new(Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([2; 16]), epoch))
}

/// A pack of `count` blobs of about `size` bytes, its bytes and what is in it.
fn pack(keyring: &Arc<Keyring>, count: usize, size: usize) -> (FinishedPack, Vec<u8>) {
    let mut builder = PackBuilder::new(keyring.clone(), BlobKind::Node);
    let mut bytes = Vec::new();
    for n in 0..count {
        let mut sealed = vec![0; size + n % 7];
        getrandom::fill(&mut sealed).unwrap();
        let offset = builder.push(BlobId(random()), n as u32, keyring.epoch(), &sealed);
        assert_eq!(offset as usize, bytes.len());
        bytes.extend(sealed);
    }
    assert_eq!((builder.len() as usize, builder.entries().len()), (bytes.len(), count));
    let finished = builder.finish();
    bytes.extend(&finished.suffix);
    assert_eq!(finished.length as usize, bytes.len());
    (finished, bytes)
}

fn reader(bytes: &[u8]) -> impl FnMut(u64, u32) -> Result<Vec<u8>> {
    move |offset, length| {
        let (from, to) = (offset as usize, offset as usize + length as usize);
        bytes.get(from..to).map(<[u8]>::to_vec).ok_or_else(|| Error::corrupt("file", "truncated"))
    }
}

fn trailer_of(keyring: &Keyring, pack: PackId, bytes: &[u8]) -> Result<Vec<PackEntry>> {
    read_trailer(keyring, pack, bytes.len() as u64, &mut reader(bytes))
}

#[test]
fn what_was_pushed_is_read_back_from_the_end_in_one_read_or_two() {
    let keyring = keyring(0);
    for (count, reads_expected) in [(1, 1), (5, 1), (2000, 2)] {
        let (finished, bytes) = pack(&keyring, count, 60);
        let (mut reads, mut read) = (0, reader(&bytes));
        let mut counted = |offset, length| {
            reads += 1;
            read(offset, length)
        };
        let entries = read_trailer(&keyring, finished.id, finished.length, &mut counted).unwrap();
        assert_eq!(entries, finished.entries);
        assert_eq!(reads, reads_expected, "{count} blobs");
    }
}

#[test]
fn verifying_hands_out_every_blob_and_proves_the_name() {
    let keyring = keyring(0);
    let (finished, bytes) = pack(&keyring, 40, 100_000);
    let mut seen = Vec::new();
    let mut blob = |entry: &PackEntry, sealed: &[u8]| {
        assert_eq!(sealed, &bytes[entry.offset as usize..entry.end() as usize]);
        seen.push(*entry);
        Ok(())
    };
    verify_pack(&keyring, finished.id, finished.length, &mut reader(&bytes), &mut blob).unwrap();
    assert_eq!(seen, finished.entries);
    let wrong_name = verify_pack(&keyring, PackId([0; 32]), finished.length, &mut reader(&bytes), &mut |_, _| Ok(()));
    assert!(wrong_name.unwrap_err().is_damage());
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let keyring = keyring(0);
    let (finished, mut bytes) = pack(&keyring, 3, 50);
    let end_of_padding = bytes.len() - PACK_TAIL_LENGTH - 3 * 44 - 40;
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        let verified =
            verify_pack(&keyring, finished.id, finished.length, &mut reader(&bytes), &mut |_, _| Ok(())).unwrap_err();
        assert!(verified.is_damage() && verified.to_string().contains(&finished.id.to_hex()), "byte {at}: {verified}");
        let listed = trailer_of(&keyring, finished.id, &bytes);
        assert_eq!(listed.is_err(), at >= end_of_padding, "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn a_cut_or_lengthened_pack_has_no_tail() {
    let keyring = keyring(0);
    let (finished, bytes) = pack(&keyring, 3, 50);
    for length in 0..bytes.len() {
        let error = trailer_of(&keyring, finished.id, &bytes[..length]).unwrap_err();
        assert!(error.is_damage(), "{length} bytes: {error}");
    }
    // The tail itself is whole here, but the file that it closes was longer or shorter.
    let (front, lengthened) = (&bytes[1..], [&[0], &bytes[..]].concat());
    for moved in [front, &lengthened] {
        assert!(trailer_of(&keyring, finished.id, moved).unwrap_err().is_damage());
    }
    assert!(trailer_of(&keyring, finished.id, &[bytes, vec![0]].concat()).unwrap_err().is_damage());
}

#[test]
fn lengths_that_a_store_claims_allocate_nothing() {
    let keyring = keyring(0);
    let mut never = |_, _| panic!("nothing is read");
    for length in [0, 95, PACK_LENGTH_MAX + 1, u64::MAX] {
        assert!(read_trailer(&keyring, PackId([0; 32]), length, &mut never).unwrap_err().is_damage());
    }
    let mut short = |_, _| Ok(Vec::new());
    assert!(read_trailer(&keyring, PackId([0; 32]), 1 << 20, &mut short).unwrap_err().is_damage());
}

#[test]
fn trailers_of_two_packs_cannot_be_swapped() {
    let keyring = keyring(0);
    let ((first, mut one), (second, two)) = (pack(&keyring, 3, 50), pack(&keyring, 3, 50));
    assert_eq!(first.length, second.length);
    let trailer = one.len() - PACK_TAIL_LENGTH - 3 * 44 - 40..one.len() - PACK_TAIL_LENGTH;
    one[trailer.clone()].copy_from_slice(&two[trailer]);
    assert!(trailer_of(&keyring, first.id, &one).unwrap_err().is_damage());
}

#[test]
fn packs_of_an_older_epoch_are_read_and_those_of_another_repository_are_not() {
    let (old, new) = (keyring(0), keyring(3));
    let (finished, bytes) = pack(&old, 2, 50);
    assert_eq!(trailer_of(&new, finished.id, &bytes).unwrap(), finished.entries);
    let stranger = Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([3; 16]), 0);
    assert!(trailer_of(&stranger, finished.id, &bytes).unwrap_err().is_damage());
}

#[test]
fn packs_have_padded_lengths_and_bytes_like_noise() {
    let keyring = keyring(0);
    // Two packs of the same class of length and the same entries, sealed twice, share nothing.
    let (_, bytes) = pack(&keyring, 300, 1000);
    assert_eq!(bytes.len() as u64, crate::format::padding::padded_length(bytes.len() as u64));
    let mut counts = BTreeMap::<u8, u64>::new();
    bytes.iter().for_each(|byte| *counts.entry(*byte).or_default() += 1);
    let expected = bytes.len() as f64 / 256.0;
    let chi_squared: f64 =
        (0..=255u8).map(|byte| (*counts.get(&byte).unwrap_or(&0) as f64 - expected).powi(2) / expected).sum();
    // 255 degrees of freedom: noise is above 400 once in more than ten million runs.
    assert!(chi_squared < 400.0, "{chi_squared}");
    let suffix = &bytes[bytes.len() - 16_000..];
    assert!(!suffix.windows(8).any(|window| window == [0; 8]), "no run of zeros");
}

#[test]
#[should_panic(expected = "closed before it is full")]
fn a_builder_refuses_what_would_not_fit() {
    let mut builder = PackBuilder::new(keyring(0), BlobKind::Data);
    let sealed = vec![0; 16 << 20];
    assert!(builder.fits(sealed.len()));
    while builder.fits(sealed.len()) {
        builder.push(BlobId([0; 32]), 1, 0, &sealed);
    }
    assert!(builder.len() > PACK_LENGTH_MAX * 9 / 10);
    builder.push(BlobId([0; 32]), 1, 0, &sealed);
}
