//! Key slots of an open repository.

use super::*;
use crate::crypto::{SlotName, generate_key_file, generate_recovery_code};

fn secret(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_string()))
}

fn opens(disk: &MemoryDisk, credential: Credential) -> bool {
    match Repository::open(OpenOptions { credential, ..options(Arc::new(disk.clone())) }) {
        Ok(_) => true,
        Err(Error::WrongKey) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn slots_are_added_listed_and_removed_but_for_the_last() {
    let disk = new_repository();
    let repository = open(&disk);
    let (key_file, code) = (generate_key_file(), generate_recovery_code());
    let names = ["safe", "server"].map(|name| SlotName::new(name).unwrap());
    let kdf = KdfParams::testing();
    repository.add_slot(&names[0], "in the safe", &Credential::RecoveryCode(code.clone()), kdf, 5).unwrap();
    repository.add_slot(&names[1], "", &Credential::KeyFile(key_file.clone()), kdf, 6).unwrap();
    let again = repository.add_slot(&names[1], "", &secret("x"), kdf, 7);
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    let listed: Vec<_> = repository.list_slots().unwrap().into_iter().map(|slot| slot.name.to_string()).collect();
    assert_eq!(listed, ["default", "safe", "server"]);
    assert!(opens(&disk, Credential::RecoveryCode(code)) && opens(&disk, Credential::KeyFile(key_file.clone())));

    repository.remove_slot(&SlotName::new("default").unwrap()).unwrap();
    repository.remove_slot(&names[0]).unwrap();
    assert!(matches!(repository.remove_slot(&names[0]), Err(Error::NotFound { .. })));
    assert!(matches!(repository.remove_slot(&names[1]), Err(Error::LastSlot { .. })));
    assert!(!opens(&disk, passphrase()) && opens(&disk, Credential::KeyFile(key_file)));
}

#[test]
fn a_changed_passphrase_opens_and_the_old_one_does_not() {
    let disk = new_repository();
    let repository = open(&disk);
    let name = SlotName::new("default").unwrap();
    let kdf = KdfParams::testing();
    let wrong = repository.change_credential(&name, &secret("wrong"), &secret("new"), kdf, 1);
    assert!(matches!(wrong, Err(Error::WrongKey)));
    repository.change_credential(&name, &passphrase(), &secret("new"), kdf, 1).unwrap();
    assert!(opens(&disk, secret("new")) && !opens(&disk, passphrase()));
    assert_eq!(damage_of(&repository), []);
}

#[test]
fn a_slot_with_damaged_copies_is_named_by_a_check_and_still_opens() {
    let disk = new_repository();
    disk.rot(&PathBuf::from("/repository/keys/default"), 30, 1).unwrap();
    disk.remove(&PathBuf::from("/repository/keys/default.2")).unwrap();
    let damage = damage_of(&open(&disk));
    assert!(damage.iter().all(|one| one.object.starts_with("keys/default")) && !damage.is_empty(), "{damage:?}");
}
