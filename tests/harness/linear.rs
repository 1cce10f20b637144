//! Short histories of several threads on the names of a few directories, and whether some order of their operations
//! explains all answers: linearizability, by the search of Wing and Gong with the states met remembered (Lowe).
//!
//! *Bounds*: a history has at most 64 operations; the search is exponential only in how many run at the same time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use vellum_store::spawn::Seed;

use crate::{face::Answer, rig};

/// A name in one of the directories.
pub type Name = (u8, u8);

/// Names that there are in each directory.
pub const NAMES: u8 = 4;
/// Directories that there are.
pub const DIRECTORIES: u8 = 2;

/// The number of every directory, where they cannot be told apart.
pub const ANY_DIRECTORY: u64 = 0;

/// An operation on names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates a file.
    Create(Name),
    /// Creates a directory.
    Mkdir(Name),
    /// Gives the inode of this number, not only what a name leads to, a further name.
    Link(u64, Name),
    /// Removes a name of a file.
    Unlink(Name),
    /// Removes a directory.
    Rmdir(Name),
    /// Moves a name, over another one if there is one.
    Rename(Name, Name),
    /// Moves a name to one that is free.
    RenameNew(Name, Name),
    /// Swaps two names.
    Exchange(Name, Name),
    /// Looks a name up.
    Lookup(Name),
    /// Lists a directory.
    List(u8),
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// That it is done.
    Done,
    /// The number of what was created.
    Made(u64),
    /// Number and, if it was told by the same glance, links of what was found.
    Found(u64, Option<u32>),
    /// The names of a directory, and where they lead.
    Listed(Vec<(u8, u64)>),
}

/// An operation with its answer, and when it was called and had returned, in ticks of one clock.
#[derive(Clone, Debug)]
pub struct Event {
    /// What was asked.
    pub op: Op,
    /// What was answered.
    pub told: Answer<Told>,
    /// Before the call.
    pub called: u64,
    /// After the return.
    pub returned: u64,
}

/// What the directories hold: the inode of each name, and whether it is a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Names(BTreeMap<Name, (u64, bool)>);

impl Names {
    fn links(&self, id: u64) -> u32 {
        self.0.values().filter(|&&(at, _)| at == id).count() as u32
    }

    /// The error of an operation, or what holds after it; `told` gives the numbers that only the filesystem knows.
    fn after(&self, op: Op, told: &Answer<Told>) -> Result<Self, i32> {
        let mut next = self.clone();
        let at = |name| self.0.get(&name).copied();
        let made = match told {
            Ok(Told::Made(id)) => *id,
            _ => 0,
        };
        match op {
            Op::Create(name) | Op::Mkdir(name) => match at(name) {
                Some(_) => return Err(libc::EEXIST),
                None => drop(next.0.insert(name, (made, matches!(op, Op::Mkdir(_))))),
            },
            Op::Link(id, name) => match (self.links(id), at(name)) {
                // Which of the two is looked at first is nobody's business.
                (0, Some(_)) if *told == Err(libc::EEXIST) => return Err(libc::EEXIST),
                (0, _) => return Err(libc::ENOENT),
                (_, Some(_)) => return Err(libc::EEXIST),
                _ => drop(next.0.insert(name, (id, false))),
            },
            Op::Unlink(name) | Op::Rmdir(name) => match (at(name), matches!(op, Op::Rmdir(_))) {
                (None, _) => return Err(libc::ENOENT),
                (Some((_, true)), false) => return Err(libc::EISDIR),
                (Some((_, false)), true) => return Err(libc::ENOTDIR),
                _ => drop(next.0.remove(&name)),
            },
            Op::Rename(from, to) | Op::RenameNew(from, to) => {
                let Some(moved) = at(from) else { return Err(libc::ENOENT) };
                match at(to) {
                    Some(_) if matches!(op, Op::RenameNew(..)) => return Err(libc::EEXIST),
                    Some(there) if from == to || (there.0 == moved.0 && !moved.1) => return Ok(next),
                    Some((_, true)) if !moved.1 => return Err(libc::EISDIR),
                    Some((_, false)) if moved.1 => return Err(libc::ENOTDIR),
                    _ => {}
                }
                next.0.remove(&from);
                next.0.insert(to, moved);
            }
            Op::Exchange(one, other) => {
                let (Some(first), Some(second)) = (at(one), at(other)) else { return Err(libc::ENOENT) };
                next.0.insert(one, second);
                next.0.insert(other, first);
            }
            Op::Lookup(name) => match at(name) {
                Some(_) => {}
                None => return Err(libc::ENOENT),
            },
            Op::List(_) => {}
        }
        Ok(next)
    }

    /// Whether an operation that happens at this moment could be told this.
    fn fits(&self, op: Op, told: &Told) -> bool {
        match (op, told) {
            (Op::Create(_) | Op::Mkdir(_), Told::Made(id)) => *id == ANY_DIRECTORY || self.links(*id) == 0,
            (Op::Lookup(name), Told::Found(id, links)) => self.0.get(&name).is_some_and(|&(found, directory)| {
                found == *id && links.is_none_or(|links| links == if directory { 2 } else { self.links(found) })
            }),
            (Op::List(directory), Told::Listed(names)) => {
                let wanted = self.0.iter().filter(|((within, _), _)| *within == directory);
                names.iter().copied().eq(wanted.map(|((_, name), (id, _))| (*name, *id)))
            }
            (Op::Create(_) | Op::Mkdir(_) | Op::Lookup(_) | Op::List(_), _) => false,
            (_, told) => *told == Told::Done,
        }
    }
}

/// Whether some order of the events, in which none comes before one that had returned when it was called, gives all their
/// answers, beginning with empty directories.
pub fn is_linearizable(events: &[Event]) -> bool {
    assert!(events.len() <= 64, "the events that are in order are bits of one number");
    let mut met = HashSet::new();
    let mut left = vec![(0_u64, Names::default())];
    let all = if events.len() == 64 { u64::MAX } else { (1 << events.len()) - 1 };
    while let Some((done, names)) = left.pop() {
        if done == all {
            return true;
        }
        if !met.insert((done, names.clone())) {
            continue;
        }
        let open = |at: &usize| done >> at & 1 == 0;
        let first_return = (0..events.len()).filter(open).map(|at| events[at].returned).min().unwrap_or(u64::MAX);
        for at in (0..events.len()).filter(open).filter(|&at| events[at].called <= first_return) {
            let event = &events[at];
            let next = match (names.after(event.op, &event.told), &event.told) {
                (Ok(next), Ok(told)) if names.fits(event.op, told) => next,
                (Err(wanted), Err(found)) if wanted == *found => names.clone(),
                _ => continue,
            };
            left.push((done | 1 << at, next));
        }
    }
    false
}

/// One random operation; `known` are numbers of files that this thread has seen.
fn draw(seed: &mut Seed, known: &[u64], lists: bool) -> Op {
    let mut name = || (seed.below(DIRECTORIES.into()) as u8, seed.below(NAMES.into()) as u8);
    let (one, other) = (name(), name());
    match seed.below(if lists { 17 } else { 15 }) {
        0..3 => Op::Create(one),
        3 => Op::Mkdir(one),
        4 | 5 if !known.is_empty() => Op::Link(known[seed.below(known.len() as u64) as usize], one),
        4..7 => Op::Unlink(one),
        7 => Op::Rmdir(one),
        8 | 9 => Op::Rename(one, other),
        10 => Op::RenameNew(one, other),
        11 => Op::Exchange(one, other),
        12..15 => Op::Lookup(one),
        _ => Op::List(one.0),
    }
}

/// Who does operations of one thread.
pub trait Hand: Send {
    /// Goes on to fresh, empty directories, those of this number; whoever is told to makes them.
    fn next(&mut self, round: u64, make: bool);
    /// Does one; the second is whether what was created or found is a file that may be linked.
    fn act(&mut self, op: Op) -> (Answer<Told>, bool);
    /// Whether a listing is one glance.
    fn lists(&self) -> bool;
}

/// Plays `rounds` histories of `ops` operations in each hand's thread, all at the same time, and checks each.
pub fn play<H: Hand>(hands: Vec<H>, seed: u64, rounds: u64, ops: usize) {
    let _announce = rig::Announce(seed);
    let barrier = Barrier::new(hands.len());
    let clock = AtomicU64::new(0);
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let histories: Vec<Mutex<Vec<Event>>> = (0..rounds).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for (number, mut hand) in hands.into_iter().enumerate() {
            let (barrier, tick, histories) = (&barrier, &tick, &histories);
            let mut seed = Seed::new(seed * 1009 + number as u64);
            scope.spawn(move || {
                for (round, history) in histories.iter().enumerate() {
                    if number == 0 {
                        hand.next(round as u64, true);
                    }
                    barrier.wait();
                    if number != 0 {
                        hand.next(round as u64, false);
                    }
                    let (mut known, mut events) = (Vec::new(), Vec::new());
                    barrier.wait();
                    for _ in 0..ops {
                        let op = draw(&mut seed, &known, hand.lists());
                        let called = tick();
                        let (told, is_file) = hand.act(op);
                        let returned = tick();
                        if let (Ok(Told::Made(id) | Told::Found(id, _)), true) = (&told, is_file) {
                            known.push(*id);
                        }
                        events.push(Event { op, told, called, returned });
                    }
                    history.lock().expect("nobody panics with it").extend(events);
                }
            });
        }
    });
    for (round, history) in histories.into_iter().enumerate() {
        let mut history = history.into_inner().expect("nobody panicked");
        history.sort_by_key(|event| event.called);
        assert!(is_linearizable(&history), "no order explains history {round} of seed {seed}: {history:#?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(op: Op, told: Answer<Told>, called: u64, returned: u64) -> Event {
        Event { op, told, called, returned }
    }

    const A: Name = (0, 0);
    const B: Name = (0, 1);

    #[test]
    fn what_happened_at_the_same_time_may_have_any_order() {
        let create = event(Op::Create(A), Ok(Told::Made(7)), 0, 5);
        let missed = event(Op::Lookup(A), Err(libc::ENOENT), 1, 2);
        let found = event(Op::Lookup(A), Ok(Told::Found(7, Some(1))), 3, 4);
        assert!(is_linearizable(&[create.clone(), missed.clone(), found.clone()]));
        let missed_later = Event { called: 6, returned: 7, ..missed };
        assert!(!is_linearizable(&[create.clone(), missed_later]), "it had returned");
        let lost = event(Op::Lookup(A), Err(libc::ENOENT), 5, 6);
        assert!(!is_linearizable(&[create, found, lost]), "it had been found already");
    }

    #[test]
    fn a_rename_that_is_seen_half_way_is_noticed() {
        let make = event(Op::Create(A), Ok(Told::Made(7)), 0, 1);
        let rename = event(Op::Rename(A, B), Ok(Told::Done), 2, 9);
        let both = event(Op::List(0), Ok(Told::Listed(vec![(0, 7), (1, 7)])), 3, 4);
        assert!(!is_linearizable(&[make.clone(), rename.clone(), both]));
        let none = event(Op::List(0), Ok(Told::Listed(vec![])), 3, 4);
        assert!(!is_linearizable(&[make.clone(), rename.clone(), none]));
        let after = event(Op::List(0), Ok(Told::Listed(vec![(1, 7)])), 3, 4);
        let before = event(Op::Lookup(A), Ok(Told::Found(7, None)), 5, 6);
        assert!(is_linearizable(&[make.clone(), rename.clone(), after.clone()]));
        assert!(!is_linearizable(&[make, rename, after, before]), "it does not go back");
    }

    #[test]
    fn a_number_of_links_that_never_was_is_noticed() {
        let make = event(Op::Create(A), Ok(Told::Made(7)), 0, 1);
        let link = event(Op::Link(7, B), Ok(Told::Done), 2, 3);
        let seen = |links| event(Op::Lookup(A), Ok(Told::Found(7, Some(links))), 4, 5);
        assert!(is_linearizable(&[make.clone(), link.clone(), seen(2)]));
        assert!(!is_linearizable(&[make, link, seen(1)]));
    }
}
