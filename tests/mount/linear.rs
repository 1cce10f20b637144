//! Several threads on the names of the same two directories of a mount: some order of their system calls explains every
//! answer.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, RenameFlags, StatxFlags},
    io::Errno,
};
use vellum_tests::{
    face::Answer,
    linear::{ANY_DIRECTORY, DIRECTORIES, Hand, Name, Op, Told, play},
    rig,
};

use crate::site::Site;

struct KernelHand {
    root: PathBuf,
    round: u64,
    /// Files that were found: what is linked is the file, whatever became of its name.
    known: Vec<(u64, File)>,
}

impl KernelHand {
    fn directory(&self, number: u8) -> PathBuf {
        self.root.join(format!("{}-{number}", self.round))
    }

    fn path(&self, name: Name) -> PathBuf {
        self.directory(name.0).join(OsStr::from_bytes(&[b'a' + name.1]))
    }

    fn rename(&self, from: Name, to: Name, flags: RenameFlags) -> io::Result<Told> {
        rustix::fs::renameat_with(CWD, self.path(from), CWD, self.path(to), flags)?;
        Ok(Told::Done)
    }

    fn found(&mut self, name: Name) -> io::Result<(Told, bool)> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let file = File::options().read(true).custom_flags(flags).open(self.path(name))?;
        let data = file.metadata()?;
        let told = Told::Found(if data.is_dir() { ANY_DIRECTORY } else { data.ino() }, None);
        if data.is_file() {
            self.known.push((data.ino(), file));
        }
        Ok((told, data.is_file()))
    }

    fn link(&self, id: u64, name: Name) -> io::Result<Told> {
        let (_, file) = self.known.iter().find(|(known, _)| *known == id).expect("it was found by this hand");
        let through = format!("/proc/self/fd/{}", file.as_raw_fd());
        loop {
            let linked = rustix::fs::linkat(CWD, &through, CWD, self.path(name), AtFlags::SYMLINK_FOLLOW);
            // The kernel refuses by its own count of links, which runs behind while another thread removes one of them.
            if linked == Err(Errno::NOENT) && self.links(file)? > 0 {
                continue;
            }
            return Ok(linked.map(|()| Told::Done)?);
        }
    }

    /// Links of a file as the filesystem counts them, asked at this moment.
    fn links(&self, file: &File) -> io::Result<u32> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::from_bits_retain(libc::AT_STATX_FORCE_SYNC as u32);
        Ok(rustix::fs::statx(file, "", flags, StatxFlags::NLINK)?.stx_nlink)
    }

    fn try_to(&mut self, op: Op) -> io::Result<(Told, bool)> {
        let done = match op {
            Op::Create(name) => {
                let file = File::options().write(true).create_new(true).open(self.path(name))?;
                let id = file.metadata()?.ino();
                self.known.push((id, file));
                return Ok((Told::Made(id), true));
            }
            Op::Mkdir(name) => {
                rustix::fs::mkdir(self.path(name), Mode::RWXU)?;
                Told::Made(ANY_DIRECTORY)
            }
            Op::Link(id, name) => self.link(id, name)?,
            Op::Unlink(name) => {
                rustix::fs::unlink(self.path(name))?;
                Told::Done
            }
            Op::Rmdir(name) => {
                rustix::fs::rmdir(self.path(name))?;
                Told::Done
            }
            Op::Rename(from, to) => self.rename(from, to, RenameFlags::empty())?,
            Op::RenameNew(from, to) => self.rename(from, to, RenameFlags::NOREPLACE)?,
            Op::Exchange(one, other) => self.rename(one, other, RenameFlags::EXCHANGE)?,
            Op::Lookup(name) => return self.found(name),
            Op::List(_) => unreachable!("a listing through system calls is not one glance"),
        };
        Ok((done, false))
    }
}

impl Hand for KernelHand {
    fn next(&mut self, round: u64, make: bool) {
        self.round = round;
        self.known.clear();
        if make {
            (0..DIRECTORIES).for_each(|number| fs::create_dir(self.directory(number)).unwrap());
        }
    }

    fn act(&mut self, op: Op) -> (Answer<Told>, bool) {
        match self.try_to(op) {
            Ok((told, is_file)) => (Ok(told), is_file),
            Err(error) => (Err(error.raw_os_error().unwrap()), false),
        }
    }

    fn lists(&self) -> bool {
        false
    }
}

#[test]
fn some_order_explains_what_threads_see_in_the_same_directories() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    for seed in rig::seeds(1) {
        let root = mounted.path(format!("{seed}"));
        fs::create_dir(&root).unwrap();
        let hand = || KernelHand { root: root.clone(), round: 0, known: Vec::new() };
        play((0..4).map(|_| hand()).collect(), seed, 150, 10);
    }
    mounted.umount();
}
