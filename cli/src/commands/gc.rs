//! `vellum gc`: frees the space that nothing reaches, beside a mount or without one.

use std::io::{self, Write};

use vellum_store::repository::Access;

use crate::{
    actions,
    args::GcArgs,
    context::Context,
    control::{Answer, Request},
    error::Result,
    output::{bytes, counted},
    progress::Progress,
    reports::GcReport,
    target::Target,
};

/// `vellum gc`
pub fn run(context: &Context, args: &GcArgs) -> Result<()> {
    let (max_unused, dry_run) = (args.max_unused, args.dry_run);
    let target = Target::resolve(&args.target)?;
    let progress = Progress::start("looking for what is used", context.output.json);
    let mut tell = |answer| tell(&progress, answer);
    let report: GcReport = match target {
        Target::Mounted(mut client) => client.ask(&Request::Gc { max_unused, dry_run }, &mut tell)?,
        Target::Repository(source) => {
            let repository = context.open(&source.path, Access::ReadWrite)?;
            actions::gc(&repository, None, max_unused, dry_run, &mut tell)?
        }
    };
    drop(progress);
    context.output.print(&report, |out| write_report(out, &report))
}

fn tell(progress: &Progress, answer: Answer) {
    if let Answer::Progress(at) = answer {
        let message = if at.packs > 0 { counted(at.packs, "node", "nodes") } else { String::new() };
        progress.set(at.bytes, at.bytes_total, message);
    }
}

fn write_report(out: &mut dyn Write, report: &GcReport) -> io::Result<()> {
    let freed = if report.dry_run { "would free" } else { "freed" };
    writeln!(
        out,
        "{freed} {} of {} in {}",
        bytes(report.freed_bytes()),
        bytes(report.bytes),
        counted(report.packs, "pack", "packs")
    )?;
    writeln!(
        out,
        "  {} are used by {} of volumes and snapshots",
        bytes(report.used_bytes),
        counted(report.trees, "tree", "trees")
    )?;
    if report.unused_bytes > 0 {
        writeln!(
            out,
            "  {} are unused in packs that stay, since they are mostly used; --max-unused lowers that",
            bytes(report.unused_bytes)
        )?;
    }
    if report.open_deleted > 0 {
        let what = counted(report.open_deleted, "deleted snapshot that is", "deleted snapshots that are");
        writeln!(out, "  some is held by {what} still open")?;
    }
    if report.delayed_packs > 0 {
        let packs = counted(report.delayed_packs, "pack", "packs");
        writeln!(out, "  {packs} can go when another process has ended that reads the repository: run gc again then")?;
    }
    if report.damaged_packs > 0 {
        let packs = counted(report.damaged_packs, "pack stays", "packs stay");
        writeln!(out, "  {packs} because of damage: run check --read-data")?;
    }
    if report.missing_chunks > 0 {
        let chunks = counted(report.missing_chunks, "chunk of files is", "chunks of files are");
        writeln!(out, "  {chunks} in no pack: run check")?;
    }
    Ok(())
}
