//! `vellum restore`: copies files out of a snapshot, without a mount.

use std::io::{self, Write};

use crate::{
    args::RestoreArgs,
    commands::ls,
    context::Context,
    error::{Error, Exit, Result},
    output::{bytes, counted, escaped},
    past::Past,
    progress::Progress,
    restore::{Choice, List, RestoreReport, restore},
    target::{Inside, Target},
};

/// `vellum restore`
pub fn run(context: &Context, args: &RestoreArgs) -> Result<()> {
    let inside = Inside::parse(&args.what)?;
    let source = Target::resolve_source(&args.target)?;
    let past = Past::open(context, &source, &inside.snapshot)?;
    if args.dry_run {
        let listed = ls::list_below(context, &past, &inside);
        let closed = past.close();
        return listed.and(closed);
    }
    let restored = {
        let progress = Progress::start("restoring", context.output.json);
        restore(&past, &inside, &args.to, Choice { force: args.force }, &progress)
    };
    let closed = past.close();
    let report = restored?;
    closed?;
    context.output.print(&report, |out| write_report(out, &report, args))?;
    finish(&report)
}

fn write_report(out: &mut dyn Write, report: &RestoreReport, args: &RestoreArgs) -> io::Result<()> {
    writeln!(
        out,
        "restored {}, {}, {}, {}, {} into {}",
        counted(report.files, "file", "files"),
        counted(report.directories, "directory", "directories"),
        counted(report.symlinks + report.specials, "link or special file", "links and special files"),
        counted(report.hard_links, "further name", "further names"),
        bytes(report.bytes),
        args.to.display(),
    )?;
    write_list(out, "note", &report.notes)?;
    write_list(out, "exists", &report.existing)?;
    write_list(out, "failed", &report.failed)?;
    write_list(out, "damaged", &report.damaged)
}

fn write_list(out: &mut dyn Write, what: &str, list: &List) -> io::Result<()> {
    for told in &list.paths {
        writeln!(out, "{what}: {}: {}", told.path, escaped(told.what.as_bytes()))?;
    }
    match list.count.saturating_sub(list.paths.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "{what}: {more} more"),
    }
}

fn finish(report: &RestoreReport) -> Result<()> {
    let RestoreReport { damaged, failed, existing, .. } = report;
    if damaged.count > 0 {
        let message = format!("{} damaged and left out", counted(damaged.count, "entry is", "entries are"));
        let hint = "other snapshots may hold them intact; `vellum check --read-data` names the damaged objects";
        return Err(Error::told(Exit::Damage, message, hint));
    }
    if failed.count > 0 {
        let message = format!("{} could not be restored", counted(failed.count, "entry", "entries"));
        return Err(Error::refused(message, "the list above tells why; everything else is restored"));
    }
    if existing.count > 0 {
        let message =
            format!("{} already and left as they are", counted(existing.count, "entry exists", "entries exist"));
        return Err(Error::refused(message, "replace them with --force, or restore to another directory with --to"));
    }
    Ok(())
}
