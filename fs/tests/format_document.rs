//! The worked example of docs/format.md, held against the code: what the document prints is what the program reads.

#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use vellum_fs::{
    format::{
        dirent::{DirentRef, first_cookie},
        extent::Extent,
        inode::{FileKind, Inode},
        key::{self, KeyParts},
        op::Op,
        volume::VolumeState,
    },
    ino::Ino,
    time::Time,
    tree::node::Node,
};
use vellum_store::{
    crypto::{
        BlobSealer, Compression, Credential, Keyring, MasterKey, SlotName, StoredConfig, SubkeyUse, describe_slot,
        unlock,
    },
    format::head::{Head, NO_HEAD},
    id::{BlobId, BlobKind, HeadHash, PackId, RepositoryId, VolumeName, hex},
    pack::{read_trailer, verify_pack},
};

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md")).unwrap()
}

/// The bytes of the block that the document calls `name`.
fn example(name: &str) -> Vec<u8> {
    let document = document();
    let start = format!("```text example {name}\n");
    let (_, rest) = document.split_once(&start).unwrap_or_else(|| panic!("docs/format.md has no example {name}"));
    let (block, _) = rest.split_once("```").unwrap();
    let digits: String = block.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn repository() -> RepositoryId {
    RepositoryId(example("repository-id").try_into().unwrap())
}

fn keyring() -> Arc<Keyring> {
    let master = MasterKey::from_bytes(&example("master-key").try_into().unwrap());
    Arc::new(Keyring::new(&master, repository(), 3))
}

fn assert_printed(value: &str) {
    assert!(document().contains(&format!("`{value}`")), "docs/format.md does not say {value}");
}

#[test]
fn the_slot_of_the_document_opens_with_its_passphrase() {
    let name = SlotName::new("main").unwrap();
    let slots = [(name.clone(), example("slot"))];
    let credential = Credential::Passphrase("correct horse".to_string().into());
    let (master, epoch, _) = unlock(&slots, repository(), &credential).unwrap();
    assert_eq!(epoch, 3);
    assert_eq!(describe_slot(&name, &slots[0].1).unwrap().label, "desk");
    assert_eq!(Keyring::new(&master, repository(), 3).fingerprint(), keyring().fingerprint());
}

#[test]
fn the_configuration_of_the_document_is_authentic() {
    let config = StoredConfig::read(&[Some(example("config")), None, None]).unwrap().verify(&keyring()).unwrap().config;
    let sizes = config.chunk_sizes;
    assert_eq!((sizes.min(), sizes.avg(), sizes.max(), config.pack_bytes), (16 << 10, 64 << 10, 256 << 10, 16 << 20));
    assert_eq!((config.compression.level, config.created_ns), (3, 1_234_567_890));
}

#[test]
fn keys_and_ids_are_those_of_the_document() {
    let keyring = keyring();
    for use_ in SubkeyUse::ALL {
        assert_printed(&hex(&keyring.subkey(use_)));
    }
    let id = keyring.blob_id(BlobKind::Data, b"abc");
    assert_printed(&id.to_hex());
    assert_printed(&keyring.blob_id(BlobKind::Node, b"abc").to_hex());
    let sealer = BlobSealer::new(keyring, Compression::default());
    assert_eq!(sealer.unseal(BlobKind::Data, 3, &id, &example("blob-abc"), 3).unwrap(), b"abc");
}

#[test]
fn from_the_head_of_the_document_a_reader_gets_to_the_file() {
    let keyring = keyring();
    let bytes = example("head");
    let head = Head::decode(&keyring, &VolumeName::new("main").unwrap(), 1, &bytes).unwrap();
    assert_printed(&HeadHash::of(&bytes).to_hex());
    assert_printed(&head.tree_root.to_hex());
    assert_eq!((head.previous, head.op_sequence, head.manifest.0, head.writer), (NO_HEAD, 3, [0x11; 32], [0x22; 16]));

    let pack = example("pack");
    let id = PackId(*blake3::hash(&pack).as_bytes());
    assert_printed(&id.to_hex());
    let mut read = |offset: u64, length: u32| Ok(pack[offset as usize..][..length as usize].to_vec());
    let entries = read_trailer(&keyring, id, pack.len() as u64, &mut read).unwrap();
    assert_eq!((pack.len(), entries.len(), entries[0].length, entries[0].id), (384, 1, 189, head.tree_root));
    let sealer = BlobSealer::new(keyring.clone(), Compression::default());
    let mut nodes = Vec::new();
    verify_pack(&keyring, id, pack.len() as u64, &mut read, &mut |entry, sealed| {
        nodes.push(sealer.unseal(BlobKind::Node, entry.epoch, &entry.id, sealed, entry.plain_length)?);
        Ok(())
    })
    .unwrap();
    assert_eq!(nodes, [example("node")]);
    check_node(&keyring, &Node::decode(&head.tree_root, &nodes[0]).unwrap());
}

fn check_node(keyring: &Keyring, node: &Node) {
    for at in 0..node.count() {
        assert_printed(&hex(node.key(at)));
        assert_printed(&hex(node.value(at)));
    }
    let value = |key: &[u8]| node.value(node.search(key).unwrap());
    let state = VolumeState::decode(value(&key::volume_state())).unwrap();
    let created = Time { sec: 1_600_000_000, nsec: 250 };
    assert_eq!((state.next_ino, state.op_sequence, state.next_snapshot, state.created), (Ino(34), 3, 1, created));

    let root = Inode::decode(Ino::ROOT, value(&key::inode(Ino::ROOT))).unwrap();
    let changed = Time { sec: 1_600_000_003, nsec: 0 };
    assert_eq!((root.kind, root.mode, root.nlink, root.size), (FileKind::Directory, 0o755, 2, 32));
    assert_eq!([root.btime, root.ctime, root.mtime, root.atime], [created, changed, changed, created]);

    let cookie = first_cookie(&keyring.subkey(SubkeyUse::DirentName), b"HELLO.txt");
    assert_printed(&format!("{cookie:#x}"));
    assert_eq!(KeyParts::parse(node.key(2)).unwrap().number(), Some(cookie));
    let entry = DirentRef::decode(value(&key::dirent(Ino::ROOT, cookie))).unwrap();
    assert_eq!((entry.ino, entry.kind, entry.name), (Ino(2), FileKind::Regular, &b"hello.txt"[..]));

    let file = Inode::decode(entry.ino, value(&key::inode(entry.ino))).unwrap();
    assert_eq!((file.mode, file.nlink, file.size, file.allocated), (0o644, 1, 14, 14));
    assert_eq!((file.parent, file.parent_cookie, file.atime), (Ino::ROOT, cookie, file.btime));
    assert_eq!(value(&key::body(entry.ino)), b"hello, vellum\n");
}

#[test]
fn folding_extents_and_records_are_those_of_the_document() {
    let key = keyring().subkey(SubkeyUse::DirentName);
    let cookie = first_cookie(&key, "Straße é.TXT".as_bytes());
    assert_printed(&format!("{cookie:#x}"));
    assert_eq!(cookie, first_cookie(&key, "STRAßE É.TXT".as_bytes()));
    let whole = Extent { offset: 0, length: 65_536, blob: BlobId([0x33; 32]), blob_offset: 0, blob_length: 65_536 };
    assert_eq!(whole.encode(), example("extent-whole"));
    let part = Extent { offset: 4096, length: 1000, blob_offset: 4096, ..whole };
    assert_eq!(part.encode(), example("extent-part"));
    let time = Time { sec: 1_600_000_003, nsec: 0 };
    let unlink = Op::Unlink { parent: Ino::ROOT, name: b"hello.txt".to_vec(), time };
    assert_eq!(Op::decode(&example("record")).unwrap(), (4, unlink));
}
