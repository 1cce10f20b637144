//! Targets for what is read as a whole: configuration, slots, blobs, heads, manifests, remembered state, places, descriptions
//! of lock holders.

use std::{path::Path, sync::LazyLock};

use super::{Input, KEYRING, volume};
use crate::{
    codec::{Reader, Writer},
    config::{ChunkSizes, RepositoryConfig},
    crypto::{
        BLOB_PLAIN_MAX, BlobSealer, Compression, Credential, Effort, KdfParams, MasterKey, Purpose, SEAL_OVERHEAD,
        Scratch, SlotKind, SlotName, StoredConfig, describe_slot, seal_config, seal_slot, unlock,
    },
    disk::{Disk, MemoryDisk},
    error::Error,
    format::{
        blob::{BlobHeader, Codec},
        config::{CONFIG_LENGTH, ConfigFile},
        head::{HEAD_BYTES, Head, NO_HEAD, associated},
        manifest::Manifest,
        slot::{SLOT_LENGTH, SlotFile},
    },
    id::{BlobId, BlobKind, HeadHash, ManifestId, PackId, RepositoryId, SegmentId, VolumeName},
    lock::Holder,
    pack::PackEntry,
    repository::BlobPlace,
    state::{Remembered, StateDirectory},
};

static SEALER: LazyLock<BlobSealer> = LazyLock::new(|| BlobSealer::new(KEYRING.clone(), Compression::default()));

/// The bytes with a fixed length and the checksum that ends them, as anybody can compute it.
fn with_checksum(data: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(length, 0);
    let checksum = *blake3::hash(&bytes[..length - 32]).as_bytes();
    bytes[length - 32..].copy_from_slice(&checksum);
    bytes
}

pub(super) fn config(data: &[u8]) -> bool {
    let accepted = check_config(data);
    check_config(&with_checksum(data, CONFIG_LENGTH)) || accepted
}

fn check_config(bytes: &[u8]) -> bool {
    let Ok(file) = ConfigFile::decode(bytes, "config") else { return false };
    assert_eq!(file.encode(), bytes);
    let stored = StoredConfig::read(&[None, Some(bytes.to_vec()), None]).expect("one copy is intact");
    // Without the key nobody makes the code.
    let authentic = seal_config(&KEYRING, &file.config) == bytes;
    assert_eq!(stored.verify(&KEYRING).is_ok(), authentic && file.config.repository == KEYRING.repository());
    true
}

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    let mut configs =
        [RepositoryConfig::new(KEYRING.repository(), 1), RepositoryConfig::new(RepositoryId([9; 16]), -5)];
    configs[1].compression = Compression { enabled: false, level: -2 };
    configs[1].chunk_sizes = ChunkSizes::LARGE;
    configs.iter().map(|config| seal_config(&KEYRING, config)).collect()
}

pub(super) fn slot(data: &[u8]) -> bool {
    // What people type is read from the same bytes.
    let _ = Credential::RecoveryCode(String::from_utf8_lossy(data).into_owned().into()).check();
    let accepted = check_slot(data);
    check_slot(&with_checksum(data, SLOT_LENGTH)) || accepted
}

fn check_slot(bytes: &[u8]) -> bool {
    let Ok(slot) = SlotFile::decode(bytes, "keys/x") else { return false };
    assert_eq!(slot.encode(), bytes);
    let name = slot.info.name.clone();
    assert_eq!(describe_slot(&name, bytes).ok().as_ref(), Some(&slot.info));
    assert!(name.objects().iter().all(|object| SlotName::from_object(object).as_ref() == Some(&name)));
    if slot.info.kind == SlotKind::KeyFile {
        let opened = unlock(&[(name, bytes.to_vec())], slot.repository, &Credential::KeyFile(vec![3; 32].into()));
        assert!(matches!(opened, Ok(_) | Err(Error::WrongKey)));
    }
    true
}

pub(super) fn slot_seeds() -> Vec<Vec<u8>> {
    let secrets = [
        Credential::Passphrase("correct horse".to_string().into()),
        Credential::KeyFile(vec![3; 32].into()),
        Credential::RecoveryCode("0123-4567-89AB-CDEF-GHJK-MNPQ-RSTV-WXYZ".to_string().into()),
    ];
    let (master, repository) = (MasterKey::from_bytes(&[1; 32]), KEYRING.repository());
    let seal = |secret: &Credential| {
        let name = SlotName::new("laptop-1").expect("the name keeps the rules");
        seal_slot(&master, 0, repository, &name, "Läptop", secret, KdfParams::testing(), 77)
            .expect("the secret is valid")
    };
    secrets.iter().map(seal).collect()
}

/// First byte: bit 0 the kind, bit 1 whether the next two say what is expected, bit 2 whether the rest is as stored.
pub(super) fn blob(data: &[u8]) -> bool {
    let mut input = Input(data);
    let flags = input.u8();
    let kind = if flags & 1 == 0 { BlobKind::Data } else { BlobKind::Node };
    let length_max = if flags & 2 == 0 { BLOB_PLAIN_MAX } else { u32::from(input.u16()) };
    let (frame, unknown) = (input.0, BlobId([0; 32]));
    let unseal = |id: &BlobId, sealed: &[u8]| SEALER.unseal(kind, 0, id, sealed, length_max);
    if flags & 4 != 0 {
        assert!(unseal(&unknown, frame).is_err());
        return false;
    }
    let purpose = if flags & 1 == 0 { Purpose::Data } else { Purpose::Node };
    let seal = |id: &BlobId| KEYRING.seal(purpose, id.as_bytes(), frame);
    let Some(plain) = plaintext(frame, length_max) else {
        assert!(unseal(&unknown, &seal(&unknown)).is_err());
        return false;
    };
    assert!(plain.len() <= length_max as usize);
    let id = KEYRING.blob_id(kind, &plain);
    assert_eq!(unseal(&id, &seal(&id)).ok().as_ref(), Some(&plain));
    assert!(unseal(&unknown, &seal(&unknown)).is_err(), "content under another id");
    let again = SEALER.seal(kind, &id, &plain, Effort::Quick, &mut Scratch::new());
    assert!(again.len() <= plain.len() + 45);
    assert_eq!(unseal(&id, &again).ok(), Some(plain));
    true
}

/// What the frame of a blob holds, found out without its id.
fn plaintext(frame: &[u8], length_max: u32) -> Option<Vec<u8>> {
    let mut reader = Reader::new(frame, "blob");
    let header = BlobHeader::decode(&mut reader, length_max).ok()?;
    let body = &frame[reader.position()..];
    match header.codec {
        Codec::Raw => Some(body.to_vec()),
        Codec::Zstd => {
            let mut scratch = Scratch::new();
            scratch.buffer.extend_from_slice(body);
            scratch.decompress(0..body.len(), header.plain_length as usize)
        }
    }
}

pub(super) fn blob_seeds() -> Vec<Vec<u8>> {
    let text = b"what returns is worth compressing; ".repeat(40);
    let seeds: [(u8, &[u8]); 4] = [(0, b""), (1, b"abc"), (0, &text), (1, &text)];
    let seed = |(flags, plain): &(u8, &[u8])| {
        let kind = if flags & 1 == 0 { BlobKind::Data } else { BlobKind::Node };
        let (purpose, id) = (if flags & 1 == 0 { Purpose::Data } else { Purpose::Node }, KEYRING.blob_id(kind, plain));
        let sealed = SEALER.seal(kind, &id, plain, Effort::Full, &mut Scratch::new());
        let frame = KEYRING.unseal(purpose, 0, id.as_bytes(), &sealed, "blob").expect("it was sealed right here");
        [&[*flags][..], &frame].concat()
    };
    seeds.iter().map(seed).collect()
}

/// The body of a head.
pub(super) fn head(data: &[u8]) -> bool {
    let (volume, keyring) = (volume(), &*KEYRING);
    assert!(Head::decode(keyring, &volume, 1, data).is_err(), "nobody makes a seal without the key");
    let mut body = data.to_vec();
    body.resize(HEAD_BYTES - SEAL_OVERHEAD, 0);
    let sequence = u64::from_le_bytes(Input(&body[16..]).array());
    let aad = associated(&volume, sequence);
    let sealed = keyring.seal(Purpose::Head, &aad, &body);
    assert!(Head::decode(keyring, &volume, sequence.wrapping_add(1), &sealed).is_err());
    let Ok(head) = Head::decode(keyring, &volume, sequence, &sealed) else { return false };
    let again = keyring.unseal(Purpose::Head, 0, &aad, &head.encode(keyring, &volume), "head");
    assert_eq!(again.ok(), Some(body));
    true
}

fn a_head(sequence: u64) -> Head {
    let previous = if sequence == 1 { NO_HEAD } else { HeadHash([4; 32]) };
    Head {
        epoch: 3,
        key_epoch: 0,
        sequence,
        previous,
        tree_root: BlobId([7; 32]),
        op_sequence: 99,
        journal_commit: 12,
        gc_generation: 2,
        manifest: ManifestId([9; 32]),
        writer: [5; 16],
        time_ns: -1,
    }
}

pub(super) fn head_seeds() -> Vec<Vec<u8>> {
    let body = |sequence| {
        let sealed = a_head(sequence).encode(&KEYRING, &volume());
        let body = KEYRING.unseal(Purpose::Head, 0, &associated(&volume(), sequence), &sealed, "head");
        // Reserved zeros come back by themselves.
        body.expect("it was sealed right here")[..168].to_vec()
    };
    vec![body(1), body(4)]
}

/// The body of a manifest without its padding.
pub(super) fn manifest(data: &[u8]) -> bool {
    let padded = (data.len() + SEAL_OVERHEAD).next_multiple_of(4096) - SEAL_OVERHEAD;
    let mut body = data.to_vec();
    body.resize(padded, 0);
    let sealed = KEYRING.seal(Purpose::Manifest, &[], &body);
    let Ok(manifest) = Manifest::decode(&KEYRING, ManifestId::of(&sealed), &sealed) else { return false };
    let (id, again) = manifest.encode(&KEYRING).expect("what was read is within the bounds");
    assert_eq!(Manifest::decode(&KEYRING, id, &again).ok(), Some(manifest));
    assert!(again.len() <= sealed.len());
    true
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let name = |name: &str| VolumeName::new(name).expect("the name keeps the rules");
    let manifest =
        Manifest { segments: vec![SegmentId([1; 32]); 3], volumes: vec![name("main"), name("b.2")], gc_generation: 17 };
    let body = |manifest: &Manifest, length: usize| {
        let (_, sealed) = manifest.encode(&KEYRING).expect("it is small");
        KEYRING.unseal(Purpose::Manifest, 0, &[], &sealed, "manifest").expect("it was sealed right here")[..length]
            .to_vec()
    };
    vec![body(&Manifest::default(), 24), body(&manifest, 24 + 3 * 32 + 8 + 7)]
}

/// First byte: bit 0 whether the hash of the head is put right; then the body of the state.
pub(super) fn state(data: &[u8]) -> bool {
    let mut input = Input(data);
    let flags = input.u8();
    let mut body = input.0.to_vec();
    body.resize(8 + 32 + 8 + 16 + HEAD_BYTES, 0);
    if flags & 1 != 0 {
        let hash = HeadHash::of(&body[64..]);
        body[8..40].copy_from_slice(hash.as_bytes());
    }
    let (disk, volume) = (MemoryDisk::new(), volume());
    let root = Path::new("/state");
    let state = StateDirectory::new(&disk, root, &KEYRING);
    let mut bytes = Writer::new();
    bytes.bytes(b"VLMS");
    bytes.u32(0);
    bytes.bytes(&KEYRING.fingerprint());
    bytes.bytes(&KEYRING.seal(Purpose::State, &state.associated(&volume), &body));
    let folder = root.join(KEYRING.repository().to_hex());
    let file = disk
        .create_dir(root)
        .and_then(|()| disk.create_dir(&folder))
        .and_then(|()| disk.create_new(&folder.join(volume.as_str())))
        .expect("the disk is new");
    file.write_all_at(&bytes.0, 0).expect("the disk is new");
    let Ok(Some(remembered)) = state.load(&volume) else { return false };
    assert_eq!(remembered, Remembered::new(remembered.sequence, remembered.head.clone(), remembered.time_ns));
    // Only what unseals is remembered, and nobody makes a seal without the key.
    state.store(&volume, &remembered).is_err()
}

pub(super) fn state_seeds() -> Vec<Vec<u8>> {
    let mut body = Writer::new();
    body.u8(1);
    body.u64(4);
    body.zeros(32);
    body.i64(77);
    body.zeros(16);
    // As random as a sealed head, but the same every time.
    body.bytes(&blake3::hash(b"head").as_bytes().repeat(4));
    vec![body.0]
}

pub(super) fn place(data: &[u8]) -> bool {
    let Ok(place) = BlobPlace::decode(data) else { return false };
    assert_eq!(place.encode(), data);
    true
}

pub(super) fn place_seeds() -> Vec<Vec<u8>> {
    let (id, kind) = (BlobId([3; 32]), BlobKind::Data);
    let entry = PackEntry { id, kind, offset: 7, length: 100, plain_length: 60, epoch: 2 };
    let open = crate::backend::OpenName::new("0123456789abcdef").expect("the name has 16 digits");
    vec![BlobPlace::Stored { pack: PackId([9; 32]), entry }.encode(), BlobPlace::Open { open, entry }.encode()]
}

/// The text in which the holder of a lock describes itself.
pub(super) fn holder(data: &[u8]) -> bool {
    let Some(holder) = Holder::decode(data) else { return false };
    assert_eq!(Holder::decode(&holder.encode()), Some(holder));
    true
}

pub(super) fn holder_seeds() -> Vec<Vec<u8>> {
    let bare = Holder { pid: 7, host: "tower".into(), ..Holder::default() };
    let full = Holder {
        boot_id: "5b0c".into(),
        started: 1_700_000_000,
        mountpoint: Some("/mnt/a b%".into()),
        control_socket: Some("/run/vellum/mount-7.sock".into()),
        ..bare.clone()
    };
    vec![bare.encode(), full.encode()]
}
