//! Tests of sealed blobs: moved, retyped, damaged and exploding ones are refused.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{crypto::MasterKey, id::RepositoryId};

const EPOCH: u32 = 2;

fn keyring(repository: u8) -> Arc<Keyring> {
    Arc::new(Keyring::new(&MasterKey::from_bytes(&[7; 32]), RepositoryId([repository; 16]), EPOCH))
}

fn sealer() -> BlobSealer {
    BlobSealer::new(keyring(1), Compression::default())
}

fn seal(sealer: &BlobSealer, kind: BlobKind, plaintext: &[u8]) -> (BlobId, Vec<u8>) {
    let id = sealer.keyring().blob_id(kind, plaintext);
    (id, sealer.seal(kind, &id, plaintext, Effort::Full, &mut Scratch::new()))
}

/// A blob whose seal is right, with a header and a body that its maker chose.
fn forge(sealer: &BlobSealer, id: &BlobId, codec: u8, plain_length: u32, body: &[u8]) -> Vec<u8> {
    let plaintext = [&[codec][..], &plain_length.to_le_bytes(), body].concat();
    sealer.keyring().seal(Purpose::Data, id.as_bytes(), &plaintext)
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"incompressible").finalize_xof().fill(&mut bytes);
    bytes
}

fn text(length: usize) -> Vec<u8> {
    (0..).flat_map(|line: u32| format!("line {line} of the log\n").into_bytes()).take(length).collect()
}

#[track_caller]
fn assert_damage(result: Result<Vec<u8>>, id: &BlobId, case: &str) {
    let error = result.expect_err(case);
    assert!(matches!(&error, Error::Corrupt { object, .. } if *object == format!("blob {id}")), "{case}: {error}");
}

#[test]
fn blobs_come_back_whatever_they_hold_at_any_effort() {
    let sealer = sealer();
    let mut scratch = Scratch::new();
    for plaintext in [&b""[..], b"a", &[5; 100_000], &random_bytes(100_000), &text(70_001), &text(40)] {
        for effort in [Effort::Hurried, Effort::Quick, Effort::Full, Effort::Hurried] {
            let id = sealer.keyring().blob_id(BlobKind::Data, plaintext);
            let sealed = sealer.seal(BlobKind::Data, &id, plaintext, effort, &mut scratch);
            assert!(sealed.len() <= plaintext.len() + SEAL_OVERHEAD + BLOB_HEADER_LENGTH);
            assert_eq!(sealed.len(), sealed.capacity(), "one allocation of the right size");
            let again = sealer.unseal(BlobKind::Data, EPOCH, &id, &sealed, plaintext.len() as u32).unwrap();
            assert_eq!(again, plaintext);
        }
    }
}

#[test]
fn what_compresses_is_compressed_and_what_does_not_is_raw() {
    let sealer = sealer();
    let overhead = SEAL_OVERHEAD + BLOB_HEADER_LENGTH;
    assert!(seal(&sealer, BlobKind::Data, &text(65_536)).1.len() < 20_000);
    assert_eq!(seal(&sealer, BlobKind::Data, &random_bytes(65_536)).1.len(), 65_536 + overhead);
    let plain = BlobSealer::new(keyring(1), Compression::NONE);
    assert_eq!(seal(&plain, BlobKind::Data, &text(65_536)).1.len(), 65_536 + overhead);
}

#[test]
fn a_retyped_blob_is_refused() {
    let sealer = sealer();
    let (data_id, sealed) = seal(&sealer, BlobKind::Data, b"looks like a node");
    let node_id = sealer.keyring().blob_id(BlobKind::Node, b"looks like a node");
    assert_ne!(data_id, node_id);
    for id in [data_id, node_id] {
        assert_damage(sealer.unseal(BlobKind::Node, EPOCH, &id, &sealed, 100), &id, "as a node");
    }
}

#[test]
fn two_blobs_of_equal_length_cannot_be_swapped() {
    let sealer = sealer();
    let plaintexts: Vec<_> = (0..8u8).map(|i| vec![i; 500]).collect();
    let blobs: Vec<_> = plaintexts.iter().map(|plaintext| seal(&sealer, BlobKind::Data, plaintext)).collect();
    for (i, (id, _)) in blobs.iter().enumerate() {
        for (j, (_, sealed)) in blobs.iter().enumerate() {
            let result = sealer.unseal(BlobKind::Data, EPOCH, id, sealed, 500);
            if i == j {
                assert_eq!(result.unwrap(), plaintexts[i]);
            } else {
                assert_damage(result, id, "swapped");
            }
        }
    }
}

#[test]
fn a_blob_of_another_repository_or_epoch_is_refused_under_the_same_master_key() {
    let here = sealer();
    let there = BlobSealer::new(keyring(9), Compression::default());
    let (id, sealed) = seal(&here, BlobKind::Data, b"mine");
    assert_eq!(id, there.keyring().blob_id(BlobKind::Data, b"mine"));
    assert_damage(there.unseal(BlobKind::Data, EPOCH, &id, &sealed, 4), &id, "other repository");
    for epoch in [0, 1, 3, u32::MAX] {
        assert_damage(here.unseal(BlobKind::Data, epoch, &id, &sealed, 4), &id, "other epoch");
    }
    let rotated = BlobSealer::new(Arc::new(here.keyring().at_epoch(EPOCH + 1)), Compression::default());
    assert_eq!(rotated.unseal(BlobKind::Data, EPOCH, &id, &sealed, 4).unwrap(), b"mine", "older epochs stay readable");
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let sealer = sealer();
    for plaintext in [text(300), random_bytes(64)] {
        let (id, sealed) = seal(&sealer, BlobKind::Data, &plaintext);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_damage(sealer.unseal(BlobKind::Data, EPOCH, &id, &damaged, 300), &id, &format!("bit {bit}"));
        }
        for length in 0..sealed.len() {
            assert_damage(
                sealer.unseal(BlobKind::Data, EPOCH, &id, &sealed[..length], 300),
                &id,
                &format!("{length} bytes"),
            );
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_damage(sealer.unseal(BlobKind::Data, EPOCH, &id, &longer, 300), &id, "one byte more");
    }
}

#[test]
fn authentic_bytes_under_a_wrong_id_are_refused() {
    let sealer = sealer();
    let id = sealer.keyring().blob_id(BlobKind::Data, b"right");
    let forged = forge(&sealer, &id, 0, 5, b"wrong");
    assert_damage(sealer.unseal(BlobKind::Data, EPOCH, &id, &forged, 5), &id, "other content");
}

#[test]
fn a_decompression_bomb_never_gets_more_than_its_announced_length() {
    let sealer = sealer();
    let zeros = vec![0u8; 64 << 20];
    let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    let id = sealer.keyring().blob_id(BlobKind::Data, &zeros);
    for announced in [0, 1, 1000, BLOB_PLAIN_MAX] {
        let forged = forge(&sealer, &id, 1, announced, &bomb);
        assert_damage(sealer.unseal(BlobKind::Data, EPOCH, &id, &forged, BLOB_PLAIN_MAX), &id, "bomb");
    }
    let honest = forge(&sealer, &id, 1, zeros.len() as u32, &bomb);
    assert_damage(sealer.unseal(BlobKind::Data, EPOCH, &id, &honest, u32::MAX), &id, "over the limit of a blob");
}

#[test]
fn a_body_that_is_not_what_the_header_says_is_refused() {
    let sealer = sealer();
    let plaintext = text(1000);
    let id = sealer.keyring().blob_id(BlobKind::Data, &plaintext);
    let body = zstd::bulk::compress(&plaintext, 1).unwrap();
    let unseal = |sealed: &[u8], max| sealer.unseal(BlobKind::Data, EPOCH, &id, sealed, max);
    assert_eq!(
        unseal(&forge(&sealer, &id, 1, 1000, &body), 1000).unwrap(),
        plaintext,
        "the rest of this test is sharp"
    );
    let cases = [
        ("longer than announced", forge(&sealer, &id, 1, 999, &body)),
        ("shorter than announced", forge(&sealer, &id, 1, 1001, &body)),
        ("cut off", forge(&sealer, &id, 1, 1000, &body[..body.len() - 1])),
        ("empty", forge(&sealer, &id, 1, 1000, b"")),
        ("unknown codec", forge(&sealer, &id, 2, 1000, &body)),
        ("raw and too short", forge(&sealer, &id, 0, 1000, &plaintext[..999])),
        ("raw and too long", forge(&sealer, &id, 0, 1000, &[&plaintext[..], b"x"].concat())),
        ("no header", sealer.keyring().seal(Purpose::Data, id.as_bytes(), &[0, 0, 0])),
    ];
    for (case, sealed) in cases {
        assert_damage(unseal(&sealed, 2000), &id, case);
    }
    assert_damage(unseal(&forge(&sealer, &id, 1, 1000, &body), 999), &id, "longer than the reader expects");
}

#[test]
fn sealing_the_same_blob_twice_shares_no_bytes() {
    let sealer = sealer();
    let (_, first) = seal(&sealer, BlobKind::Data, &random_bytes(4096));
    let (_, second) = seal(&sealer, BlobKind::Data, &random_bytes(4096));
    assert_eq!(first.len(), second.len());
    let windows: std::collections::HashSet<_> = first.windows(16).collect();
    assert!(second.windows(16).all(|window| !windows.contains(window)));
}

#[test]
fn the_pool_of_scratches_stays_small_and_survives_failures() {
    let sealer = sealer();
    let (id, sealed) = seal(&sealer, BlobKind::Data, &text(5000));
    for _ in 0..3 {
        assert!(sealer.unseal(BlobKind::Data, EPOCH, &id, &sealed[1..], 5000).is_err());
        assert_eq!(sealer.unseal(BlobKind::Data, EPOCH, &id, &sealed, 5000).unwrap(), text(5000));
    }
    assert_eq!(sealer.pool.lock().len(), 1);
}

#[test]
#[should_panic(expected = "16 MiB")]
fn a_blob_over_the_limit_is_a_fault_of_the_caller() {
    seal(&sealer(), BlobKind::Data, &vec![0; BLOB_PLAIN_MAX as usize + 1]);
}

#[test]
fn copies_of_one_frame_share_no_sealed_bytes_and_both_open() {
    let sealer = sealer();
    let plaintext = text(20_000);
    let id = sealer.keyring().blob_id(BlobKind::Node, &plaintext);
    let frame = sealer.frame(&plaintext, Compression::default(), Effort::Quick, &mut Scratch::new());
    let copies = [sealer.seal_frame(BlobKind::Node, &id, frame.clone()), sealer.seal_frame(BlobKind::Node, &id, frame)];
    let [first, second] = &copies;
    assert!(!first.windows(16).any(|run| second.windows(16).any(|other| other == run)));
    for copy in &copies {
        assert_eq!(sealer.unseal(BlobKind::Node, EPOCH, &id, copy, plaintext.len() as u32).unwrap(), plaintext);
    }
}
