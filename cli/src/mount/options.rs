//! The options behind `-o`, as people and fstab write them.
//!
//! *Format*: separated by commas; `\,` is a comma and `\\` a backslash inside a value. A later option wins over an earlier one.
//!
//! *Invariants*: an option that is not known is an error, unless it is one that mount(8) passes for its own use: a misspelt
//! option must not be taken for its default.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use vellum_fs::{fuse::MountOptions, volume::VolumeOptions};
use vellum_store::id::VolumeName;

use crate::{
    args::SecretArgs,
    error::{Error, Result},
    target::os_str,
};

/// What mount(8), fstab and systemd pass that says nothing to a filesystem.
const IGNORED: [&str; 21] = [
    "defaults",
    "auto",
    "noauto",
    "nouser",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "async",
    "nodiratime",
    "diratime",
    "nostrictatime",
    "nolazytime",
    "default_permissions",
    "silent",
    "loud",
    "nomand",
    "atime",
    "symfollow",
    "iversion",
    "noiversion",
];
/// And such that begin like this.
const IGNORED_PREFIXES: [&str; 6] = ["x-", "X-", "comment=", "subtype=", "fsname=", "uhelper="];

const OPTIONS_HINT: &str = "`vellum mount --help` lists the options";

/// Smallest cache and dirty memory that work.
const MEMORY_MIN: u64 = 8 << 20;
/// Most threads that receive requests.
const THREADS_MAX: u64 = 64;
/// Longest wait for a checkpoint, in seconds.
const WAIT_MAX: u64 = 86_400;

/// What `-o` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `ro`
    pub read_only: bool,
    /// `allow_other`
    pub allow_other: bool,
    /// `allow_root`
    pub allow_root: bool,
    /// `suid`
    pub suid: bool,
    /// `dev`
    pub dev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `relatime`
    pub relatime: bool,
    /// `nonempty`
    pub nonempty: bool,
    /// `writeback`
    pub writeback: bool,
    /// `snapdir=visible`
    pub snapdir_visible: bool,
    /// `snapdir-name=`
    pub snapdir_name: Option<Vec<u8>>,
    /// `snap-admin=`
    pub snap_admin: Option<u32>,
    /// `volume=`
    pub volume: Option<VolumeName>,
    /// `passphrase-file=`, `passphrase-command=`, `key-file=`
    pub secret: SecretArgs,
    /// `cache=`
    pub cache_bytes: Option<u64>,
    /// `dirty=`
    pub dirty_bytes: Option<u64>,
    /// `journal=`
    pub journal: Option<PathBuf>,
    /// `version-quiet=`
    pub version_quiet: Option<Duration>,
    /// `version-max-wait=`
    pub version_max_wait: Option<Duration>,
    /// `threads=`
    pub threads: usize,
    /// `log=`
    pub log: Option<PathBuf>,
}

impl Options {
    /// Reads any number of `-o` arguments. With `sloppy`, what is not known is passed over.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a OsStr>, sloppy: bool) -> Result<Self> {
        let mut options = Self::default();
        for text in texts {
            for option in split(text.as_encoded_bytes()) {
                match options.set(&option) {
                    Err(Unset::Unknown) if sloppy => {}
                    Err(Unset::Unknown) => {
                        let message = format!("unknown mount option {:?}", String::from_utf8_lossy(&option));
                        return Err(Error::usage(message, OPTIONS_HINT));
                    }
                    Err(Unset::Failed(error)) => return Err(error),
                    Ok(()) => {}
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, option: &[u8]) -> Result<(), Unset> {
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let name = String::from_utf8_lossy(name);
        match value {
            Some(value) => self.set_value(&name, value, option),
            None => self.set_flag(&name),
        }
    }

    fn set_flag(&mut self, name: &str) -> Result<(), Unset> {
        // fstab's `user` implies noexec unless exec follows; nosuid and nodev are the defaults here anyway.
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "allow_root" => self.allow_root = true,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "noexec" | "user" | "users" => self.noexec = true,
            "exec" => self.noexec = false,
            "relatime" => self.relatime = true,
            "noatime" | "norelatime" => self.relatime = false,
            "nonempty" => self.nonempty = true,
            "writeback" => self.writeback = true,
            "strictatime" | "lazytime" | "sync" | "dirsync" | "mand" | "remount" | "bind" | "rbind" | "move" => {
                let message = format!("mount option {name} is not supported");
                return Err(Unset::Failed(Error::usage(message, OPTIONS_HINT)));
            }
            _ if IGNORED.contains(&name) || is_ignored(name) => {}
            _ => return Err(Unset::Unknown),
        }
        Ok(())
    }

    fn set_value(&mut self, name: &str, value: &[u8], option: &[u8]) -> Result<(), Unset> {
        let text = || String::from_utf8_lossy(value).into_owned();
        let path = || absolute(name, value).map(Some);
        let bad =
            |what: &str| Unset::Failed(Error::usage(format!("mount option {name}={}: {what}", text()), OPTIONS_HINT));
        match name {
            "snapdir" => {
                self.snapdir_visible = match value {
                    b"visible" => true,
                    b"hidden" => false,
                    _ => return Err(bad("use hidden or visible")),
                }
            }
            "snapdir-name" => {
                if value.is_empty() || value.len() > 255 || value.contains(&b'/') || value == b"." || value == b".." {
                    return Err(bad("use a file name of 1 to 255 bytes"));
                }
                self.snapdir_name = Some(value.to_vec());
            }
            "snap-admin" => self.snap_admin = Some(text().parse().map_err(|_| bad("use a user id"))?),
            "volume" => self.volume = Some(VolumeName::new(&text()).map_err(|error| Unset::Failed(error.into()))?),
            "passphrase-file" => self.secret.passphrase_file = path()?,
            "passphrase-command" => self.secret.passphrase_command = Some(os_str(value)),
            "key-file" => self.secret.key_file = path()?,
            "cache" => self.cache_bytes = Some(size(value).ok_or_else(|| bad("use a size such as 256M, 8M at least"))?),
            "dirty" => self.dirty_bytes = Some(size(value).ok_or_else(|| bad("use a size such as 256M, 8M at least"))?),
            "journal" => self.journal = path()?,
            "version-quiet" => self.version_quiet = Some(seconds(value).ok_or_else(|| bad("use seconds, 1 to 86400"))?),
            "version-max-wait" => {
                self.version_max_wait = Some(seconds(value).ok_or_else(|| bad("use seconds, 1 to 86400"))?)
            }
            "threads" => {
                let count = number(value).filter(|count| (1..=THREADS_MAX).contains(count));
                self.threads = count.ok_or_else(|| bad("use a number from 1 to 64"))? as usize;
            }
            "log" => self.log = path()?,
            // What mount(8) passes on of a user's mount.
            "user" => self.noexec = true,
            _ if is_ignored(&String::from_utf8_lossy(option)) => {}
            _ => return Err(Unset::Unknown),
        }
        Ok(())
    }

    /// Puts what concerns the volume into its options.
    pub fn apply_to_volume(&self, volume: &mut VolumeOptions) {
        volume.read_only = self.read_only;
        volume.relatime = self.relatime;
        volume.snapdir_visible = self.snapdir_visible;
        if let Some(name) = &self.snapdir_name {
            volume.snapdir_name.clone_from(name);
        }
        if let Some(uid) = self.snap_admin {
            volume.snapshot_admin = uid;
        }
        if let Some(bytes) = self.dirty_bytes {
            volume.dirty_bytes_max = bytes;
        }
        if let Some(quiet) = self.version_quiet {
            volume.checkpoint_quiet = quiet;
        }
        if let Some(wait) = self.version_max_wait {
            volume.checkpoint_max_wait = wait;
        }
    }

    /// Puts what concerns the mount into its options.
    pub fn apply_to_mount(&self, mount: &mut MountOptions) {
        mount.allow_other = self.allow_other;
        mount.allow_root = self.allow_root;
        mount.suid = self.suid;
        mount.dev = self.dev;
        mount.noexec = self.noexec;
        mount.read_only = self.read_only;
        mount.writeback_cache = self.writeback;
        mount.threads = self.threads;
    }
}

/// Why an option was not taken.
enum Unset {
    Unknown,
    Failed(Error),
}

impl From<Error> for Unset {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn is_ignored(option: &str) -> bool {
    IGNORED_PREFIXES.iter().any(|prefix| option.starts_with(prefix))
}

/// Cuts at commas that no backslash precedes.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let last = options.last_mut().expect("the list starts with one and only grows");
        match byte {
            b',' => options.push(Vec::new()),
            b'\\' => match bytes.next() {
                Some(&escaped @ (b',' | b'\\')) => last.push(escaped),
                Some(&other) => last.extend([b'\\', other]),
                None => last.push(b'\\'),
            },
            _ => last.push(byte),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}

/// A path in an option; made absolute, because the process that serves works in `/`.
fn absolute(name: &str, value: &[u8]) -> Result<PathBuf> {
    std::path::absolute(PathBuf::from(os_str(value)))
        .map_err(|error| Error::io(format!("mount option {name}: find {}", String::from_utf8_lossy(value)), error))
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn seconds(value: &[u8]) -> Option<Duration> {
    number(value).filter(|count| (1..=WAIT_MAX).contains(count)).map(Duration::from_secs)
}

/// A number of bytes, or of KiB, MiB or GiB behind which a letter stands.
fn size(value: &[u8]) -> Option<u64> {
    let (digits, shift) = match value.split_last()? {
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        _ => (value, 0),
    };
    let bytes = number(digits)?.checked_mul(1 << shift)?;
    Some(bytes).filter(|&bytes| bytes >= MEMORY_MIN && usize::try_from(bytes).is_ok_and(|bytes| bytes < usize::MAX / 4))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse([OsStr::new(text)], false)
    }

    #[test]
    fn an_fstab_line_is_understood() {
        let options =
            parse("rw,noauto,user,exec,nofail,_netdev,x-systemd.automount,allow_other,key-file=/etc/vellum.key")
                .unwrap();
        assert!(options.allow_other && !options.read_only && !options.noexec);
        assert_eq!(options.secret.key_file, Some("/etc/vellum.key".into()));
        assert_eq!(parse("defaults").unwrap(), Options::default());
        assert!(parse("user").unwrap().noexec, "as mount(8) says of user");
    }

    #[test]
    fn values_are_read_with_their_units() {
        let options = parse(
            "cache=256M,dirty=33554432,version-quiet=2,version-max-wait=30,threads=4,snapdir=visible,snap-admin=1000",
        )
        .unwrap();
        assert_eq!((options.cache_bytes, options.dirty_bytes), (Some(256 << 20), Some(32 << 20)));
        assert_eq!(options.version_quiet, Some(Duration::from_secs(2)));
        assert_eq!((options.threads, options.snap_admin), (4, Some(1000)));
        assert!(options.snapdir_visible);
    }

    #[test]
    fn a_comma_in_a_value_can_be_escaped() {
        let options = parse("passphrase-command=printf a\\,b\\\\,ro").unwrap();
        assert_eq!(options.secret.passphrase_command, Some("printf a,b\\".into()));
        assert!(options.read_only);
    }

    #[test]
    fn what_is_misspelt_is_refused_unless_sloppiness_is_asked_for() {
        for text in [
            "allow-other",
            "snapdir=maybe",
            "cache=lots",
            "cache=1",
            "threads=0",
            "snap-admin=me",
            "volume=A B",
            "cache",
            "remount",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.exit(), crate::error::Exit::Usage, "{text}");
        }
        assert!(Options::parse([OsStr::new("allow-other,ro")], true).unwrap().read_only);
    }

    #[test]
    fn the_last_word_counts() {
        assert!(!parse("ro,rw").unwrap().read_only);
        assert!(parse("rw,ro").unwrap().read_only);
        assert!(parse("exec,noexec").unwrap().noexec);
    }
}
