//! Known answers for every derivation and sealed form, made from the format's description with other implementations of
//! BLAKE3, Argon2id and XChaCha20-Poly1305. A change here is a change of the format.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{context::Context, *};
use crate::{
    codec::Writer,
    config::RepositoryConfig,
    id::{BlobId, BlobKind, RepositoryId, hex},
};

const SEAL_KEYS_OF_EPOCH_3: [(&str, &str); Purpose::COUNT] = [
    ("vellum v1 data-seal", "c3f94df082cd3bb525052b1aad38d721723b3a741d551fbdc0835189b418dd89"),
    ("vellum v1 node-seal", "67dc422705220041e7c09ce9757105dc88fb5bc4eeac6286c641166b34db6196"),
    ("vellum v1 pack-trailer-seal", "9bc0da40e5672e152c4315329a8d0da927b3459b7caeccc7c55f5dfe7654eadd"),
    ("vellum v1 pack-tail-seal", "c0ff0d254286f2994dc3660c199fbae35a1f2ad587bd0fe2abf92c32d1cb4316"),
    ("vellum v1 segment-seal", "90b9cdf7faa3b3b61ca2e7e76d32e83623a9f75e3c166428f5398debaeb5461f"),
    ("vellum v1 manifest-seal", "75f5507844a337fedd3d3ec33807abad4b13367ebfc4e4dd16c3d8ced929e94e"),
    ("vellum v1 head-seal", "8aba03bcbc11d0bd516b12bd72b0933f817b3fbf743bc0bbf498f0df2bba6a56"),
    ("vellum v1 journal-seal", "96eccc3cccfdfbc44292b7e41c36302b44a483819317aeeb8d94a45977067c4f"),
    ("vellum v1 state-seal", "e5e2327a630274474ebbbcafba1ce451d9b544ac19bb8f0f86faf8a22a51f988"),
    ("vellum v1 table-seal", "1fe107e79f86f0d324486d08b2ef39cc0774ea4828aa367a75886935b735d9d6"),
];

const SUBKEYS: [(&str, &str); SubkeyUse::ALL.len()] = [
    ("vellum v1 data-id", "1f2c07909d743c88edcf27a360f7afbf220fa9c26e0ae016da310026ef9ecfe5"),
    ("vellum v1 node-id", "b8998d80dd9e0527aa6f48bf1b33e740efa9b1b3851b1c4c0381574a38381db9"),
    ("vellum v1 gear-table", "c9256e68c9ec8fb6a6001501d2672870b7adff32969455456fbfc64cbf8ef493"),
    ("vellum v1 dirent-name", "ce73cc9b9fd6b9aad9625b5249afa95cbb3de10781756e45988a503886b864bf"),
    ("vellum v1 snapshot-ino", "2f98520c429704a6e947b06cdceb9cd4371d8e62836fc380b9a5b336f521969d"),
    ("vellum v1 state-name", "815b0f7cdb06697352de7f8ca5f310166659457ee2611baad22324ef8fa9fa91"),
    ("vellum v1 config-mac", "e922f997cfa7b53e6a6b4412f533f849127bdc601c1ea53fff6bef07f8dfd73d"),
    ("vellum v1 key-fingerprint", "5a392b09e434772407171501243efb380d337a71ccc08a1a9fd2c5c4e3a3887e"),
];

const DATA_ID_OF_ABC: &str = "2de6843642c33a75568ee05e3873c3a46c715bac7f65d12c5559d37326de8778";
const NODE_ID_OF_ABC: &str = "91e34ede7f78cb0d562ecd252ed14cf005506d8b2e957cd1dd624faecba52c09";

const BLOB_ABC: &str = "\
    000102030405060708090a0b0c0d0e0f10111213141516178298a32b17b3d21a276b442bc382b51a4777b80ada115daa";

const HEAD_BYTES: &str = "\
    000102030405060708090a0b0c0d0e0f1011121314151617d9cab1c512626d5d17c4dd27bc4c1d13b1e90117ea9f7fa4\
    4192";

const SLOT_PASSPHRASE: &str = "\
    76656c6c756d4b530000000001000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf101112131415161718191a1b1c1d1e1f\
    08000000010000000100000000000000d202964900000000046d61696e00000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000046465736b000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000000000000000000000000000000000008e3d178bc07a3d40d4e45967ff5ecfab1f1eb2d8def40592\
    241726edac2275bf000102030405060708090a0b0c0d0e0f1011121314151617d09f8dc73dabf71afbf7460c1fc64197\
    6dc562dd1bb438a08206373000faee126b0fe85e428fae8442311bce777f2888c9de8623854fda75020cb3c5d09cdec2\
    d375a4d2029e0c0c3b06dad3e2303897625fbddec120e356e479c0444df9c95d1398d4d2dea6e698c695f523f9db99c8";

const SLOT_KEY_FILE: &str = "\
    76656c6c756d4b530000000002000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf101112131415161718191a1b1c1d1e1f\
    00000000000000000000000000000000d202964900000000046d61696e00000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000046465736b000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000d74eb93b2fe13539dd1f2ae3f965e1777ca18e73975a0101\
    d65cfaafccd34c36000102030405060708090a0b0c0d0e0f1011121314151617aa3def59daa2835673a38b718140632a\
    10aae59b29bed8ca8ee5a2cd9ebe9133c021a520b253e0b14ad74c7fb714990a3097f277c97931a2d7bd3d24f29af225\
    49f113f5328ead3c9f5c5cc29f343c3c578ea72d7900e1fc38307646f5e65470534c561c4dde1a68bd57855f5863f1e0";

const SLOT_RECOVERY: &str = "\
    76656c6c756d4b530000000003000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf101112131415161718191a1b1c1d1e1f\
    00000000000000000000000000000000d202964900000000046d61696e00000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000000000046465736b000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000001313534fe29dac28dd70a44f7c13a9a47766224643816c9\
    a65766dcf7142e10000102030405060708090a0b0c0d0e0f1011121314151617f81f838520986893bc20475d866121ea\
    dd843cd7ae3c5d2f0ed9de021b00b854e6efe3e41a2e6a76c2bcc3dc8eea82c0f83f998ffa888f1ab5127dc5f2855e52\
    27da26550d8746dd44f4eca92b41fa75f9618873e3b4d74e58d387526c17f762567f56079683fe07eadca4f7115b7e71";

const CONFIG: &str = "\
    76656c6c756d52430000000000010000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf01010300004000000000010000000400\
    0000000100000000d2029649000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    18ab64755807158dc72c611b3eccc6de99b5a4978b6f8ac62da8dbcefe9b4cc0ee8a728a7aa9fa18bb30145fdf242c4b\
    8ecb43f8d7b788c214cf3d90826174c1";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn master_bytes() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

fn repository() -> RepositoryId {
    RepositoryId(std::array::from_fn(|i| 0xa0 + i as u8))
}

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::new(&MasterKey::from_bytes(&master_bytes()), repository(), 3))
}

#[test]
fn every_sealing_key_has_its_known_value() {
    for (purpose, (context, key)) in Purpose::ALL.into_iter().zip(SEAL_KEYS_OF_EPOCH_3) {
        assert_eq!(Context::Seal(purpose).as_str(), context);
        assert_eq!(hex(&Context::Seal(purpose).derive(&[&master_bytes(), &3u32.to_le_bytes()])), key, "{context}");
    }
}

#[test]
fn every_subkey_has_its_known_value_in_every_epoch() {
    for (use_, (context, key)) in SubkeyUse::ALL.into_iter().zip(SUBKEYS) {
        assert_eq!(Context::Subkey(use_).as_str(), context);
        assert_eq!(hex(&keyring().subkey(use_)), key, "{context}");
        assert_eq!(hex(&keyring().at_epoch(0).subkey(use_)), key, "{context}");
    }
}

#[test]
fn every_slot_derivation_has_its_known_value() {
    let salt: [u8; 16] = std::array::from_fn(|i| 0x10 + i as u8);
    let key_file = Context::SlotKeyFile.derive(&[&salt, &[b'k'; 32]]);
    assert_eq!(hex(&key_file), "5dcf07dba31b4d6627caab88148383ea87ab04f9a601f4b5ffedb0887009fce4");
    let recovery = Context::SlotRecovery.derive(&[&salt, &[255; 20]]);
    assert_eq!(hex(&recovery), "9e5bb7ba4ff3b2c2366c4a158e1561075de0a1d51300ca0c2f956abac1e45786");
    let kek = unhex("0da107505c0b8058fa79d6ce7775553be09230cb3e2f6473679289f28c73c473");
    assert_eq!(
        hex(&Context::SlotSeal.derive(&[&kek])),
        "a6b2621171f39f5e95db5e9e1021a5ef48a6ae543fe60fbe1c03bc31c29236a6"
    );
    assert_eq!(
        hex(&Context::SlotCommit.derive(&[&kek])),
        "8e3d178bc07a3d40d4e45967ff5ecfab1f1eb2d8def40592241726edac2275bf"
    );
}

#[test]
fn no_two_uses_share_a_context() {
    let mut contexts: Vec<_> = Purpose::ALL.map(|purpose| Context::Seal(purpose).as_str()).to_vec();
    contexts.extend(SubkeyUse::ALL.map(|use_| Context::Subkey(use_).as_str()));
    contexts.extend(
        [Context::SlotKeyFile, Context::SlotRecovery, Context::SlotSeal, Context::SlotCommit].map(Context::as_str),
    );
    let count = contexts.len();
    contexts.sort_unstable();
    contexts.dedup();
    assert_eq!(contexts.len(), count);
    assert!(contexts.iter().all(|context| context.starts_with("vellum v1 ")));
}

#[test]
fn purposes_have_their_numbers_on_disk() {
    for (index, purpose) in Purpose::ALL.into_iter().enumerate() {
        assert_eq!(purpose as usize, index + 1);
    }
    assert_eq!((Purpose::Data as u8, Purpose::Node as u8), (BlobKind::Data as u8, BlobKind::Node as u8));
}

#[test]
fn a_blob_sealed_elsewhere_unseals_here() {
    let sealer = BlobSealer::new(keyring(), Compression::default());
    let id = BlobId::from_hex(DATA_ID_OF_ABC).unwrap();
    assert_eq!(keyring().blob_id(BlobKind::Data, b"abc"), id);
    assert_eq!(keyring().blob_id(BlobKind::Node, b"abc").to_hex(), NODE_ID_OF_ABC);
    assert_eq!(sealer.unseal(BlobKind::Data, 3, &id, &unhex(BLOB_ABC), 3).unwrap(), b"abc");
}

#[test]
fn a_head_sealed_elsewhere_unseals_here_from_any_epoch() {
    for keyring in [keyring().at_epoch(3), keyring().at_epoch(0), keyring().at_epoch(9)] {
        let plaintext = keyring.unseal(Purpose::Head, 3, b"bound", &unhex(HEAD_BYTES), "head").unwrap();
        assert_eq!(plaintext, b"head bytes");
    }
}

#[test]
fn slots_made_elsewhere_open_here() {
    let secrets = [
        (SLOT_PASSPHRASE, Credential::Passphrase(Zeroizing::new("correct horse".to_string()))),
        (SLOT_KEY_FILE, Credential::KeyFile(Zeroizing::new(vec![b'k'; 32]))),
        (SLOT_RECOVERY, Credential::RecoveryCode(Zeroizing::new("Z".repeat(32)))),
    ];
    let name = SlotName::new("main").unwrap();
    for (slot, credential) in secrets {
        let slots = [(name.clone(), unhex(slot))];
        let (master, epoch, opened) = unlock(&slots, repository(), &credential).unwrap();
        assert_eq!((master.as_bytes(), epoch, &opened), (&master_bytes(), 3, &name));
        let info = describe_slot(&name, &slots[0].1).unwrap();
        assert_eq!((info.label.as_str(), info.created_ns), ("desk", 1_234_567_890));
    }
}

#[test]
fn a_configuration_has_its_known_bytes() {
    let config = RepositoryConfig::new(repository(), 1_234_567_890);
    assert_eq!(hex(&seal_config(&keyring(), &config)), CONFIG);
}

#[test]
fn chunks_end_where_another_implementation_ends_them() {
    let mut data = vec![0; 300_000];
    blake3::Hasher::new().update(b"chunker").finalize_xof().fill(&mut data);
    let keyring = keyring();
    let chunker =
        crate::chunker::Chunker::new(keyring.gear(), crate::config::ChunkSizes::new(1024, 4096, 16384).unwrap());
    let mut lengths = Writer::new();
    let mut rest = &data[..];
    while !rest.is_empty() {
        let length = chunker.cut(rest);
        lengths.u32(length as u32);
        rest = &rest[length..];
    }
    assert_eq!(lengths.len() / 4, 59);
    assert_eq!(
        blake3::hash(&lengths.0).to_hex().as_str(),
        "93bea181e8e2674bb6a1bfd442abf007abf764512a60fe7b86f03637d30c64ce"
    );
}
