//! One byte flipped anywhere: every read gives the right bytes or says damage, and a check names the object.

use std::{collections::BTreeMap, fmt};

use vellum_fs::{error::Error, ino::Ino};
use vellum_store::{repository::Access, repository::Damage};
use vellum_tests::{
    bench::{Bench, Opened, close},
    portrait::Findings,
    seed::{Seed, number_from_environment},
};

use crate::{
    story::{STORY, Story},
    watch::Watch,
};

/// Flips of the usual run; `VELLUM_FLIPS=10000` is the full one.
const FLIPS_DEFAULT: u64 = 2_000;
/// Of so many flips one is opened for writing as well, and closed.
const WRITTEN_EVERY: u64 = 8;

/// One place to flip.
#[derive(Clone, Debug)]
struct Target {
    object: String,
    offset: u64,
    bits: u8,
}

/// What was harmed, how, and what follows from it.
#[derive(Clone, Debug)]
pub struct Harm {
    object: String,
    what: String,
    hit: Hit,
}

impl Harm {
    /// Harm done to an object.
    pub fn new(object: &str, what: String, hit: Hit) -> Self {
        Self { object: object.to_string(), what, hit }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?} bytes)", self.what, self.hit)
    }
}

/// What harm hits, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    /// Bytes that nothing needs any more.
    Dead,
    /// The last commit, which nothing witnesses.
    Last,
    /// The journal, which a store may cut back to the newest head.
    Cut,
    /// What only older heads may need: it reads as before, and a check may name it.
    PerhapsOld,
    /// A journal commit that a later one calls durable, or content that it names.
    Acknowledged,
    /// Bytes that everything published is made of: a check names them.
    Published,
}

#[test]
fn a_story_that_nobody_harmed_is_whole() {
    let story = &*STORY;
    let used = story.bench.files().into_iter().filter(|(object, _)| object != "reserve");
    let total: u64 = used.map(|(_, length)| length).sum();
    assert!(total <= 16 << 20, "{total} bytes are no small repository");
    assert_eq!(story.bench.check(), []);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let bench = story.bench.kill();
        let opened = bench.open(access).unwrap();
        assert_eq!(opened.summary.commits as usize + 1, story.states.len(), "one commit for each step");
        let findings = compare(story, &opened, story.states.len() - 1);
        assert_eq!((findings.wrong, findings.errors), (vec![], vec![]));
        assert!(findings.right > 1_000);
        close(&opened.volume);
    }
    for prefix in ["config", "keys/", "packs/", "index/", "heads/", "manifests/", "journal/", "packs/open/"] {
        assert!(story.bench.files().iter().any(|(object, _)| object.starts_with(prefix)), "{prefix}");
    }
    assert!(story.live.iter().any(|range| !range.is_commit), "synced content lies in an open pack");
}

/// Reading changes nothing: not a byte, not a name, not a lock.
#[test]
fn opening_read_only_writes_nothing() {
    let bench = STORY.bench.kill();
    let before: Vec<_> = bench.files().into_iter().map(|(object, _)| (bench.bytes(&object), object)).collect();
    let opened = bench.open(Access::ReadOnly).unwrap();
    compare(&STORY, &opened, STORY.states.len() - 1);
    close(&opened.volume);
    drop(opened);
    let after: Vec<_> = bench.files().into_iter().map(|(object, _)| (bench.bytes(&object), object)).collect();
    assert!(before == after);
}

#[test]
fn one_flipped_byte_anywhere_gives_right_bytes_or_an_error_and_is_named() {
    let mut seed = Seed::of_test("one flipped byte anywhere", 1);
    let count = number_from_environment("VELLUM_FLIPS", FLIPS_DEFAULT);
    let (story, watch) = (&*STORY, Watch::start());
    let files = used_files(&story.bench);
    let mut tally = BTreeMap::<String, (u64, u64)>::new();
    for number in 0..count {
        let target = choose(&files, &mut seed);
        watch.step(&format!("flip {number}: {target:?}"));
        let harmed = story.bench.kill();
        harmed.flip(&target.object, target.offset, target.bits);
        let noticed = try_flip(story, &harmed, &target, number % WRITTEN_EVERY == 0);
        let entry = tally.entry(kind(&target.object).to_string()).or_default();
        *entry = (entry.0 + 1, entry.1 + u64::from(noticed));
    }
    println!("{count} flips; of each kind, how many and how many of them a check named: {tally:?}");
}

/// Reads everything, checks, and gives whether the check named the object.
fn try_flip(story: &Story, harmed: &Bench, target: &Target, write: bool) -> bool {
    let harm = Harm::new(&target.object, format!("{target:?}"), hit(story, target));
    check_harm(story, harmed, &harm, write)
}

/// Reads everything of a harmed repository and checks it; with `write`, opens it for writing too, and looks at what that left.
/// Gives whether the check named the object.
pub fn check_harm(story: &Story, harmed: &Bench, harm: &Harm, write: bool) -> bool {
    read_all(story, harmed, Access::ReadOnly, harm);
    let named = harmed.check();
    let is_named = named.iter().any(|damage| names(damage, &harm.object));
    match harm.hit {
        Hit::Published | Hit::Acknowledged => assert!(is_named, "{harm}: a check says {named:?}"),
        Hit::Last | Hit::Dead => assert!(named.is_empty(), "{harm}: a check says {named:?}"),
        Hit::Cut | Hit::PerhapsOld => {}
    }
    if write {
        let copy = harmed.kill();
        read_all(story, &copy, Access::ReadWrite, harm);
        // What was mended, or could not be, must not have become worse.
        read_all(story, &copy.kill(), Access::ReadOnly, harm);
    }
    is_named
}

/// Opens, and compares everything with the story.
fn read_all(story: &Story, bench: &Bench, access: Access, harm: &Harm) {
    let opened = match bench.open(access) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(is_clear(&error), "{harm}: {error:?}");
            assert!(!matches!(harm.hit, Hit::Dead | Hit::Last), "{harm}: {error}");
            return;
        }
    };
    let all = story.states.len() - 1;
    // Opening for writing ends in a checkpoint, after which the head tells nothing of what was replayed.
    let state = match access {
        Access::ReadOnly => state_of(story, &opened),
        Access::ReadWrite => opened.summary.commits as usize,
    };
    if state < all {
        let allowed = match harm.hit {
            Hit::Last => state == all - 1,
            Hit::Acknowledged | Hit::Published => opened.summary.damage.is_some(),
            Hit::Cut => true,
            Hit::Dead | Hit::PerhapsOld => false,
        };
        assert!(allowed, "{harm}: {state} of {all} commits, {:?}", opened.summary);
    }
    let mut findings = compare(story, &opened, state);
    if state < all && opened.summary.damage.is_some() {
        // Damage in a tree stops replay between two changes of one commit.
        let under_way = story.states[state].differing(&story.states[state + 1]);
        findings.wrong.retain(|wrong| !under_way.contains(&wrong.path));
    }
    assert!(findings.wrong.is_empty(), "{harm}: {:#?}", findings.wrong);
    if matches!(harm.hit, Hit::Dead | Hit::Last | Hit::Cut | Hit::PerhapsOld) {
        assert!(findings.errors.is_empty(), "{harm}: {:#?}", findings.errors);
    }
    close(&opened.volume);
}

/// An error that says what is wrong with which object, and not that something is simply not there.
fn is_clear(error: &Error) -> bool {
    use vellum_store::Error as Store;
    error.is_damage()
        || matches!(
            error,
            Error::Store(
                Store::Io { .. }
                    | Store::NotARepository { .. }
                    | Store::UnsupportedFormat { .. }
                    | Store::Rollback { .. }
                    | Store::WrongKey
            )
        )
}

/// Which state of the story an open volume shows: what its head holds, and what was replayed on top.
fn state_of(story: &Story, opened: &Opened) -> usize {
    let heads = opened.volume.repository().heads(&opened.volume.options().name).unwrap();
    let head = heads.newest().unwrap().head.journal_commit;
    (head.saturating_sub(story.after) + opened.summary.commits) as usize
}

fn compare(story: &Story, opened: &Opened, state: usize) -> Findings {
    let mut findings = Findings::default();
    story.states[state].compare(&opened.volume, Ino::ROOT, &mut findings);
    for (name, portrait) in &story.snapshots {
        portrait.compare_snapshot(&opened.volume, name, &mut findings);
    }
    findings
}

/// Files with the length of what was written to them: preallocated space behind it is left alone.
pub fn used_files(bench: &Bench) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for (object, mut length) in bench.files() {
        // Locks hold nothing that is read back but a description for people, and what is set aside nothing at all.
        if object.starts_with("locks/") || object == "reserve" {
            continue;
        }
        if object.starts_with("journal/") || object.starts_with("packs/open/") {
            let bytes = bench.bytes(&object);
            length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        }
        if length > 0 {
            files.push((object, length));
        }
    }
    files
}

/// Half of the places are drawn from all bytes, half from all files, so that small ones get their share.
fn choose(files: &[(String, u64)], seed: &mut Seed) -> Target {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let bits = 1 << seed.below(8);
    if seed.below(2) == 0 {
        let mut at = seed.below(total);
        for (object, length) in files {
            if at < *length {
                return Target { object: object.clone(), offset: at, bits };
            }
            at -= length;
        }
    }
    let (object, length) = seed.pick(files);
    Target { object: object.clone(), offset: seed.below(*length), bits }
}

fn hit(story: &Story, target: &Target) -> Hit {
    let mutable = target.object.starts_with("journal/") || target.object.starts_with("packs/open/");
    if !mutable {
        return Hit::Published;
    }
    let last = (story.states.len() - 1) as u64;
    let covers = |range: &&crate::story::LiveRange| {
        range.object == target.object && (range.start..range.end).contains(&target.offset)
    };
    match story.live.iter().find(covers) {
        Some(range) if range.is_commit && range.commit == last => Hit::Last,
        Some(_) => Hit::Acknowledged,
        None => Hit::Dead,
    }
}

/// Whether damage is told under the name of that file.
fn names(damage: &Damage, object: &str) -> bool {
    let text = format!("{} {}", damage.object, damage.what);
    let name = object.rsplit('/').next().unwrap();
    match kind(object) {
        "journal" => text.contains("journal"),
        _ => text.contains(object) || text.contains(name),
    }
}

pub fn kind(object: &str) -> &str {
    match object.strip_prefix("packs/open/") {
        Some(_) => "packs/open",
        None => object.split(['/', '.']).next().unwrap(),
    }
}
