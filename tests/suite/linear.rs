//! Several threads on the names of the same two directories: some order of their operations explains every answer.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use vellum_fs::{
    format::inode::FileKind,
    ino::Ino,
    namespace::RenameFlags,
    volume::{Volume, ops::Entry, ops::names::NewInode},
};
use vellum_store::disk::Disk;
use vellum_tests::{
    face::{Answer, number},
    linear::{DIRECTORIES, Hand, Name, Op, Told, play},
    rig::{self, ME, Settings},
};

struct VolumeHand {
    volume: Arc<Volume>,
    directories: Vec<Ino>,
}

fn name_of(name: u8) -> Vec<u8> {
    vec![b'a' + name]
}

impl VolumeHand {
    fn at(&self, name: Name) -> (Ino, Vec<u8>) {
        (self.directories[name.0 as usize], name_of(name.1))
    }

    fn entry(&self, entry: vellum_fs::Result<Entry>, told: impl Fn(&Entry) -> Told) -> (Answer<Told>, bool) {
        match entry {
            Ok(entry) => {
                self.volume.forget(entry.attr.ino, 1);
                (Ok(told(&entry)), entry.attr.kind == FileKind::Regular)
            }
            Err(error) => (Err(number(&error)), false),
        }
    }

    fn done(&self, done: vellum_fs::Result<()>) -> (Answer<Told>, bool) {
        (done.map(|()| Told::Done).map_err(|error| number(&error)), false)
    }

    fn rename(&self, from: Name, to: Name, flags: RenameFlags) -> (Answer<Told>, bool) {
        let ((from, name), (to, new_name)) = (self.at(from), self.at(to));
        self.done(self.volume.rename((from, &name), (to, &new_name), flags, &ME).map(drop))
    }
}

impl Hand for VolumeHand {
    fn next(&mut self, round: u64, make: bool) {
        let directory = |number: u8| {
            let name = format!("{round}-{number}").into_bytes();
            let entry = match make {
                true => self.volume.mkdir(Ino::ROOT, &name, 0o755, 0, &ME),
                false => self.volume.lookup(Ino::ROOT, &name),
            };
            let ino = entry.expect("it is made once, and looked up later").attr.ino;
            self.volume.forget(ino, 1);
            ino
        };
        self.directories = (0..DIRECTORIES).map(directory).collect();
    }

    fn act(&mut self, op: Op) -> (Answer<Told>, bool) {
        let made = |entry: &Entry| Told::Made(entry.attr.ino.0);
        match op {
            Op::Create(name) => {
                let (parent, name) = self.at(name);
                let kind = FileKind::Regular;
                let new = NewInode { parent, name: &name, kind, mode: 0o644, umask: 0, rdev: 0, target: b"" };
                self.entry(self.volume.create_inode(&new, &ME), made)
            }
            Op::Mkdir(name) => {
                let (parent, name) = self.at(name);
                self.entry(self.volume.mkdir(parent, &name, 0o755, 0, &ME), made)
            }
            Op::Link(id, name) => {
                let (parent, name) = self.at(name);
                self.entry(self.volume.link(Ino(id), parent, &name), |_| Told::Done)
            }
            Op::Unlink(name) => {
                let (parent, name) = self.at(name);
                self.done(self.volume.unlink(parent, &name).map(drop))
            }
            Op::Rmdir(name) => {
                let (parent, name) = self.at(name);
                self.done(self.volume.rmdir(parent, &name, &ME))
            }
            Op::Rename(from, to) => self.rename(from, to, RenameFlags::default()),
            Op::RenameNew(from, to) => {
                self.rename(from, to, RenameFlags { no_replace: true, ..RenameFlags::default() })
            }
            Op::Exchange(one, other) => {
                self.rename(one, other, RenameFlags { exchange: true, ..RenameFlags::default() })
            }
            Op::Lookup(name) => {
                let (parent, name) = self.at(name);
                self.entry(self.volume.lookup(parent, &name), |entry| {
                    Told::Found(entry.attr.ino.0, Some(entry.attr.nlink))
                })
            }
            Op::List(directory) => {
                let mut names = HashMap::new();
                let listed = self.volume.read_dir(self.directories[directory as usize], 0, &mut |entry| {
                    if !entry.name.starts_with(b".") {
                        names.insert(entry.name[0] - b'a', entry.ino.0);
                    }
                    ControlFlow::Continue(())
                });
                let mut names: Vec<_> = names.into_iter().collect();
                names.sort_unstable();
                (listed.map(|()| Told::Listed(names)).map_err(|error| number(&error)), false)
            }
        }
    }

    fn lists(&self) -> bool {
        true
    }
}

#[test]
fn some_order_explains_what_threads_see_in_the_same_directories() {
    for seed in rig::seeds(2) {
        let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
        let (volume, _) = rig::open(&disk, &Settings::default()).expect("a new volume opens");
        let hand = || VolumeHand { volume: Arc::clone(&volume), directories: Vec::new() };
        play((0..4).map(|_| hand()).collect(), seed, 600, 10);
        volume.close().expect("the disk is well");
    }
}
