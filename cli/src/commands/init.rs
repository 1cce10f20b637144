//! `vellum init`: makes a repository, and its first volume.

use std::path::Path;

use vellum_store::{
    config::{ChunkSizes, Compression},
    crypto::{Credential, KdfParams, SlotName},
    id::{RepositoryId, VolumeName},
    repository::{Access, InitOptions, Repository},
};

use crate::{
    args::{ChunkProfile, InitArgs},
    context::{Context, VOLUME_DEFAULT, kdf_params, nanos_now, open_volume, volume_options},
    error::{Error, Result},
    reports::{InitReport, Name},
    secret,
};

/// `vellum init`
pub fn run(context: &Context, args: &InitArgs) -> Result<()> {
    let path = &args.repository;
    refuse_occupied(path)?;
    let kdf = kdf_params(args.kdf)?;
    let (compression, slot) = (compression(&args.compression)?, SlotName::new(&args.slot)?);
    let credential =
        secret::credential_to_set(&context.global.secret, &format!("New passphrase for {}", path.display()))?;
    let id = make(path, &credential, kdf, |options| {
        options.compression = compression;
        options.slot = slot;
        options.label.clone_from(&args.label);
        if args.chunks == ChunkProfile::Large {
            options.chunk_sizes = ChunkSizes::LARGE;
        }
    })?;
    make_volume(context, path, credential)?;
    let report = InitReport {
        repository: Name::of(path),
        id: id.to_string(),
        volume: VOLUME_DEFAULT.to_string(),
        slot: args.slot.clone(),
    };
    context.output.print(&report, |out| {
        writeln!(out, "made repository {} in {}", report.id, path.display())?;
        writeln!(
            out,
            "Without the passphrase or key file nobody can read it again, you included: keep a copy of it elsewhere."
        )?;
        writeln!(out, "next: vellum mount {} DIR", path.display())
    })
}

/// Makes a repository with the given first key.
pub fn make(
    path: &Path,
    credential: &Credential,
    kdf: KdfParams,
    tune: impl FnOnce(&mut InitOptions),
) -> Result<RepositoryId> {
    let mut options = InitOptions::new(path, secret::duplicate(credential), nanos_now())?;
    options.kdf = kdf;
    tune(&mut options);
    Ok(Repository::init(&options)?)
}

/// Makes the first volume, which also proves that the repository opens with the secret it was given.
fn make_volume(context: &Context, path: &Path, credential: Credential) -> Result<()> {
    let repository = context.open_with(path, Access::ReadWrite, credential)?;
    let mut options = volume_options(VolumeName::new(VOLUME_DEFAULT)?);
    options.create = true;
    Ok(open_volume(repository, options)?.close()?)
}

/// Refuses a place that holds something, before a passphrase is asked for.
fn refuse_occupied(path: &Path) -> Result<()> {
    use crate::context::{RepositoryState, repository_state};
    let what = match repository_state(path)? {
        RepositoryState::Missing | RepositoryState::Empty => return Ok(()),
        RepositoryState::Present => "a repository",
        // What an interrupted `init` left is for the store to recognise.
        RepositoryState::Other if path.is_dir() => return Ok(()),
        RepositoryState::Other => "a file",
    };
    Err(vellum_store::Error::AlreadyExists { path: path.display().to_string(), what: what.to_string() }.into())
}

/// Reads a level of compression, or `none`.
pub fn compression(text: &str) -> Result<Compression> {
    if text == "none" {
        return Ok(Compression::NONE);
    }
    let level = text
        .parse()
        .map_err(|_| Error::usage(format!("{text:?} is not a compression level"), "use -7 to 19, or none"))?;
    Ok(Compression::new(level)?)
}
