//! Measures what one small durable journal commit costs beside the filesystem's own write and fdatasync.
//!
//! `cargo run --release -p vellum-store --example journal_cost -- DIRECTORY [COUNT]`. Prints median and 95th percentile in
//! microseconds of: overwriting a preallocated file, appending to a file, and commits of three sizes. The kinds take
//! turns, so that whatever else the disk does meets all of them.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use vellum_store::crypto::{Keyring, MasterKey};
use vellum_store::disk::{Disk, DiskFile, LocalDisk};
use vellum_store::id::{HeadHash, RepositoryId, VolumeName};
use vellum_store::journal::{Journal, JournalOptions};

const BLOCK: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("give a directory")?).join(format!("cost-{}", std::process::id()));
    let count: u64 = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    disk.create_dir(&root)?;
    let overwritten = disk.create_new(&root.join("overwritten"))?;
    overwritten.write_all_at(&vec![0; 32 << 20], 0)?;
    overwritten.sync_all()?;
    let appended = disk.create_new(&root.join("appended"))?;
    let keyring = Arc::new(Keyring::new(&MasterKey::generate(), RepositoryId([1; 16]), 0));
    let volume = VolumeName::new("main")?;
    let (dir, options) = (root.join("journal").join("main"), JournalOptions::default());
    let head = HeadHash([1; 32]);
    let (journal, _) = Journal::open(disk.clone(), &dir, keyring, &volume, options, 0, &[head], &mut |_, _| Ok(()))?;

    let names = ["overwrite 4 KiB", "append 4 KiB", "commit of 100 B", "commit of 4096 B", "commit of 64 KiB"];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    for turn in 0..count {
        for (kind, times) in times.iter_mut().enumerate() {
            let start = Instant::now();
            match kind {
                0 => write(overwritten.as_ref(), turn % 8192)?,
                1 => write(appended.as_ref(), turn)?,
                _ => drop(journal.append(&vec![turn as u8; [100, 4096, 65536][kind - 2]])?),
            }
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        if journal.used_fraction() > 0.7 {
            journal.trim(journal.last_commit(), head)?;
        }
    }
    println!("{count} rounds in {}", root.display());
    for (name, times) in names.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{name:18} median {:8.0} us, 95 % {:8.0} us", at(times, 50), at(times, 95));
    }
    std::fs::remove_dir_all(&root)?;
    Ok(())
}

fn write(file: &dyn DiskFile, block: u64) -> std::io::Result<()> {
    file.write_all_at(&[block as u8; BLOCK], block * BLOCK as u64)?;
    file.sync_data()
}

fn at(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0.0)
}
