//! What the programs share: finding the target that one is started for.
//!
//! libFuzzer owns the arguments, so variables say what is wanted: `VELLUM_FUZZ_TARGET` names the target. Without it a
//! program lists its targets, and with `VELLUM_FUZZ_SEEDS=DIRECTORY` writes the seeds of each into a folder there.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

use vellum_fuzzing::Target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// Chooses among the targets of a program, or lists them and ends it.
pub fn choose(targets: &[Target]) {
    let wanted = env::var("VELLUM_FUZZ_TARGET").ok();
    let folder = env::var_os("VELLUM_FUZZ_SEEDS").map(PathBuf::from);
    for target in targets {
        if wanted.as_deref() == Some(target.name) {
            CHOSEN.get_or_init(|| *target);
            return;
        }
        if wanted.is_none() {
            println!("{}", target.name);
            if let Some(Err(error)) = folder.as_ref().map(|folder| write_seeds(folder, target)) {
                eprintln!("{}: {error}", target.name);
                process::exit(1);
            }
        }
    }
    process::exit(if wanted.is_some() { 2 } else { 0 });
}

fn write_seeds(folder: &Path, target: &Target) -> io::Result<()> {
    let folder = folder.join(target.name);
    fs::create_dir_all(&folder)?;
    let seeds = (target.seeds)();
    seeds.iter().enumerate().try_for_each(|(number, seed)| fs::write(folder.join(format!("seed-{number:02}")), seed))
}

/// Gives an input to the chosen target.
pub fn run(data: &[u8]) {
    let target = CHOSEN.get().expect("a target is chosen before the first input");
    (target.run)(data);
}
