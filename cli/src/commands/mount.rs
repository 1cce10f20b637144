//! `vellum mount`: checks what can be checked, finds the secret, and serves or starts the process that does.
//!
//! *Ordering*: everything that needs no secret is checked before one is asked for.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use vellum_store::crypto::{Credential, KdfParams};

use super::init;
use crate::{
    args::{MountArgs, SecretArgs},
    context::{Context, RepositoryState, repository_state, require_repository},
    error::{Error, Result},
    mount::{
        checks, daemon,
        options::Options,
        serve::{Job, serve},
    },
    output, secret,
    target::Source,
};

/// `vellum mount`
pub fn run(context: &Context, args: &MountArgs) -> Result<()> {
    match args.child {
        true => match prepare(context, args) {
            Ok(job) => daemon::child(context, &job),
            Err(error) => Err(daemon::tell_failure(&error)),
        },
        false => start(context, args),
    }
}

fn start(context: &Context, args: &MountArgs) -> Result<()> {
    let job = prepare(context, args)?;
    let credential = credential(context, args, &job)?;
    if args.foreground {
        // Lines of the log are all that tells how it is doing.
        crate::logging::at_least_info();
        return serve(context, &job, credential, &mut || Ok(()));
    }
    daemon::start(context, args, &job, &credential)
}

/// From arguments to what is to be mounted where; refuses what cannot work.
fn prepare(context: &Context, args: &MountArgs) -> Result<Job> {
    let options = Options::parse(args.options.iter().map(AsRef::<OsStr>::as_ref), args.sloppy)?;
    let mut source = Source::parse(&args.source)?;
    if let Some(volume) = &options.volume {
        source.volume = volume.clone();
    }
    let mountpoint = checks::mountpoint(&args.mountpoint, &options)?;
    if !args.create {
        require_repository(&source.path)?;
    }
    source.path = without_links(&source.path)?;
    checks::places(&mountpoint, &source.path, &options, &without_links(&context.state_dir)?)?;
    checks::not_mounted(&source, options.read_only)?;
    checks::system(&options)?;
    Ok(Job { source, mountpoint, options, create: args.create })
}

/// The secret; with `--create`, of a repository that is made with it first.
fn credential(context: &Context, args: &MountArgs, job: &Job) -> Result<Credential> {
    let from = match &job.options.secret {
        none if *none == SecretArgs::default() => &context.global.secret,
        options => options,
    };
    let path = &job.source.path;
    if args.create && repository_state(path)? != RepositoryState::Present {
        let credential = secret::credential_to_set(from, &format!("New passphrase for {}", path.display()))?;
        let id = init::make(path, &credential, KdfParams::default(), |_| {})?;
        output::note(&format!("made repository {id} in {}", path.display()));
        return Ok(credential);
    }
    secret::credential(from, &format!("Passphrase for {}", path.display()))
}

/// The path, absolute and without links; what does not exist yet is taken as it is below what does.
fn without_links(path: &Path) -> Result<PathBuf> {
    let doing = |error| Error::io(format!("find {}", path.display()), error);
    let absolute = std::path::absolute(path).map_err(doing)?;
    let mut rest = PathBuf::new();
    for above in absolute.ancestors() {
        match fs::canonicalize(above) {
            Ok(found) => return Ok(if rest.as_os_str().is_empty() { found } else { found.join(rest) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = above.file_name().unwrap_or_default();
                rest = if rest.as_os_str().is_empty() { name.into() } else { Path::new(name).join(rest) };
            }
            Err(error) => return Err(doing(error)),
        }
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_are_resolved_as_far_as_the_path_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(without_links(&link).unwrap(), real);
        assert_eq!(without_links(&link.join("a/b")).unwrap(), real.join("a/b"));
    }
}
