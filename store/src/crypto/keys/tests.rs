//! Tests of keyrings: what is sealed opens only as what it was.

#![allow(clippy::unwrap_used)]

use super::*;

fn keyring(key: u8, repository: u8, epoch: u32) -> Keyring {
    Keyring::new(&MasterKey::from_bytes(&[key; 32]), RepositoryId([repository; 16]), epoch)
}

#[test]
fn what_is_sealed_unseals_only_as_what_it_was_sealed() {
    let keys = keyring(1, 1, 5);
    for sealed_as in Purpose::ALL {
        let sealed = keys.seal(sealed_as, b"bound", b"text");
        for unsealed_as in Purpose::ALL {
            let result = keys.unseal(unsealed_as, 5, b"bound", &sealed, "it");
            assert_eq!(result.is_ok(), sealed_as == unsealed_as, "{sealed_as:?} as {unsealed_as:?}");
        }
    }
    let sealed = keys.seal(Purpose::Head, b"bound", b"text");
    assert_eq!(keys.unseal(Purpose::Head, 5, b"bound", &sealed, "it").unwrap(), b"text");
    for (case, result) in [
        ("other bound data", keys.unseal(Purpose::Head, 5, b"bounc", &sealed, "it")),
        ("other epoch", keys.unseal(Purpose::Head, 4, b"bound", &sealed, "it")),
        ("other key", keyring(2, 1, 5).unseal(Purpose::Head, 5, b"bound", &sealed, "it")),
        ("other repository", keyring(1, 2, 5).unseal(Purpose::Head, 5, b"bound", &sealed, "it")),
    ] {
        assert!(matches!(&result, Err(Error::Corrupt { object, .. }) if object == "it"), "{case}");
    }
}

#[test]
fn all_ways_of_sealing_agree() {
    let keys = keyring(1, 1, 0);
    let mut buffer = [vec![0; NONCE_LENGTH], b"text".to_vec()].concat();
    keys.seal_vec(Purpose::Journal, b"", &mut buffer);
    assert_eq!(buffer.len(), 4 + SEAL_OVERHEAD);
    assert_eq!(keys.unseal(Purpose::Journal, 0, b"", &buffer, "it").unwrap(), b"text");
    let mut slice = [0u8; 4 + SEAL_OVERHEAD];
    slice[NONCE_LENGTH..][..4].copy_from_slice(b"text");
    keys.seal_slice(Purpose::Journal, b"", &mut slice);
    assert_eq!(keys.unseal_slice(Purpose::Journal, 0, b"", &mut slice, "it").unwrap(), b"text");
}

#[test]
fn a_failed_unsealing_in_place_leaves_the_bytes_as_they_were() {
    let keys = keyring(1, 1, 0);
    let mut sealed = keys.seal(Purpose::Journal, b"", b"text");
    let before = sealed.clone();
    assert!(keys.unseal_slice(Purpose::Journal, 0, b"x", &mut sealed, "it").is_err());
    assert_eq!(sealed, before, "another key or epoch may still be tried on them");
}

#[test]
fn an_empty_text_is_sealed_and_less_than_the_overhead_is_damage() {
    let keys = keyring(1, 1, 0);
    let sealed = keys.seal(Purpose::Table, b"", b"");
    assert_eq!(sealed.len(), SEAL_OVERHEAD);
    assert_eq!(keys.unseal(Purpose::Table, 0, b"", &sealed, "it").unwrap(), b"");
    for length in 0..SEAL_OVERHEAD {
        assert!(keys.unseal(Purpose::Table, 0, b"", &sealed[..length], "it").unwrap_err().is_damage());
        assert!(keys.unseal_slice(Purpose::Table, 0, b"", &mut sealed[..length].to_vec(), "it").is_err());
    }
}

#[test]
fn ids_and_names_outlive_a_rotation_and_sealing_keys_do_not() {
    let (before, after) = (keyring(1, 1, 0), keyring(1, 1, 1));
    assert_eq!(before.blob_id(BlobKind::Data, b"x"), after.blob_id(BlobKind::Data, b"x"));
    assert_ne!(before.blob_id(BlobKind::Data, b"x"), before.blob_id(BlobKind::Node, b"x"));
    assert_eq!(before.subkey(SubkeyUse::DirentName), after.subkey(SubkeyUse::DirentName));
    assert_eq!(before.fingerprint(), after.fingerprint());
    assert_ne!(before.secrets.seal, after.secrets.seal);
    assert_eq!(before.at_epoch(1).secrets.seal, after.secrets.seal);
    let sealed = before.seal(Purpose::Node, b"", b"old");
    assert_eq!(after.unseal(Purpose::Node, 0, b"", &sealed, "it").unwrap(), b"old");
}

#[test]
fn two_master_keys_have_nothing_in_common() {
    let (one, two) = (keyring(1, 1, 0), keyring(2, 1, 0));
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_ne!(one.blob_id(BlobKind::Data, b"x"), two.blob_id(BlobKind::Data, b"x"));
    for use_ in SubkeyUse::ALL {
        assert_ne!(one.subkey(use_), two.subkey(use_));
    }
    assert_ne!(MasterKey::generate().as_bytes(), MasterKey::generate().as_bytes());
}

#[test]
fn every_key_of_a_keyring_is_different() {
    let keys = keyring(1, 1, 0);
    let mut all = keys.secrets.seal.to_vec();
    all.extend(SubkeyUse::ALL.map(|use_| keys.subkey(use_)));
    all.push(keys.secrets.master);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}
