//! The way from an inode back to the root.

use super::{DEPTH_MAX, Link, NamespaceView};
use crate::{
    error::{Error, Result},
    format::{dirent::Dirent, inode::FileKind, key},
    ino::Ino,
};

/// The way from a directory towards the root, which notices when it comes back to where it was (Brent's algorithm): a
/// cycle is found in a few rounds, however much longer a path may be.
pub(super) struct Ascent {
    mark: Ino,
    steps: usize,
}

impl Ascent {
    /// Begins at an inode.
    pub(super) fn from(start: Ino) -> Self {
        Self { mark: start, steps: 0 }
    }

    /// Goes on to the parent; damage if that was met before, or if the path is longer than any.
    pub(super) fn step(&mut self, parent: Ino) -> Result<()> {
        self.steps += 1;
        if parent == self.mark || self.steps > DEPTH_MAX {
            return Err(Error::damaged(parent, "its parents form a cycle"));
        }
        if self.steps.is_power_of_two() {
            self.mark = parent;
        }
        Ok(())
    }
}

impl NamespaceView<'_> {
    /// The directory that `..` leads to; the root is its own. [`Error::NotFound`] once the directory was removed.
    pub fn parent_of(&self, dir: Ino) -> Result<Ino> {
        Ok(self.live_directory(dir)?.parent)
    }

    /// The names from the root to an inode, by its first name; none for the root itself. [`Error::NotFound`] if it
    /// has no name, or if one of its directories has none.
    pub fn path_of(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let (mut at, mut ascent) = (ino, Ascent::from(ino));
        while at != Ino::ROOT {
            let inode = self.inode(at)?;
            if inode.nlink == 0 {
                return Err(Error::not_found(ino));
            }
            let link = super::link::first_link(&inode);
            names.push(self.name_at(at, link)?);
            at = link.parent;
            ascent.step(at)?;
        }
        names.reverse();
        Ok(names)
    }

    /// The target of a symbolic link; [`Error::InvalidArgument`] of anything else.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        if self.inode(ino)?.kind != FileKind::Symlink {
            return Err(Error::invalid(ino));
        }
        let target = self.tree.get(&key::body(ino))?;
        target.ok_or_else(|| Error::damaged(ino, "a symbolic link without target"))
    }

    /// The name that an inode has at one of its links.
    pub fn name_at(&self, ino: Ino, link: Link) -> Result<Vec<u8>> {
        let dirent = self.tree.get_with(&key::dirent(link.parent, link.cookie), Dirent::decode)?.transpose()?;
        match dirent.filter(|dirent| dirent.ino == ino) {
            Some(dirent) => Ok(dirent.name),
            None => Err(Error::damaged(ino, "one of its names does not lead to it")),
        }
    }

    /// Where a path leads, without following symbolic links; `.` and `..` are not understood.
    pub fn resolve(&self, names: &[impl AsRef<[u8]>]) -> Result<(Ino, FileKind)> {
        let mut at = (Ino::ROOT, FileKind::Directory);
        for name in names {
            at = self.lookup(at.0, name.as_ref())?;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cycle of two parents was followed for a million steps, which a rename waited for.
    #[test]
    fn a_cycle_of_parents_is_noticed_within_a_few_rounds() {
        for (tail, cycle) in [(0, 1), (0, 2), (5, 3), (100, 7), (1, 1000)] {
            let mut ascent = Ascent::from(Ino(1));
            let parents = (1..).map(|step: u64| Ino(1 + if step < tail { step } else { tail + (step - tail) % cycle }));
            let steps = parents.take_while(|parent| ascent.step(*parent).is_ok()).count() as u64;
            assert!(steps <= 4 * (tail + cycle), "{steps} steps of {tail} and {cycle}");
        }
        let mut ascent = Ascent::from(Ino(1));
        assert!((2..5000).all(|parent| ascent.step(Ino(parent)).is_ok()), "a long path is none");
    }
}
