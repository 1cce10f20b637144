//! Tests of key slots: credentials, copies, damage and absurd parameters.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    crypto::Keyring,
    format::slot::{SLOT_BOUND_LENGTH, SLOT_LENGTH},
};

const REPOSITORY: RepositoryId = RepositoryId([8; 16]);

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_string()))
}

fn name(text: &str) -> SlotName {
    SlotName::new(text).unwrap()
}

fn seal(slot: &str, epoch: u32, credential: &Credential) -> (SlotName, Vec<u8>) {
    let master = MasterKey::from_bytes(&[42; 32]);
    let bytes =
        seal_slot(&master, epoch, REPOSITORY, &name(slot), "label", credential, KdfParams::testing(), 5).unwrap();
    (name(slot), bytes)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = *blake3::hash(&bytes[..SLOT_LENGTH - 32]).as_bytes();
    bytes[SLOT_LENGTH - 32..].copy_from_slice(&checksum);
    bytes
}

fn is_wrong_key(slots: &[(SlotName, Vec<u8>)], credential: &Credential) -> bool {
    matches!(unlock(slots, REPOSITORY, credential), Err(Error::WrongKey))
}

#[test]
fn each_kind_of_slot_gives_the_key_back() {
    let credentials = [
        passphrase("päss"),
        Credential::KeyFile(generate_key_file()),
        Credential::RecoveryCode(generate_recovery_code()),
    ];
    let slots: Vec<_> = credentials.iter().zip(["a", "b", "c"]).map(|(c, n)| seal(n, 3, c)).collect();
    for (credential, slot) in credentials.iter().zip(["a", "b", "c"]) {
        let (master, epoch, opened) = unlock(&slots, REPOSITORY, credential).unwrap();
        assert_eq!((master.as_bytes(), epoch, opened), (&[42; 32], 3, name(slot)));
    }
}

#[test]
fn a_slot_describes_itself_without_a_secret() {
    let (slot, bytes) = seal("a", 0, &passphrase("x"));
    let info = describe_slot(&slot, &bytes).unwrap();
    assert_eq!((info.kind, info.label.as_str(), info.created_ns), (SlotKind::Passphrase, "label", 5));
    assert_eq!(info.kdf, Some(KdfParams::testing()));
    let (slot, bytes) = seal("b", 0, &Credential::KeyFile(generate_key_file()));
    assert_eq!(describe_slot(&slot, &bytes).unwrap().kdf, None);
    assert!(describe_slot(&name("c"), &bytes).is_err(), "under another name");
}

#[test]
fn a_wrong_secret_a_forged_slot_and_another_repository_are_one_error() {
    let right = passphrase("right");
    let slot = seal("a", 0, &right);
    assert!(is_wrong_key(std::slice::from_ref(&slot), &passphrase("wrong")), "wrong passphrase");
    assert!(is_wrong_key(std::slice::from_ref(&slot), &Credential::KeyFile(generate_key_file())), "other kind");
    assert!(is_wrong_key(&[], &right), "no slot at all");
    assert!(matches!(unlock(std::slice::from_ref(&slot), RepositoryId([9; 16]), &right), Err(Error::WrongKey)));
    // One bit in every byte that is bound or sealed, with the checksum set right: the passphrase no longer opens it. Some
    // fields make a slot that is refused before it is tried; alone in the repository that is damage, never a key.
    for offset in 0..SLOT_LENGTH - 32 {
        let mut forged = slot.1.clone();
        forged[offset] ^= 1;
        let forged = (name("a"), with_checksum(forged));
        let other = seal("b", 0, &passphrase("other"));
        assert!(is_wrong_key(&[forged, other], &right), "offset {offset}");
    }
}

#[test]
fn a_slot_that_would_open_under_two_secrets_fails_its_commitment() {
    // The cipher alone does not commit to a key, so such a slot can be made; here its maker knows the second secret and seals
    // for it, but keeps the commitment to the first.
    let (first, second) = (passphrase("first"), passphrase("second"));
    let mut slot = SlotFile::decode(&seal("a", 0, &first).1, "x").unwrap();
    let kek = derive_kek(&second, &slot).unwrap();
    seal_key(&mut slot, &kek, &MasterKey::from_bytes(&[66; 32]), 0);
    assert!(unseal_key(&slot, &kek).is_some(), "the cipher would open it");
    let slots = [(name("a"), slot.encode())];
    assert!(is_wrong_key(&slots, &second));
    assert!(is_wrong_key(&slots, &first));
}

#[test]
fn a_slot_bomb_is_refused_before_it_runs_and_does_not_hide_the_others() {
    let right = passphrase("right");
    let mut bomb = seal("a", 0, &right).1;
    bomb[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
    let bomb = (name("a"), with_checksum(bomb));
    // It would need 4 TiB: an attempt to run it could not return in this test.
    assert!(unlock(std::slice::from_ref(&bomb), REPOSITORY, &right).unwrap_err().is_damage());
    let slots = [bomb, seal("b", 0, &right)];
    assert_eq!(unlock(&slots, REPOSITORY, &right).unwrap().2, name("b"));
}

#[test]
fn dear_slots_are_tried_last() {
    let right = passphrase("right");
    let mut heavy = seal("a", 0, &right).1;
    // 4 GiB in 16 passes: within the bounds, and minutes of work.
    heavy[48..52].copy_from_slice(&KdfParams::M_KIB_MAX.to_le_bytes());
    heavy[52..56].copy_from_slice(&16u32.to_le_bytes());
    let slots = [(name("a"), with_checksum(heavy)), seal("b", 0, &right)];
    assert_eq!(unlock(&slots, REPOSITORY, &right).unwrap().2, name("b"));
}

#[test]
fn damaged_copies_are_passed_over_and_damage_of_all_is_told_from_a_wrong_key() {
    let right = passphrase("right");
    let slot = seal("a", 0, &right);
    let mut damaged = slot.clone();
    damaged.1[SLOT_BOUND_LENGTH] ^= 1;
    let copies = [damaged.clone(), damaged.clone(), slot];
    assert!(unlock(&copies, REPOSITORY, &right).is_ok());
    assert!(is_wrong_key(&copies, &passphrase("wrong")));
    let error = unlock(&[damaged.clone(), damaged], REPOSITORY, &right).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { object, .. } if object == "keys/a"), "{error}");
}

#[test]
fn a_newer_slot_alone_asks_for_a_newer_program() {
    let mut slot = seal("a", 0, &passphrase("x"));
    slot.1[8] = 9;
    let error = unlock(&[slot], REPOSITORY, &passphrase("x")).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { found: 9, .. }), "{error}");
}

#[test]
fn recovery_codes_survive_being_written_down() {
    let code = generate_recovery_code();
    assert_eq!(code.len(), 39, "{}", code.as_str());
    assert_eq!(code.split('-').count(), 8);
    let again = decode_recovery(&code.to_lowercase().replace('-', " ")).unwrap();
    assert_eq!(*again, *decode_recovery(&code).unwrap());
    let sloppy = decode_recovery("oOiI-lL00-1100-0011-0000-0000-0000-0000").unwrap();
    assert_eq!(*sloppy, *decode_recovery("0011 1100 1100 0011 0000 0000 0000 0000").unwrap());
    let mut expected = [0xffu8; 20];
    expected[19] = 0xfe;
    assert_eq!(*decode_recovery("ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZY").unwrap(), expected);
    for bad in ["", "0", &"0".repeat(31), &"0".repeat(33), &"0".repeat(40), "U000-0000-0000-0000-0000-0000-0000-0000"] {
        assert!(decode_recovery(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_mistyped_recovery_code_is_a_wrong_key_and_no_other_error() {
    let slots = [seal("a", 0, &Credential::RecoveryCode(generate_recovery_code()))];
    for typed in ["", "nonsense!", &"0".repeat(32)] {
        assert!(is_wrong_key(&slots, &Credential::RecoveryCode(Zeroizing::new(typed.to_string()))), "{typed}");
    }
}

#[test]
fn secrets_that_protect_nothing_make_no_slot() {
    let master = MasterKey::generate();
    let weak = [
        passphrase(""),
        Credential::KeyFile(Zeroizing::new(vec![1; 31])),
        Credential::RecoveryCode(Zeroizing::new("1234".to_string())),
    ];
    for credential in weak {
        let made = seal_slot(&master, 0, REPOSITORY, &name("a"), "", &credential, KdfParams::testing(), 0);
        assert!(matches!(made, Err(Error::Invalid { .. })), "{credential:?}");
    }
    for label in ["a\nb", &"x".repeat(128)] {
        let made = seal_slot(&master, 0, REPOSITORY, &name("a"), label, &passphrase("x"), KdfParams::testing(), 0);
        assert!(matches!(made, Err(Error::Invalid { .. })), "{label:?}");
    }
}

#[test]
fn neither_debug_nor_errors_show_a_secret() {
    let credential = passphrase("hunter2");
    let master = MasterKey::from_bytes(b"hunter2hunter2hunter2hunter2hunt");
    let keyring = Keyring::new(&master, REPOSITORY, 0);
    let error = unlock(&[seal("a", 0, &passphrase("x"))], REPOSITORY, &credential).unwrap_err();
    let shown = format!("{credential:?} {master:?} {keyring:?} {error:?} {error}");
    assert!(!shown.contains("hunter") && !shown.contains("104, 117, 110"), "{shown}");
}

#[test]
fn two_slots_of_one_secret_share_no_bytes_that_an_observer_could_match() {
    let credential = passphrase("same");
    let (a, b) = (seal("a", 0, &credential).1, seal("a", 0, &credential).1);
    assert_ne!(a[32..48], b[32..48], "salt");
    assert_ne!(a[264..296], b[264..296], "commitment");
    assert_ne!(a[320..384], b[320..384], "wrapped key");
}
