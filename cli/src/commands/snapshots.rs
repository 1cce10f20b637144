//! `vellum snapshot`, `snapshots`, `delete` and `rename`.

use vellum_fs::{time::Time, volume::Volume};

use crate::{
    actions,
    args::{DeleteArgs, RenameArgs, SnapshotArgs, TargetArgs},
    context::Context,
    control::Request,
    error::Result,
    output::{self, local_time, printed},
    reports::{Name, SnapshotReport},
    target::{Source, Target},
};

/// `vellum snapshot`
pub fn take(context: &Context, args: &SnapshotArgs) -> Result<()> {
    let (name, comment) = (args.name.as_ref().map(Name::of), args.message.clone());
    let taken: SnapshotReport = match Target::resolve(&args.target)? {
        Target::Mounted(mut client) => client.get(&Request::Snapshot { name, comment })?,
        Target::Repository(source) => {
            context.with_writer(&source, |volume| actions::snapshot(volume, name.as_ref(), &comment))?
        }
    };
    context.output.print(&taken, |out| {
        out.write_all(&printed(&taken.name.0))?;
        writeln!(out)
    })
}

/// `vellum snapshots`
pub fn list(context: &Context, args: &TargetArgs) -> Result<()> {
    let found: Vec<SnapshotReport> = match Target::resolve(&args.target)? {
        Target::Mounted(mut client) => client.get(&Request::Snapshots)?,
        Target::Repository(source) => with_reader(context, &source, actions::snapshots)?,
    };
    context.output.print(&found, |out| {
        for snapshot in &found {
            let time = local_time(Time { sec: snapshot.time_seconds, nsec: 0 });
            let held = if snapshot.held { " (held)" } else { "" };
            write!(out, "{time}  ")?;
            out.write_all(&printed(&snapshot.name.0))?;
            let comment = if snapshot.comment.is_empty() { String::new() } else { format!("  {}", snapshot.comment) };
            out.write_all(&printed(format!("{held}{comment}").as_bytes()))?;
            writeln!(out)?;
        }
        Ok(())
    })
}

/// `vellum delete`
pub fn delete(context: &Context, args: &DeleteArgs) -> Result<()> {
    let names: Vec<Name> = args.names.iter().map(Name::of).collect();
    let mut deleted: Vec<SnapshotReport> = Vec::new();
    let ended = match Target::resolve(&args.target)? {
        Target::Mounted(mut client) => names.into_iter().try_for_each(|name| {
            deleted.push(client.get(&Request::Delete { name })?);
            Ok(())
        }),
        Target::Repository(source) => context.with_writer(&source, |volume| {
            names.iter().try_for_each(|name| {
                deleted.push(actions::delete(volume, name)?);
                Ok(())
            })
        }),
    };
    // Those before the one that failed are gone, and this says so.
    context.output.print(&deleted, |out| {
        for snapshot in &deleted {
            write!(out, "deleted ")?;
            out.write_all(&printed(&snapshot.name.0))?;
            writeln!(out)?;
        }
        Ok(())
    })?;
    if !deleted.is_empty() {
        output::note("the space of what no other snapshot holds is freed by `vellum gc`");
    }
    ended
}

/// `vellum rename`
pub fn rename(context: &Context, args: &RenameArgs) -> Result<()> {
    let (name, new_name) = (Name::of(&args.name), Name::of(&args.new_name));
    let renamed: SnapshotReport = match Target::resolve(&args.target)? {
        Target::Mounted(mut client) => client.get(&Request::Rename { name, new_name })?,
        Target::Repository(source) => {
            context.with_writer(&source, |volume| actions::rename(volume, &name, &new_name))?
        }
    };
    context.output.print(&renamed, |out| {
        out.write_all(&printed(&renamed.name.0))?;
        writeln!(out)
    })
}

/// Opens a volume for reading, does the work and closes it.
fn with_reader<T>(context: &Context, source: &Source, work: impl FnOnce(&Volume) -> Result<T>) -> Result<T> {
    let volume = context.open_reader(source)?;
    let done = work(&volume);
    let closed = volume.close();
    let done = done?;
    closed?;
    Ok(done)
}
