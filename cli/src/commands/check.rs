//! `vellum check`: looks for damage. Every finding is told as it comes, and leads to an exit code of its own.

use vellum_fs::time::Time;
use vellum_store::repository::Access;

use crate::{
    actions,
    args::CheckArgs,
    context::Context,
    control::{Answer, Request},
    error::{Error, Exit, Result},
    output::{bytes, counted, escaped, local_time},
    progress::Progress,
    reports::CheckReport,
    target::Target,
};

/// `vellum check`
pub fn run(context: &Context, args: &CheckArgs) -> Result<()> {
    let target = Target::resolve(&args.target)?;
    let report = match target {
        Target::Mounted(mut client) => {
            let progress = Progress::start("checking", context.output.json);
            let request = Request::Check { read_data: args.read_data, resume: args.resume };
            client.ask(&request, &mut |answer| tell(&progress, answer))?
        }
        Target::Repository(source) => {
            let repository = context.open(&source.path, Access::ReadOnly)?;
            let progress = Progress::start("checking", context.output.json);
            actions::check(&repository, None, args.read_data, args.resume, &mut |answer| tell(&progress, answer))?
        }
    };
    context.output.print(&report, |out| {
        let how = if report.read_data { "every byte read" } else { "content not read" };
        writeln!(
            out,
            "checked {} with {}, {} of {}, {} with {}: {how}",
            counted(report.packs, "pack", "packs"),
            bytes(report.pack_bytes),
            counted(report.heads, "head", "heads"),
            counted(report.volumes, "volume", "volumes"),
            counted(report.trees, "tree", "trees"),
            counted(report.nodes, "node", "nodes"),
        )?;
        if let Some(earlier) = &report.earlier {
            writeln!(
                out,
                "{} of them, {}, were read by the check that began on {} and was cut off, and not again",
                counted(earlier.packs, "pack", "packs"),
                bytes(earlier.bytes),
                local_time(Time { sec: earlier.began_seconds, nsec: 0 }),
            )?;
        }
        match report.damaged {
            0 => writeln!(out, "no damage found"),
            count => writeln!(out, "{}", counted(count, "damaged object", "damaged objects")),
        }
    })?;
    finish(&report)
}

fn tell(progress: &Progress, answer: Answer) {
    match answer {
        Answer::Progress(at) => progress.set(at.bytes, at.bytes_total, counted(at.packs, "pack", "packs")),
        Answer::Found(damage) => {
            progress.line(&escaped(format!("damaged: {}: {}", damage.object, damage.what).as_bytes()));
        }
        Answer::Waiting | Answer::Busy | Answer::Done(_) | Answer::Failed(_) => {}
    }
}

fn finish(report: &CheckReport) -> Result<()> {
    if report.damaged == 0 {
        return Ok(());
    }
    let first = report
        .damage
        .first()
        .map_or_else(String::new, |damage| format!(", first {}", escaped(damage.object.as_bytes())));
    let message = format!("{} found{first}", counted(report.damaged, "damaged object was", "damaged objects were"));
    let hint = match report.read_data {
        true => "put the objects named above back from a copy of the repository; what they held can be stored again",
        false => "`vellum check --read-data` verifies every byte and names everything that is affected",
    };
    Err(Error::told(Exit::Damage, message, hint))
}
