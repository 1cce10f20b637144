//! `vellum ls`: lists files of a snapshot, without a mount.

use std::io::{self, Write};

use vellum_fs::{
    format::inode::{FileKind, Inode},
    ino::Ino,
};

use crate::{
    args::LsArgs,
    context::Context,
    error::{Error, Result},
    output::{local_time, output_error, printed},
    past::{Child, Past, mode_text},
    reports::FileReport,
    target::{Inside, Target},
};

/// Entries of a directory that are sorted; a larger one is listed in the order in which it is stored.
const SORTED_MAX: usize = 100_000;

/// `vellum ls`
pub fn run(context: &Context, args: &LsArgs) -> Result<()> {
    let inside = Inside::parse(&args.what)?;
    let source = Target::resolve_source(&args.target)?;
    let past = Past::open(context, &source, &inside.snapshot)?;
    let how = How { json: context.output.json, long: args.long, recursive: args.recursive };
    let listed = list(&past, &inside, how);
    let closed = past.close();
    listed.and(closed)
}

/// Lists everything below a path, as `ls --recursive` does.
pub fn list_below(context: &Context, past: &Past, inside: &Inside) -> Result<()> {
    list(past, inside, How { json: context.output.json, long: false, recursive: true })
}

fn list(past: &Past, inside: &Inside, how: How) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    Listing { past, how, out: &mut out, count: 0 }.run(inside)?;
    out.flush().map_err(output_error)
}

#[derive(Clone, Copy)]
struct How {
    json: bool,
    long: bool,
    recursive: bool,
}

struct Listing<'a> {
    past: &'a Past,
    how: How,
    out: &'a mut dyn Write,
    count: u64,
}

impl Listing<'_> {
    fn run(&mut self, inside: &Inside) -> Result<()> {
        let (ino, kind) = self.past.resolve(inside)?;
        let path = inside.names.join(&b'/');
        if self.how.json {
            self.write(b"[")?;
        }
        match kind.is_directory() {
            true => self.directory(ino, path)?,
            false => {
                let name = inside.names.last().cloned().unwrap_or_default();
                self.entry(ino, &path, &name)?;
            }
        }
        if self.how.json {
            self.write(if self.count == 0 { b"]\n" } else { b"\n]\n" })?;
        }
        Ok(())
    }

    /// Lists a directory, and those below it if asked to, by a stack of its own: trees can be deeper than ours.
    fn directory(&mut self, ino: Ino, path: Vec<u8>) -> Result<()> {
        let mut stack = vec![(ino, path.clone())];
        while let Some((dir, dir_path)) = stack.pop() {
            let mut after = Some(0);
            let mut below_it = Vec::new();
            while let Some(from) = after {
                let (mut part, next) = self.part(dir, from)?;
                if from == 0 && next.is_none() {
                    part.sort_by(|a, b| a.name.cmp(&b.name));
                }
                after = next;
                for child in part {
                    let child_path = joined(&dir_path, &child.name);
                    let shown = if self.how.recursive { below(&path, &child_path) } else { &child.name };
                    self.entry(child.ino, &child_path, shown)?;
                    if self.how.recursive && child.kind.is_directory() {
                        below_it.push((child.ino, child_path));
                    }
                }
            }
            stack.extend(below_it.into_iter().rev());
        }
        Ok(())
    }

    /// As many entries as are sorted together, and where the listing goes on if there are more.
    fn part(&self, dir: Ino, mut after: u64) -> Result<(Vec<Child>, Option<u64>)> {
        let mut part = Vec::new();
        while part.len() < SORTED_MAX {
            let batch = self.past.children(dir, after)?;
            let Some(last) = batch.last() else { return Ok((part, None)) };
            after = last.cookie;
            part.extend(batch);
        }
        Ok((part, Some(after)))
    }

    fn entry(&mut self, ino: Ino, path: &[u8], shown: &[u8]) -> Result<()> {
        if !self.how.json && !self.how.long {
            self.write(&printed(shown))?;
            return self.write(b"\n");
        }
        let inode = self.past.namespace().inode(ino)?;
        let report = self.past.report(path, ino, &inode)?;
        match self.how.json {
            true => self.json_line(&report),
            false => self.long_line(&report, &inode, shown),
        }
    }

    fn json_line(&mut self, report: &FileReport) -> Result<()> {
        let text = serde_json::to_vec(report).map_err(|error| output_error(error.into()))?;
        self.write(if self.count == 0 { b"\n  " } else { b",\n  " })?;
        self.count += 1;
        self.write(&text)
    }

    fn long_line(&mut self, report: &FileReport, inode: &Inode, shown: &[u8]) -> Result<()> {
        let size = match inode.kind {
            FileKind::CharDevice | FileKind::BlockDevice => format!("{}, {}", inode.rdev >> 32, inode.rdev as u32),
            _ => inode.size.to_string(),
        };
        let (mode, time) = (mode_text(inode), local_time(inode.mtime));
        let line = format!("{mode} {:>3} {:>6} {:>6} {size:>12} {time} ", inode.nlink, inode.uid, inode.gid);
        self.write(line.as_bytes())?;
        self.write(&printed(shown))?;
        if let Some(target) = &report.target {
            self.write(b" -> ")?;
            self.write(&printed(&target.0))?;
        }
        self.write(b"\n")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(output_error)
    }
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir.is_empty() {
        true => name.to_vec(),
        false => [dir, b"/", name].concat(),
    }
}

/// A path without the directory that was asked for.
fn below<'p>(dir: &[u8], path: &'p [u8]) -> &'p [u8] {
    match dir.is_empty() {
        true => path,
        false => path.get(dir.len() + 1..).unwrap_or(path),
    }
}
