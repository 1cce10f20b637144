//! Power loss before every change of the disk, also while recovering from the last one, against a model.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::*;

/// What a journal must give back at some moment.
#[derive(Clone)]
struct Model {
    /// What the newest durable head holds, and it with those before it.
    after: u64,
    heads: Vec<HeadHash>,
    /// What was acknowledged when that head was published.
    floor: u64,
    /// Payloads by number, the one that is being appended included.
    payloads: BTreeMap<u64, Vec<u8>>,
    /// Newest acknowledged commit.
    acknowledged: u64,
}

type Moments = Arc<Mutex<Vec<(MemoryDisk, Model)>>>;

impl Model {
    fn new() -> Self {
        Self { after: 0, floor: 0, heads: vec![HeadHash([9; 32])], payloads: BTreeMap::new(), acknowledged: 0 }
    }

    /// Recovered = all acknowledged commits, and the one under way or not.
    fn check(&self, recovery: &Recovery, replayed: &Replayed, context: &str) {
        assert_eq!(recovery.damage, None, "{context}");
        assert!(recovery.last_commit >= self.acknowledged, "{context}: {recovery:?}, {}", self.acknowledged);
        let in_run = |number: &u64| *number > self.after && *number <= recovery.last_commit;
        let model: Replayed = self.payloads.iter().filter(|(n, _)| in_run(n)).map(|(&n, p)| (n, p.clone())).collect();
        assert!(model == *replayed, "{context}: other payloads than were appended");
        assert_eq!(recovery.commits, replayed.len() as u64);
    }
}

/// One life of a process on a disk: opens, appends, publishes heads. Gives what power loss before each change would leave.
fn live(
    disk: MemoryDisk,
    start: &Model,
    options: JournalOptions,
    seed: &mut Seed,
    context: &str,
) -> Vec<(MemoryDisk, Model)> {
    let model = Arc::new(Mutex::new(start.clone()));
    let moments: Moments = Arc::default();
    let probe = Arc::new(ProbeDisk::new(disk.clone()));
    let mut crash_seed = Seed::new(seed.number());
    let (seen, taken) = (model.clone(), moments.clone());
    probe.before(move |memory, _| {
        // One time in four only the process dies, and the page cache lives on until a later power loss.
        let left = match crash_seed.below(4) {
            0 => memory.kill(),
            _ => memory.crash_seeded(crash_seed.number()),
        };
        taken.lock().push((left, seen.lock().clone()));
        Ok(())
    });
    let (journal, recovery, replayed) = open_with(probe, options, start.after, &start.heads).unwrap();
    start.check(&recovery, &replayed, context);
    {
        let mut model = model.lock();
        model.acknowledged = recovery.last_commit;
        model.payloads.split_off(&(recovery.last_commit + 1));
    }
    for _ in 0..seed.below(25) {
        if seed.below(6) == 0 {
            checkpoint(&journal, &model, seed);
            continue;
        }
        let longest = if seed.below(5) == 0 { journal.payload_max() as u64 } else { 5000 };
        let mut bytes = vec![0; seed.below(longest + 1) as usize];
        bytes.iter_mut().for_each(|byte| *byte = seed.number() as u8);
        let number = journal.last_commit() + 1;
        model.lock().payloads.insert(number, bytes.clone());
        match journal.append(&bytes) {
            Ok(given) => {
                assert_eq!(given, number);
                model.lock().acknowledged = number;
            }
            Err(Error::JournalFull { .. }) => checkpoint(&journal, &model, seed),
            Err(other) => panic!("{context}: {other}"),
        }
        // Also between the syncs, when nothing is under way.
        moments.lock().push((disk.crash(), model.lock().clone()));
    }
    std::mem::take(&mut moments.lock())
}

fn checkpoint(journal: &Journal, model: &Mutex<Model>, seed: &mut Seed) {
    let head = HeadHash(std::array::from_fn(|_| seed.number() as u8));
    let through = {
        let mut model = model.lock();
        // A head holds at least what was acknowledged when the one before it was published.
        model.after = model.acknowledged - seed.below(3).min(model.acknowledged - model.floor);
        model.floor = model.acknowledged;
        model.heads.insert(0, head);
        model.heads.truncate(8);
        model.after
    };
    // Every fifth time the power would go, or the process die, before the trim: later commits follow the older head.
    if seed.below(5) > 0 {
        journal.trim(through, head).unwrap();
    }
}

#[test]
fn any_crash_gives_a_prefix_with_everything_acknowledged() {
    for start in 0..16 {
        let mut seed = Seed::new(start);
        let options =
            JournalOptions { segment_bytes: (16 << 10) << seed.below(2), segments_max: 1 + seed.below(3) as u32 };
        let (mut disk, mut model) = (MemoryDisk::new(), Model::new());
        for depth in 0..6 {
            let context = format!("seed {start}, life {depth}");
            let mut moments = live(disk, &model, options, &mut seed, &context);
            for (at, (disk, model)) in moments.iter().enumerate() {
                let (recovery, replayed) = read(disk, model.after, &model.heads);
                model.check(&recovery, &replayed, &format!("{context}, moment {at}"));
            }
            (disk, model) = moments.swap_remove(seed.below(moments.len() as u64) as usize);
        }
    }
}

#[test]
fn a_crash_inside_recovery_costs_nothing() {
    for start in 0..8 {
        let mut seed = Seed::new(1000 + start);
        let first = live(MemoryDisk::new(), &Model::new(), SMALL, &mut seed, &format!("seed {start}"));
        for (disk, model) in first.into_iter().step_by(5) {
            // A life without appends: all its moments are inside the opening.
            let probe = Arc::new(ProbeDisk::new(disk));
            let moments: Moments = Arc::default();
            let (taken, seen) = (moments.clone(), model.clone());
            probe.before(move |memory, call| {
                taken.lock().push((memory.crash_seeded(start ^ call as u64), seen.clone()));
                Ok(())
            });
            open_with(probe, SMALL, model.after, &model.heads).unwrap();
            for (disk, model) in moments.lock().drain(..) {
                let (_, recovery, replayed) = open(&disk, model.after, &model.heads);
                model.check(&recovery, &replayed, &format!("seed {start}, nested"));
            }
        }
    }
}

#[test]
fn segments_are_recycled_over_many_trims() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[head(0)]);
    let mut seed = Seed::new(7);
    let mut heads = vec![head(0)];
    let mut after = 0;
    for round in 1..=200u8 {
        for _ in 0..=seed.below(5) {
            let number = journal.last_commit() + 1;
            journal.append(&payload(number, seed.below(9000) as usize)).unwrap();
        }
        let (recovery, replayed) = read(&disk.crash(), after, &heads);
        assert_eq!((recovery.damage, recovery.last_commit), (None, journal.last_commit()), "round {round}");
        assert!(replayed.iter().all(|(number, bytes)| *bytes == payload(*number, bytes.len())));
        after = journal.last_commit() - seed.below(2);
        heads.insert(0, head(round));
        heads.truncate(3);
        journal.trim(after, heads[0]).unwrap();
    }
    let mut files = 0;
    disk.list_dir(&dir(), &mut |_, _| {
        files += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(files <= SMALL.segments_max);
}
