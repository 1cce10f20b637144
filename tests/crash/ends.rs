//! What a flush keeps back is the end of a file, whenever it was written: no crash may leave what was written later without it.

use std::sync::Arc;

use vellum_fs::{
    error::Result,
    format::inode::FileKind,
    ino::Ino,
    volume::{
        Volume,
        handles::{HandleId, OpenMode},
        ops::names::NewInode,
    },
};
use vellum_store::disk::{Disk, FaultDisk, fault::Rule};
use vellum_tests::{
    dump::read_file,
    rig::{self, Settings},
    seed::Seed,
};

const PART: usize = 1 << 20;
const PARTS: u64 = 5;

/// A file of five parts with all its versions, and a small file beside it.
struct Story {
    volume: Arc<Volume>,
    file: HandleId,
    other: HandleId,
    content: Vec<u8>,
    versions: Vec<Vec<u8>>,
    /// Versions that were promised.
    synced: usize,
}

fn create(volume: &Volume, name: &str) -> Result<HandleId> {
    let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), FileKind::Regular);
    let new = NewInode { parent, name, kind, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let mode = OpenMode { write: true, ..OpenMode::default() };
    Ok(volume.create(&new, mode, &rig::ME)?.1.handle)
}

impl Story {
    fn begin(volume: Arc<Volume>) -> Result<Self> {
        let (file, other) = (create(&volume, "file")?, create(&volume, "other")?);
        volume.checkpoint()?;
        Ok(Self { volume, file, other, content: Vec::new(), versions: vec![Vec::new()], synced: 0 })
    }

    /// One write, in which the same few hundred bytes come again and again: it has boundaries, and takes no space.
    fn write(&mut self, offset: usize, seed: u64, length: usize) -> Result<()> {
        let mut run = [0; 700];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut run);
        let bytes: Vec<u8> = run.iter().copied().cycle().take(length).collect();
        self.content.resize(self.content.len().max(offset + length), 0);
        self.content[offset..offset + length].copy_from_slice(&bytes);
        self.versions.push(self.content.clone());
        self.volume.write(self.file, offset as u64, &bytes).map(drop)
    }

    fn sync(&mut self) -> Result<()> {
        self.volume.fsync(self.file)?;
        self.synced = self.versions.len() - 1;
        Ok(())
    }

    /// The end first, then from the front; flushed, synced and stored at places that `seed` chooses.
    fn play(&mut self, seed: u64) -> Result<()> {
        let mut choices = Seed::new(seed);
        for round in 0..3 {
            for part in (0..PARTS).rev().take(1).chain(0..PARTS - 1) {
                let offset = part as usize * PART + choices.below(5000) as usize;
                self.write(offset, choices.below(1000) + 1, PART - 5000)?;
            }
            // More than a stream's worth is dirty: the flush keeps the end.
            self.volume.flush_dirty()?;
            let at = choices.below(self.content.len() as u64) as usize;
            self.write(at, choices.below(1000) + 1, 1 + choices.below(30_000) as usize)?;
            match (round + seed) % 3 {
                0 => self.sync()?,
                1 => {
                    // Names and other files reach the journal; this file's content does not come along.
                    self.volume.write(self.other, 0, b"x")?;
                    self.volume.fsync(self.other)?;
                }
                _ => self.volume.checkpoint()?,
            }
            self.volume.flush_dirty()?;
        }
        Ok(())
    }
}

#[test]
fn a_kept_end_is_never_missing_beside_newer_content() {
    for seed in rig::seeds(4) {
        // With the smaller budget the flusher comes by itself, and keeps the end of whatever is being written.
        let settings = Settings { dirty_bytes: [32, 4][seed as usize % 2] << 20, ..Settings::default() };
        let _announce = rig::Announce(seed);
        let changes = play_until(seed, u64::MAX, &settings);
        let mut choices = Seed::new(seed);
        for _ in 0..5 {
            play_until(seed, choices.below(changes), &settings);
        }
    }
}

/// Lets the power fail after so many changes of the disk, and looks at what is left. Returns how many there were.
fn play_until(seed: u64, calls: u64, settings: &Settings) -> u64 {
    let disk = rig::new_disk();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let shared: Arc<dyn Disk> = Arc::new(faults.clone());
    let (volume, _) = rig::open(&shared, settings).expect("a new volume opens");
    let mut story = Story::begin(volume).expect("the disk is well");
    let before = faults.changes();
    faults.add(Rule::power_off_after(calls));
    let played = story.play(seed);
    assert!(played.is_ok() || faults.is_off(), "{played:?}");
    for image in [disk.crash(), disk.kill(), disk.crash_seeded(calls)] {
        let image: Arc<dyn Disk> = Arc::new(image);
        let (volume, _) = rig::open(&image, settings).expect("no repair is needed");
        let ino = volume.lookup(Ino::ROOT, b"file").expect("its name was stored").attr.ino;
        let found = read_file(&volume, ino).expect("the file is read");
        let newest = story.versions.iter().rposition(|version| *version == found);
        let length = found.len();
        let newest = newest.unwrap_or_else(|| panic!("after {calls} changes: {length} bytes of no version"));
        assert!(newest >= story.synced, "after {calls} changes: version {newest}, but {} was synced", story.synced);
        volume.close().expect("what was recovered is closed");
    }
    faults.changes() - before
}
