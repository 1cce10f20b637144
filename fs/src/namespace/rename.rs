//! Moving, replacing and exchanging names, each as one change of the tree.

use super::{
    CreateArgs, DirectoryChange, Found, Link, Namespace, NamespaceView, Removed,
    create::{full, is_ordinary},
    path::Ascent,
};
use crate::{
    error::{Error, Result},
    format::{
        inode::{FileKind, Inode},
        key, op,
    },
    ino::Ino,
    name,
    time::Time,
};

/// How a rename treats what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// Refuse if the new name exists.
    pub no_replace: bool,
    /// Swap the two names, which must both exist.
    pub exchange: bool,
    /// Leave a whiteout (character device 0:0) at the old name.
    pub whiteout: bool,
}

impl RenameFlags {
    /// The flags of [`Op::Rename`](crate::format::op::Op::Rename); `None` if there are others.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let known = op::RENAME_NO_REPLACE | op::RENAME_EXCHANGE | op::RENAME_WHITEOUT;
        let has = |flag| bits & flag != 0;
        let (no_replace, exchange) = (has(op::RENAME_NO_REPLACE), has(op::RENAME_EXCHANGE));
        (bits & !known == 0).then_some(Self { no_replace, exchange, whiteout: has(op::RENAME_WHITEOUT) })
    }

    /// The flags as [`Self::from_bits`] reads them.
    pub fn bits(self) -> u32 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(self.no_replace, op::RENAME_NO_REPLACE)
            | flag(self.exchange, op::RENAME_EXCHANGE)
            | flag(self.whiteout, op::RENAME_WHITEOUT)
    }
}

/// A name to be moved.
#[derive(Clone, Copy, Debug)]
pub struct RenameArgs<'a> {
    /// Directory of the old name.
    pub parent: Ino,
    /// The old name.
    pub name: &'a [u8],
    /// Directory of the new name.
    pub new_parent: Ino,
    /// The new name.
    pub new_name: &'a [u8],
    /// How to treat what is found.
    pub flags: RenameFlags,
    /// Number for the whiteout, never used before; given with that flag and only then.
    pub whiteout: Option<Ino>,
    /// ctime of what moves or is replaced, and the directories' mtime and ctime.
    pub time: Time,
}

/// What a rename did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The inode that has the new name.
    pub moved: Ino,
    /// The inode that had the new name before and lost it.
    pub replaced: Option<Removed>,
    /// The inode that has the old name after an exchange.
    pub exchanged: Option<Ino>,
    /// False if both names led to one inode, and nothing was done.
    pub changed: bool,
}

/// A checked rename: what is found at both ends.
struct Plan<'a> {
    args: &'a RenameArgs<'a>,
    source: Found,
    target: Option<Found>,
    from: Link,
    to: Link,
}

impl NamespaceView<'_> {
    /// Whether `directory` is `ancestor` or lies below it.
    pub fn is_below(&self, directory: Ino, ancestor: Ino) -> Result<bool> {
        let (mut at, mut ascent) = (directory, Ascent::from(directory));
        loop {
            if at == ancestor {
                return Ok(true);
            }
            if at == Ino::ROOT || at == Ino::VOLUME {
                return Ok(false);
            }
            at = self.inode(at)?.parent;
            ascent.step(at)?;
        }
    }
}

impl Namespace<'_> {
    /// Moves a name, replacing what is there by the rules of rename(2). If both names lead to the same inode nothing
    /// happens. [`Error::InvalidArgument`] for flags that contradict each other and for moving a directory into itself.
    pub fn rename(&mut self, args: &RenameArgs<'_>) -> Result<Renamed> {
        let plan = self.plan(args)?;
        let moved = plan.source.ino;
        match plan.target {
            Some(target) if target.ino == moved => {
                Ok(Renamed { moved, replaced: None, exchanged: None, changed: false })
            }
            Some(target) if args.flags.exchange => {
                self.exchange(&plan, target)?;
                Ok(Renamed { moved, replaced: None, exchanged: Some(target.ino), changed: true })
            }
            _ => {
                let replaced = self.replace(&plan)?;
                Ok(Renamed { moved, replaced, exchanged: None, changed: true })
            }
        }
    }

    fn plan<'a>(&self, args: &'a RenameArgs<'a>) -> Result<Plan<'a>> {
        let flags = args.flags;
        if flags.exchange && (flags.no_replace || flags.whiteout) {
            return Err(Error::invalid("rename flags that exclude each other"));
        }
        if flags.whiteout != args.whiteout.is_some() || args.whiteout.is_some_and(|ino| !is_ordinary(ino)) {
            return Err(Error::invalid("the inode number of a whiteout"));
        }
        name::check(args.name)?;
        name::check(args.new_name)?;
        let source = self.view().find(args.parent, args.name)?;
        self.view().live_directory(args.new_parent)?;
        let slot = self.view().slot(args.new_parent, args.new_name)?;
        let target = slot.found;
        if flags.no_replace && target.is_some() {
            return Err(Error::Exists((args.new_parent, args.new_name).into()));
        }
        if flags.exchange && target.is_none() {
            return Err(Error::not_found((args.new_parent, args.new_name)));
        }
        let across = args.parent != args.new_parent;
        let swallows = |found: Found, dir: Ino| -> Result<bool> {
            Ok(across && found.kind.is_directory() && self.view().is_below(dir, found.ino)?)
        };
        if swallows(source, args.new_parent)? || (flags.exchange && swallows_any(target, args.parent, swallows)?) {
            return Err(Error::invalid((args.new_parent, args.new_name)));
        }
        if let Some(target) = target.filter(|target| !flags.exchange && target.ino != source.ino) {
            self.check_replaceable(args, source.kind, target)?;
        }
        let cookie = target.map(|target| target.cookie).or(slot.free);
        let cookie = cookie.ok_or_else(|| full(args.new_parent, args.new_name))?;
        let from = Link { parent: args.parent, cookie: source.cookie };
        Ok(Plan { args, source, target, from, to: Link { parent: args.new_parent, cookie } })
    }

    fn check_replaceable(&self, args: &RenameArgs<'_>, moved: FileKind, target: Found) -> Result<()> {
        let object = || (args.new_parent, args.new_name).into();
        match (moved.is_directory(), target.kind.is_directory()) {
            (true, false) => Err(Error::NotDirectory(object())),
            (false, true) => Err(Error::IsDirectory(object())),
            (true, true) if !self.view().is_empty(target.ino)? => Err(Error::NotEmpty(object())),
            _ => Ok(()),
        }
    }

    fn exchange(&mut self, plan: &Plan<'_>, target: Found) -> Result<()> {
        let (args, source) = (plan.args, plan.source);
        self.put_dirent(plan.from, target.ino, target.kind, args.name)?;
        self.put_dirent(plan.to, source.ino, source.kind, args.new_name)?;
        self.retarget(source, plan.from, plan.to, args.time)?;
        self.retarget(target, plan.to, plan.from, args.time)?;
        let came = |come: FileKind, go: FileKind| DirectoryChange::one_more(come) + DirectoryChange::one_less(go);
        self.touch_both(args, came(target.kind, source.kind), came(source.kind, target.kind))
    }

    fn replace(&mut self, plan: &Plan<'_>) -> Result<Option<Removed>> {
        let (args, source) = (plan.args, plan.source);
        let mut to_change = DirectoryChange::one_more(source.kind);
        let mut from_change = DirectoryChange::one_less(source.kind);
        let mut replaced = None;
        if let Some(target) = plan.target {
            replaced = Some(self.take_link(target, plan.to, args.time)?);
            to_change = to_change + DirectoryChange::one_less(target.kind);
        }
        // The new name keeps the cookie of what it replaces, so a listing under way meets it exactly once.
        self.put_dirent(plan.to, source.ino, source.kind, args.new_name)?;
        self.retarget(source, plan.from, plan.to, args.time)?;
        if let Some(whiteout) = args.whiteout {
            self.leave_whiteout(plan, whiteout)?;
            from_change = from_change + DirectoryChange::one_more(FileKind::CharDevice);
        } else {
            self.tree.remove(&key::dirent(plan.from.parent, plan.from.cookie))?;
        }
        self.touch_both(args, from_change, to_change)?;
        Ok(replaced)
    }

    /// Records in an inode that one of its names moved, at `time`.
    fn retarget(&mut self, found: Found, from: Link, to: Link, time: Time) -> Result<()> {
        let mut inode = self.linked_inode(found)?;
        self.move_link(found.ino, &mut inode, from, to)?;
        inode.ctime = time;
        self.put_inode(found.ino, &inode)
    }

    fn leave_whiteout(&mut self, plan: &Plan<'_>, ino: Ino) -> Result<Inode> {
        let directory = self.view().live_directory(plan.from.parent)?;
        let whiteout = CreateArgs {
            parent: plan.from.parent,
            name: plan.args.name,
            ino,
            kind: FileKind::CharDevice,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: &[],
            time: plan.args.time,
        };
        self.create_at(&whiteout, &directory, plan.from)
    }

    fn touch_both(&mut self, args: &RenameArgs<'_>, from: DirectoryChange, to: DirectoryChange) -> Result<()> {
        if args.parent == args.new_parent {
            let directory = self.view().live_directory(args.parent)?;
            return self.touch_directory(args.parent, directory, from + to, args.time);
        }
        for (ino, change) in [(args.parent, from), (args.new_parent, to)] {
            let directory = self.view().live_directory(ino)?;
            self.touch_directory(ino, directory, change, args.time)?;
        }
        Ok(())
    }
}

fn swallows_any(target: Option<Found>, dir: Ino, swallows: impl Fn(Found, Ino) -> Result<bool>) -> Result<bool> {
    target.map_or(Ok(false), |target| swallows(target, dir))
}
