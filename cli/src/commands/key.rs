//! `vellum key`: the secrets that open a repository.

use std::path::Path;

use vellum_fs::time::Time;
use vellum_store::{
    crypto::{SlotKind, SlotName},
    repository::{Access, Repository},
};

use crate::{
    args::{KeyAddArgs, KeyCommand, KeyPasswdArgs},
    context::{Context, kdf_params, nanos_now, require_repository},
    error::{Error, Result},
    output::{escaped, exact_time, local_time},
    reports::KeyReport,
    secret,
};

/// `vellum key`
pub fn run(context: &Context, command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::List { repository } => list(context, repository),
        KeyCommand::Add(args) => add(context, args),
        KeyCommand::Remove { repository, slot } => remove(context, repository, slot),
        KeyCommand::Passwd(args) => passwd(context, args),
    }
}

fn list(context: &Context, path: &Path) -> Result<()> {
    let repository = context.open(path, Access::ReadOnly)?;
    let slots = repository.list_slots()?;
    let keys: Vec<KeyReport> = slots
        .iter()
        .map(|slot| KeyReport {
            name: slot.name.to_string(),
            kind: kind_word(slot.kind),
            label: slot.label.clone(),
            created: exact_time(Time::from_nanos(slot.created_ns)),
            kdf_memory_kib: slot.kdf.map(|kdf| kdf.m_kib()),
        })
        .collect();
    context.output.print(&keys, |out| {
        for (key, slot) in keys.iter().zip(&slots) {
            let created = local_time(Time::from_nanos(slot.created_ns));
            writeln!(out, "{:<16} {:<13} {created}  {}", key.name, key.kind, escaped(key.label.as_bytes()))?;
        }
        Ok(())
    })
}

fn add(context: &Context, args: &KeyAddArgs) -> Result<()> {
    let (name, kdf) = (SlotName::new(&args.slot)?, kdf_params(args.kdf)?);
    let repository = context.open(&args.repository, Access::ReadWrite)?;
    // Before a key file is written or a code is shown that would then open nothing.
    if repository.list_slots()?.iter().any(|slot| slot.name == name) {
        let message = format!("{} already has a key {name}", args.repository.display());
        return Err(Error::refused(message, "choose another name, or change it with `vellum key passwd`"));
    }
    let credential = secret::new_credential(&args.secret, &mut show_code)?;
    repository.add_slot(&name, &args.label, &credential, kdf, nanos_now())?;
    context.output.print(&name.to_string(), |out| writeln!(out, "added key {name}"))
}

fn remove(context: &Context, path: &Path, slot: &str) -> Result<()> {
    let name = SlotName::new(slot)?;
    let repository = context.open(path, Access::ReadWrite)?;
    repository.remove_slot(&name)?;
    context.output.print(&name.to_string(), |out| {
        writeln!(out, "removed key {name}")?;
        writeln!(out, "Who kept a copy of the repository from before can still open that copy with it.")
    })
}

fn passwd(context: &Context, args: &KeyPasswdArgs) -> Result<()> {
    let (name, kdf) = (SlotName::new(&args.slot)?, kdf_params(args.kdf)?);
    require_repository(&args.repository)?;
    let old = context.credential(&args.repository)?;
    let repository = context.open_with(&args.repository, Access::ReadWrite, secret::duplicate(&old))?;
    require_slot(&repository, &name)?;
    let new = secret::new_credential(&args.secret, &mut show_code)?;
    repository.change_credential(&name, &old, &new, kdf, nanos_now())?;
    context.output.print(&name.to_string(), |out| {
        writeln!(out, "changed key {name}")?;
        writeln!(out, "Who kept a copy of the repository from before can still open that copy with the old secret.")
    })
}

fn require_slot(repository: &Repository, name: &SlotName) -> Result<()> {
    let slots = repository.list_slots()?;
    if slots.iter().any(|slot| slot.name == *name) {
        return Ok(());
    }
    let names: Vec<String> = slots.iter().map(|slot| slot.name.to_string()).collect();
    let message = format!("there is no key {name}");
    Err(Error::told(crate::error::Exit::NotFound, message, format!("there are: {}", names.join(", "))))
}

/// A recovery code is shown once, to be written down, and not together with results.
fn show_code(code: &str) {
    eprintln!("recovery code, to be written down; it will not be shown again:\n\n    {code}\n");
}

fn kind_word(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Passphrase => "passphrase",
        SlotKind::KeyFile => "key-file",
        SlotKind::RecoveryCode => "recovery-code",
    }
}
