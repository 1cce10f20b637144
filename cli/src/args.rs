//! The command line as people type it.
//!
//! *Not here*: what the arguments mean (`commands`), options behind `-o` (`mount::options`).

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const AFTER_HELP: &str = "\
REPO is a directory; REPO#VOLUME names a volume in it, which is `main` otherwise.
TARGET is a REPO, or any path inside a mounted one.

The secret comes from VELLUM_PASSPHRASE, VELLUM_PASSPHRASE_FILE, VELLUM_PASSPHRASE_COMMAND or VELLUM_KEY_FILE,
from the options of the same names, or from a prompt.

Exit codes: 0 done, 1 failed, 2 usage, 3 damage found, 4 locked by another, 5 wrong key, 6 not found, 7 no space.";

/// An encrypted, deduplicating filesystem that remembers everything that was ever in it.
#[derive(Debug, Parser)]
#[command(name = "vellum", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more about what is being done; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Where the secret comes from.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Accept a repository that was copied or restored on purpose, and forget what this machine remembers of it
    #[arg(long, global = true)]
    pub as_copy: bool,
}

/// Where the secret comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SecretArgs {
    /// Read the passphrase from the first line of FILE
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Take the first line that COMMAND prints as the passphrase
    #[arg(long, global = true, value_name = "COMMAND")]
    pub passphrase_command: Option<OsString>,
    /// Open with a key file
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a repository
    Init(InitArgs),
    /// Mount a volume
    Mount(MountArgs),
    /// Unmount a volume and wait until everything is durable
    Umount(UmountArgs),
    /// Show what is mounted, and how it is doing
    Status(StatusArgs),
    /// Take a snapshot
    Snapshot(SnapshotArgs),
    /// List snapshots
    Snapshots(TargetArgs),
    /// Delete snapshots
    Delete(DeleteArgs),
    /// Give a snapshot another name
    Rename(RenameArgs),
    /// List files of a snapshot
    Ls(LsArgs),
    /// Write files of a snapshot to standard output
    Cat(CatArgs),
    /// Copy files out of a snapshot
    Restore(RestoreArgs),
    /// Look for damage
    Check(CheckArgs),
    /// Mend what is damaged, and list what is lost
    Repair(RepairArgs),
    /// Free the space that nothing reaches any more
    Gc(GcArgs),
    /// Show how much a repository holds
    Stats(TargetArgs),
    /// Manage the keys that open a repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// The directory
        dir: PathBuf,
    },
}

/// How files are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChunkProfile {
    /// 16 to 256 KiB, 64 KiB on average
    Default,
    /// 64 KiB to 1 MiB, 256 KiB on average: less metadata, for large files
    Large,
}

/// `init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The directory: missing or empty
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// Name of the first key
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub slot: String,
    /// What to call the first key for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub label: String,
    /// How files are cut into chunks; cannot be changed later
    #[arg(long, value_enum, default_value = "default")]
    pub chunks: ChunkProfile,
    /// zstd level from -7 to 19, or `none`
    #[arg(long, default_value = "3", value_name = "LEVEL", allow_hyphen_values = true)]
    pub compression: String,
    /// Memory that guessing a passphrase takes
    #[command(flatten)]
    pub kdf: KdfArgs,
}

/// Cost of guessing a passphrase.
#[derive(Clone, Copy, Debug, Args)]
pub struct KdfArgs {
    /// Memory of one guess at the passphrase, in KiB; 65536 at least
    #[arg(long, hide = true, value_name = "KIB")]
    pub kdf_memory_kib: Option<u32>,
}

/// `mount`
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The repository, or REPO#VOLUME
    #[arg(value_name = "REPO")]
    pub source: OsString,
    /// The mountpoint: an empty directory
    #[arg(value_name = "DIR")]
    pub mountpoint: PathBuf,
    /// Options, separated by commas; see the manual page
    #[arg(short = 'o', long = "options", value_name = "OPTS", action = ArgAction::Append, long_help = MOUNT_OPTIONS_HELP)]
    pub options: Vec<OsString>,
    /// Make the repository or the volume if it is missing
    #[arg(long)]
    pub create: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Started by another vellum, which hands over the secret and waits for a word.
    #[arg(long, hide = true)]
    pub child: bool,
    /// Pass over unknown options, as mount(8) may ask.
    #[arg(long, hide = true)]
    pub sloppy: bool,
}

const MOUNT_OPTIONS_HELP: &str = "\
Options, separated by commas (a comma inside a value is written `\\,`):

  ro, rw                  read-only; read and write
  allow_other             let all users in (modes and ACLs are checked)
  allow_root              let root in beside the owner
  suid, dev, noexec       honour set-user-id bits; honour device nodes; forbid execution
  relatime                keep access times as Linux does by default (noatime otherwise)
  snapdir=hidden|visible  whether listings show .snapshots
  snapdir-name=NAME       another name for it
  snap-admin=UID          who may take and delete snapshots with mkdir and rmdir in it
  volume=NAME             the volume, if REPO does not name it
  passphrase-file=FILE, passphrase-command=COMMAND, key-file=FILE
                          where the secret comes from
  cache=SIZE, dirty=SIZE  memory for reading, and for what is not yet stored (96M each)
  journal=DIR             keep the journal in another directory, which must exist
  version-quiet=SECONDS, version-max-wait=SECONDS
                          a checkpoint follows that long after the last and the first change (5, 60)
  writeback               let the kernel collect writes
  threads=N               threads that receive requests
  log=FILE                where a mount in the background writes its log (otherwise syslog,
                          or mount.log in the state directory)
  nonempty                allow a mountpoint that has entries
  default_permissions, noatime, defaults, auto, noauto, user, nofail, _netdev, x-*
                          accepted for fstab's sake";

/// `umount`
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// The mountpoint, or any path inside
    #[arg(value_name = "DIR")]
    pub mountpoint: PathBuf,
    /// Take it out of the tree even while it is in use; what has it open goes on until it is closed
    #[arg(short, long)]
    pub lazy: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A repository, or a path in a mounted one; all mounts of this user otherwise
    pub target: Option<OsString>,
}

/// A command with nothing but a target.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
}

/// `snapshot`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// What to call it; the time otherwise
    pub name: Option<OsString>,
    /// A comment
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    pub message: String,
}

/// `delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// The snapshots
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub names: Vec<OsString>,
}

/// `rename`
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// The snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub name: OsString,
    /// Its new name
    pub new_name: OsString,
}

/// `ls`
#[derive(Debug, Args)]
pub struct LsArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// SNAPSHOT or SNAPSHOT:PATH; the snapshot may be `latest`, or an instant such as `@-2h` or `@2026-11-20T14:05`
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub what: OsString,
    /// Show modes, owners, sizes and times
    #[arg(short, long)]
    pub long: bool,
    /// List directories below as well
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// `cat`
#[derive(Debug, Args)]
pub struct CatArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// The files
    #[arg(required = true, value_name = "SNAPSHOT:PATH")]
    pub what: Vec<OsString>,
}

/// `restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// SNAPSHOT or SNAPSHOT:PATH
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub what: OsString,
    /// Into this directory, which is made if it is missing. PATH keeps its own name there; a whole snapshot fills it
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
    /// Only list what would be restored
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// Read and verify every byte
    #[arg(long)]
    pub read_data: bool,
    /// Do not read again what a check that was cut off has found right on this machine since it was started
    #[arg(long, requires = "read_data")]
    pub resume: bool,
}

/// `repair`
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The repository, none of whose volumes may be mounted
    #[arg(value_name = "REPO")]
    pub repository: OsString,
    /// Read and verify every byte, and so find all content that is lost
    #[arg(long)]
    pub read_data: bool,
    /// Only tell what would be mended and what is lost
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `gc`
#[derive(Debug, Args)]
pub struct GcArgs {
    /// A repository, or a path in a mounted one
    pub target: OsString,
    /// Move what is used together until at most this percentage of the space is unused
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=99))]
    pub max_unused: Option<u8>,
    /// Only tell what would be freed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys that open a repository
    List {
        /// The repository
        #[arg(value_name = "REPO")]
        repository: PathBuf,
    },
    /// Add a key
    Add(KeyAddArgs),
    /// Remove a key
    Remove {
        /// The repository
        #[arg(value_name = "REPO")]
        repository: PathBuf,
        /// The key's name
        slot: String,
    },
    /// Give a key another passphrase or key file
    Passwd(KeyPasswdArgs),
}

/// The secret of a key that is added or changed.
#[derive(Clone, Debug, Default, Args)]
pub struct NewSecretArgs {
    /// Read the new passphrase from the first line of FILE
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Take the first line that COMMAND prints as the new passphrase
    #[arg(long, value_name = "COMMAND")]
    pub new_passphrase_command: Option<OsString>,
    /// Use an existing file as the new key
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// Draw a new key and write it to FILE, which must not exist
    #[arg(long, value_name = "FILE")]
    pub generate_key_file: Option<PathBuf>,
    /// Draw a recovery code and print it, to be written down
    #[arg(long)]
    pub recovery_code: bool,
}

/// `key add`
#[derive(Debug, Args)]
pub struct KeyAddArgs {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// The new key's name
    pub slot: String,
    /// What to call it for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub label: String,
    /// Its secret.
    #[command(flatten)]
    pub secret: NewSecretArgs,
    /// Cost of guessing it.
    #[command(flatten)]
    pub kdf: KdfArgs,
}

/// `key passwd`
#[derive(Debug, Args)]
pub struct KeyPasswdArgs {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// The key's name
    #[arg(default_value = "default")]
    pub slot: String,
    /// Its new secret.
    #[command(flatten)]
    pub secret: NewSecretArgs,
    /// Cost of guessing it.
    #[command(flatten)]
    pub kdf: KdfArgs,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_follow_the_command() {
        let cli = Cli::try_parse_from(["vellum", "snapshots", "/r", "--json", "--key-file", "k"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.secret.key_file, Some("k".into()));
    }

    #[test]
    fn nothing_on_the_command_line_takes_a_passphrase() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_long().unwrap_or_default();
                assert!(!name.ends_with("passphrase"), "{name} would put a secret on the command line");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
