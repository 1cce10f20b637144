//! `vellum cat`: writes files of a snapshot to standard output, without a mount.

use std::io::{self, Write};

use vellum_fs::format::inode::FileKind;

use crate::{
    args::CatArgs,
    context::Context,
    error::{Error, Result},
    output::{escaped, output_error},
    past::{Past, kind_word},
    target::{Inside, Source, Target},
};

/// Read at a time.
const READ_BYTES: usize = 1 << 20;

/// `vellum cat`
pub fn run(context: &Context, args: &CatArgs) -> Result<()> {
    let files = args.what.iter().map(|what| Inside::parse(what)).collect::<Result<Vec<_>>>()?;
    let source = Target::resolve_source(&args.target)?;
    // Files of one snapshot that follow each other need it opened once.
    for run in files.chunk_by(|a, b| a.snapshot == b.snapshot) {
        write_files(context, &source, run)?;
    }
    Ok(())
}

fn write_files(context: &Context, source: &Source, files: &[Inside]) -> Result<()> {
    let Some(first) = files.first() else { return Ok(()) };
    let past = Past::open(context, source, &first.snapshot)?;
    let written = files.iter().try_for_each(|file| write_file(&past, file));
    let closed = past.close();
    written?;
    closed
}

fn write_file(past: &Past, file: &Inside) -> Result<()> {
    let (ino, kind) = past.resolve(file)?;
    if kind != FileKind::Regular {
        let message = format!("{} is a {}", escaped(&file.names.join(&b'/')), kind_word(kind));
        return Err(Error::refused(message, "`vellum ls` lists directories, `vellum restore` copies anything out"));
    }
    let mut out = io::stdout().lock();
    let mut offset = 0;
    loop {
        let bytes = past.volume().read_in_tree(&past.view().tree, ino, offset, READ_BYTES)?;
        if bytes.is_empty() {
            return out.flush().map_err(output_error);
        }
        out.write_all(&bytes).map_err(output_error)?;
        offset += bytes.len() as u64;
    }
}
