//! `vellum stats`: how much a repository holds.

use vellum_store::repository::Access;

use crate::{
    actions, args::TargetArgs, context::Context, control::Request, error::Result, output::bytes, reports::StatsReport,
    target::Target,
};

/// `vellum stats`
pub fn run(context: &Context, args: &TargetArgs) -> Result<()> {
    let stats: StatsReport = match Target::resolve(&args.target)? {
        Target::Mounted(mut client) => client.get(&Request::Stats)?,
        Target::Repository(source) => actions::stats(&*context.open(&source.path, Access::ReadOnly)?)?,
    };
    context.output.print(&stats, |out| {
        writeln!(out, "volumes   {}", stats.volumes)?;
        writeln!(out, "packs     {} with {} blobs, {}", stats.packs, stats.blobs, bytes(stats.pack_bytes))?;
        writeln!(out, "content   {}", bytes(stats.data_bytes))?;
        writeln!(out, "metadata  {}", bytes(stats.node_bytes))?;
        writeln!(
            out,
            "index     {} entries in {} segments, {} of memory",
            stats.index_entries,
            stats.index_segments,
            bytes(stats.index_memory_bytes)
        )
    })
}
