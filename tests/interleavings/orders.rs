//! What has to hold in every order that takes at most three interruptions. A model that comes to a standstill fails as well.

use std::fmt;

use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use vellum_store::{
    backend::{ObjectName, OpenName, OpenObject, Put},
    id::BlobId,
};

use crate::{
    fuse::places::Places,
    pipeline::{open_pack::OpenPack, suspects::Suspects},
    volume::budget::Budget,
};

/// Threads that are interrupted where they could have gone on; waiting does not count. Faults that need more are rare, and the orders
/// many times as many.
const PREEMPTIONS_MAX: usize = 3;

fn model(in_each_order: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(in_each_order);
}

/// Runs `work` in a thread that has a share of `what`.
fn beside<T: Send + Sync + 'static, R: 'static>(
    what: &Arc<T>,
    work: impl FnOnce(&T) -> R + Send + 'static,
) -> JoinHandle<R> {
    let what = Arc::clone(what);
    thread::spawn(move || work(&what))
}

fn joined<R>(thread: JoinHandle<R>) -> R {
    thread.join().expect("a panic of a thread ends the model")
}

fn reserve(budget: &Budget, bytes: u64) -> bool {
    budget.reserve(bytes, || {}).is_ok()
}

/// No wake-up is lost between looking at the budget and waiting.
pub fn a_writer_that_waits_is_woken_by_what_is_given_back() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        budget.force(10);
        let writer = beside(&budget, |budget| reserve(budget, 5));
        budget.release(4);
        budget.release(6);
        assert!(joined(writer));
        assert_eq!(budget.used(), 5);
    });
}

/// Who passes gives back in turn.
pub fn two_writers_that_wait_are_both_woken() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        budget.force(10);
        let write = |budget: &Budget| {
            assert!(reserve(budget, 10));
            budget.release(10);
        };
        let (one, other) = (beside(&budget, write), beside(&budget, write));
        budget.release(10);
        joined(one);
        joined(other);
        assert_eq!(budget.used(), 0);
    });
}

/// Either it is told, or it finds space.
pub fn who_waits_is_told_that_the_disk_is_full() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        budget.force(10);
        let writer = beside(&budget, |budget| reserve(budget, 5));
        budget.set_full(Some(vellum_fs::error::Error::NoSpace("full".into())));
        assert!(!joined(writer));
        budget.set_full(None);
        budget.release(10);
        assert!(reserve(&budget, 5));
    });
}

/// A poisoned volume holds nobody.
pub fn who_waits_passes_when_the_gates_open() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        budget.force(10);
        let writer = beside(&budget, |budget| reserve(budget, 5));
        budget.open_gates();
        assert!(joined(writer));
    });
}

/// Counts what was appended, and how much of it a sync covered.
struct Object {
    name: OpenName,
    appended: AtomicU64,
    synced: Arc<AtomicU64>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object")
    }
}

impl OpenObject for Object {
    fn name(&self) -> &OpenName {
        &self.name
    }

    fn append(&self, bytes: &[u8]) -> vellum_store::error::Result<u64> {
        Ok(self.appended.fetch_add(bytes.len() as u64, Ordering::Relaxed))
    }

    fn read_at(&self, _: u64, _: u32) -> vellum_store::error::Result<Vec<u8>> {
        unreachable!("nothing here reads")
    }

    fn len(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    fn sync(&self) -> vellum_store::error::Result<()> {
        // What this thread need not know of may be left out by a disk.
        let covered = self.appended.load(Ordering::Relaxed);
        self.synced.fetch_max(covered, Ordering::Relaxed);
        Ok(())
    }

    fn publish(&self, _: &ObjectName) -> vellum_store::error::Result<Put> {
        unreachable!("nothing here publishes")
    }

    fn discard(&self) {}
}

/// A pack, what of it is durable, and how much of it was told to others.
struct Pack {
    pack: OpenPack,
    synced: Arc<AtomicU64>,
    told: AtomicU64,
}

impl Pack {
    fn new() -> Arc<Self> {
        let name = OpenName::random();
        let synced = Arc::new(AtomicU64::new(0));
        let object = Object { name, appended: AtomicU64::new(0), synced: Arc::clone(&synced) };
        Arc::new(Self { pack: OpenPack::new(Box::new(object)), synced, told: AtomicU64::new(0) })
    }

    fn append(&self) {
        let offset = self.pack.append(b"blob").expect("nothing fails here");
        self.told.store(offset + 4, Ordering::Release);
    }

    /// F6: syncs, and looks whether what was known of before is durable.
    fn sync(&self) {
        let known = self.told.load(Ordering::Acquire);
        self.pack.sync().expect("nothing fails here");
        assert!(self.pack.is_synced(known));
        assert!(self.synced.load(Ordering::Relaxed) >= known, "{known} bytes were known of");
    }
}

/// A sync covers each blob of which its caller knows the place.
pub fn a_sync_covers_what_its_caller_knows_of() {
    model(|| {
        let pack = Pack::new();
        let filler = beside(&pack, |pack| {
            pack.append();
            pack.append();
        });
        pack.sync();
        joined(filler);
        pack.sync();
    });
}

/// Who finds its bytes covered by another's sync makes none.
pub fn two_syncs_cover_what_both_know_of() {
    model(|| {
        let pack = Pack::new();
        let filler = beside(&pack, Pack::append);
        let other = beside(&pack, Pack::sync);
        pack.sync();
        joined(other);
        joined(filler);
    });
}

/// The count that spares the lock never hides an id.
pub fn damage_that_is_noted_stays_noted_beside_what_heals() {
    model(|| {
        let suspects = Arc::new(Suspects::default());
        let (kept, healed) = (BlobId([1; 32]), BlobId([2; 32]));
        let noting = beside(&suspects, move |suspects| {
            assert!(suspects.add(&kept));
            assert!(suspects.contains(&kept));
        });
        assert!(suspects.add(&healed));
        suspects.heal(&healed);
        assert!(!suspects.contains(&healed));
        joined(noting);
        assert!(suspects.contains(&kept) && !suspects.contains(&healed));
    });
}

/// Two requests at once, no thread yet: each has one started.
pub fn no_request_waits_while_a_thread_may_be_started() {
    model(|| {
        let places = Arc::new(Places::new(2));
        let other = beside(&places, Places::claim);
        assert!(places.claim());
        assert!(joined(other));
        assert_eq!(places.threads(), 2);
        assert!(!places.claim(), "there are as many as there may be");
    });
}

/// Two requests at once, one thread free: the other has one started.
pub fn a_free_thread_is_taken_once() {
    model(|| {
        let places = Arc::new(Places::new(3));
        assert!(places.claim());
        places.release();
        let other = beside(&places, Places::claim);
        let one = places.claim();
        assert!(one != joined(other));
        assert_eq!(places.threads(), 2);
    });
}

/// Requests that end while others come.
pub fn places_are_as_many_as_before_when_all_is_done() {
    model(|| {
        let places = Arc::new(Places::new(2));
        let request = |places: &Places| {
            places.claim();
            places.release();
        };
        let (one, other) = (beside(&places, request), beside(&places, request));
        request(&places);
        joined(one);
        joined(other);
        // All threads that there are take a request each, before another one is started.
        let threads = places.threads();
        assert!((1..=2).contains(&threads));
        for _ in 0..threads {
            assert!(!places.claim());
        }
        assert_eq!(places.claim(), threads < 2);
    });
}

/// Its request is done by the caller, and the next one tries again.
pub fn a_thread_that_could_not_be_started_leaves_its_place() {
    model(|| {
        let places = Arc::new(Places::new(2));
        let other = beside(&places, |places| {
            assert!(places.claim());
            places.give_up();
            places.release();
        });
        assert!(places.claim());
        joined(other);
        assert_eq!(places.threads(), 1);
        places.release();
        assert!(!places.claim() && places.claim());
    });
}
