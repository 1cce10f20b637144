//! `vellum repair`: mends what can be mended of a repository that nobody has mounted, and lists what is lost.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use vellum_fs::volume::repair::{self, RepairEvent};
use vellum_store::{id::VolumeName, repository::Access};

use crate::{
    args::RepairArgs,
    context::{Context, volume_options},
    error::{Error, Exit, Result},
    journal_place::JournalPlace,
    output::{bytes, counted, escaped},
    progress::Progress,
    reports::{HarmReport, RepairReport},
    target::{Source, Target},
};

/// What is kept of each list of a report; it is counted and told in full.
const KEPT_MAX: usize = 10_000;

/// `vellum repair`
pub fn run(context: &Context, args: &RepairArgs) -> Result<()> {
    let source = source(args)?;
    let access = if args.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let repository = context.open(&source.path, access)?;
    let (state_dir, id) = (&context.state_dir, repository.config().repository);
    let progress = Progress::start("looking for damage", context.output.json);
    let mut report = RepairReport { dry_run: args.dry_run, read_data: args.read_data, ..RepairReport::default() };
    // Mounts that were killed may have left their journals elsewhere.
    let mut journals = HashMap::new();
    for name in repository.known_volumes()? {
        journals.insert(name.clone(), JournalPlace::left_in(state_dir, id, &name)?);
    }
    let options = |name: &VolumeName| {
        let mut options = volume_options(name.clone());
        options.journal_dir = journals.get(name).cloned().flatten();
        Ok(options)
    };
    let done = repair::repair(&repository, &options, args.read_data, &mut |event| note(&mut report, &progress, event))?;
    drop(progress);
    report.complete(&done);
    // A volume that cannot be opened yet may still need its journal.
    if !args.dry_run && done.volumes == repository.volumes().len() as u64 {
        for name in repository.volumes() {
            JournalPlace::forget_left(state_dir, id, &name);
        }
    }
    context.output.print(&report, |out| write_report(out, &report))?;
    finish(&report)
}

/// The repository, unless one of its volumes is mounted.
fn source(args: &RepairArgs) -> Result<Source> {
    match Target::resolve(&args.repository)? {
        Target::Repository(source) => Ok(source),
        Target::Mounted(mut client) => {
            let status = client.status()?;
            let message = format!("{} is mounted at {}", status.repository, status.mountpoint);
            let hint =
                format!("run `vellum umount {}` first: a repair wants the repository for itself", status.mountpoint);
            Err(Error::told(Exit::Locked, message, hint))
        }
    }
}

fn note(report: &mut RepairReport, progress: &Progress, event: RepairEvent) {
    let keep = |list: &mut Vec<String>, text: String| {
        if list.len() < KEPT_MAX {
            list.push(text);
        }
    };
    match event {
        RepairEvent::Progress(at) => progress.set(at.bytes, at.bytes_total, counted(at.packs, "pack", "packs")),
        RepairEvent::Found(damage) => {
            progress.line(&escaped(format!("damaged: {}: {}", damage.object, damage.what).as_bytes()));
            if report.damage.len() < KEPT_MAX {
                report.damage.push(damage.into());
            }
        }
        RepairEvent::Mended(text) => keep(&mut report.mended, text),
        RepairEvent::Lost(text) => {
            // At once: a run that ends early prints no report, and the next may not see this any more.
            progress.line(&escaped(format!("lost: {text}").as_bytes()));
            keep(&mut report.lost, text);
        }
        RepairEvent::Harm(harm) => {
            let harm = HarmReport::from(harm);
            match report.harmed.len() < KEPT_MAX {
                true => report.harmed.push(harm),
                false => progress.line(&format!("harmed: {harm}")),
            }
        }
    }
}

fn write_report(out: &mut dyn Write, report: &RepairReport) -> io::Result<()> {
    let (mended, harmed) = match report.dry_run {
        true => ("would be mended", "would be harmed"),
        false => ("mended", "harmed"),
    };
    let how = if report.read_data { "every byte read" } else { "content not read" };
    writeln!(
        out,
        "looked at {} with {} and {}: {how}",
        counted(report.packs, "pack", "packs"),
        bytes(report.pack_bytes),
        counted(report.trees, "tree", "trees"),
    )?;
    report.mended.iter().try_for_each(|text| writeln!(out, "{mended}: {}", escaped(text.as_bytes())))?;
    report.lost.iter().try_for_each(|text| writeln!(out, "lost: {}", escaped(text.as_bytes())))?;
    report.harmed.iter().try_for_each(|harm| writeln!(out, "{harmed}: {harm}"))?;
    if report.found == 0 && report.mended.is_empty() && report.is_whole() {
        writeln!(out, "nothing is damaged")?;
    }
    Ok(())
}

fn finish(report: &RepairReport) -> Result<()> {
    if report.dry_run && !report.mended.is_empty() {
        let message = "there is damage that a repair would mend, and nothing was changed";
        return Err(Error::told(Exit::Damage, message, "run `vellum repair` without --dry-run"));
    }
    if report.is_whole() {
        return Ok(());
    }
    let harmed = counted(report.harmed_count, "thing is", "things are");
    let message = format!("what could be mended is mended; {harmed} harmed, as listed above");
    let hint = "put lost packs back from a copy of the repository and repair again. Over a file with lost content a good version can \
                be copied. What is left of nothing but a name can be neither written nor deleted: move its directory away, and \
                copy a good one to its place";
    Err(Error::told(Exit::Damage, message, hint))
}
