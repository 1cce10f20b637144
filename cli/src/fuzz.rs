//! What the fuzz targets of tests/fuzz call: what people, mount(8) and other processes write, as the program reads it.
//!
//! *Invariants*: the seeds are what is meant to be understood, and every seed is.
//!
//! *Not here*: running them (`tests/fuzz`, `scripts/fuzz`); instants (`fuzz` in the filesystem).

use std::ffi::{OsStr, OsString};

use clap::Parser;
use vellum_fs::{fuse::MountOptions, volume::VolumeOptions};
use vellum_fuzzing::Target;
use vellum_store::{crypto::SlotName, id::VolumeName};

use crate::{
    args::{Cli, Command},
    commands::init,
    control::{Answer, Request, read_line, write_line},
    error::Exit,
    mount::{
        helper::{Called, called},
        options::Options,
    },
    output::escaped,
    reports::{CheckReport, GcReport, Name, SnapshotReport, StatsReport, StatusReport},
    secret,
    target::{Inside, Source, os_str},
};

/// All targets of this package.
pub const TARGETS: &[Target] = &[
    Target { name: "arguments", run: arguments, seeds: arguments_seeds },
    Target { name: "options", run: options, seeds: options_seeds },
    Target { name: "target", run: target, seeds: target_seeds },
    Target { name: "control", run: control, seeds: control_seeds },
];

/// A command line: the words, each ended by a zero byte. The first one is the name of the program.
fn arguments(data: &[u8]) -> bool {
    let words: Vec<OsString> = data.split(|&byte| byte == 0).map(os_str).collect();
    let read = match called(&words) {
        Ok(Called::Vellum) => Cli::try_parse_from(&words),
        Ok(Called::Helper(cli)) => Ok(*cli),
        Ok(Called::Fake) => return true,
        Err(error) => Err(error),
    };
    match read {
        Ok(cli) => {
            if let Command::Mount(mount) = &cli.command {
                let _ = Options::parse(mount.options.iter().map(OsString::as_os_str), mount.sloppy);
            }
            true
        }
        Err(error) => {
            // What is told has to be put together, too.
            let _ = error.render().to_string();
            false
        }
    }
}

fn arguments_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "vellum init /repo --slot laptop --label L --chunks large --compression -3",
        "vellum mount /repo#work /mnt -o ro,allow_other,cache=64M -f --create",
        "vellum umount -l /mnt --json",
        "vellum snapshot /mnt monday -m text -vv",
        "vellum ls -lR /repo @-2h:/a --key-file k",
        "vellum restore /repo latest:/a --to /x --force -n",
        "vellum gc /repo --max-unused 5",
        "vellum key add /repo second --generate-key-file k --kdf-memory-kib 65536",
        "vellum delete /repo a b --as-copy",
        "mount.fuse.vellum /repo#work /mnt -sn -o rw,noauto -t fuse.vellum",
        "umount.fuse.vellum /mnt -l -t fuse.vellum",
    ];
    lines.iter().map(|line| line.replace(' ', "\0").into_bytes()).collect()
}

/// A byte for sloppiness, then options.
fn options(data: &[u8]) -> bool {
    let Some((&first, text)) = data.split_first() else { return false };
    let options = match Options::parse([os_str(text).as_os_str()], first & 1 != 0) {
        Ok(options) => options,
        Err(error) => {
            assert!(!error.report().to_string().is_empty());
            return false;
        }
    };
    let name = VolumeName::new("main").expect("the name keeps the rules");
    let (mut volume, mut mount) = (VolumeOptions::new(name), MountOptions::new("/mnt".into(), "/repo".into()));
    options.apply_to_volume(&mut volume);
    options.apply_to_mount(&mut mount);
    assert!(mount.threads <= 64 && volume.dirty_bytes_max >= 8 << 20);
    assert!((1..=255).contains(&volume.snapdir_name.len()) && !volume.snapdir_name.contains(&b'/'));
    assert!([volume.checkpoint_quiet, volume.checkpoint_max_wait].iter().all(|wait| wait.as_secs() <= 86_400));
    true
}

fn options_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "rw,noauto,user,exec,nofail,_netdev,x-systemd.automount,allow_other,key-file=/etc/vellum.key",
        "cache=256M,dirty=33554432,version-quiet=2,version-max-wait=30,threads=4,snapdir=visible,snap-admin=1000",
        "passphrase-command=printf a\\,b\\\\,ro,volume=work,snapdir-name=.past,journal=/j,log=/l",
        "passphrase-file=/p,relatime,suid,dev,nonempty,writeback,allow_root,comment=x",
    ];
    let strict = texts.iter().map(|text| [&[0], text.as_bytes()].concat());
    strict.chain([b"\x01unknown,ro,other=5".to_vec()]).collect()
}

/// What stands for a repository, a volume, a snapshot, a path in it, a slot, a level.
fn target(data: &[u8]) -> bool {
    let text = os_str(data);
    let lossy = String::from_utf8_lossy(data);
    let _ = (SlotName::new(&lossy), init::compression(&lossy));
    if let Ok(source) = Source::parse(&text) {
        let whole = source.path.as_os_str() == text;
        assert!(whole || text.len() == source.path.as_os_str().len() + 1 + source.volume.as_str().len());
    }
    // What was typed reaches the terminal in messages.
    assert!(!escaped(data).chars().any(char::is_control));
    let Ok(inside) = Inside::parse(OsStr::new(&text)) else { return false };
    assert!(!inside.snapshot.is_empty() && data.starts_with(&inside.snapshot));
    assert!(inside.snapshot.starts_with(b"@") || !inside.snapshot.contains(&b':'));
    let plain = |name: &Vec<u8>| !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
    assert!(inside.names.iter().all(plain));
    true
}

fn target_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "monday:/a//b/./c:d",
        "@2026-11-20T14:05:/a",
        "@yesterday:docs/x",
        "@-2h",
        "latest",
        "/repo#work",
        "laptop-1",
        "-7",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What goes over the control socket, line by line, and the secret that comes through a pipe.
fn control(data: &[u8]) -> bool {
    let mut accepted = false;
    let mut from = data;
    while let Ok(Some(request)) = read_line::<Request>(&mut from) {
        accepted = true;
        let mut line = Vec::new();
        write_line(&mut line, &request).expect("memory takes everything");
        assert_eq!(read_line::<Request>(&mut &line[..]).ok().flatten(), Some(request));
    }
    from = data;
    while let Ok(Some(answer)) = read_line::<Answer>(&mut from) {
        accepted = true;
        write_line(&mut Vec::new(), &answer).expect("memory takes everything");
        match answer {
            Answer::Done(value) => read_reports(&value),
            Answer::Failed(report) => {
                assert!(report.exit as u8 > 0);
                assert!(!report.to_string().chars().any(|c| c.is_control() && c != '\n'));
            }
            _ => {}
        }
    }
    if let Ok(credential) = secret::receive(&mut &data[..]) {
        let mut pipe = Vec::new();
        secret::send(&credential, &mut pipe).expect("memory takes everything");
        assert_eq!(pipe, data);
    }
    accepted
}

/// All that a command may make of a result.
fn read_reports(value: &serde_json::Value) {
    use serde::Deserialize;
    let _ = StatusReport::deserialize(value);
    let _ = Vec::<SnapshotReport>::deserialize(value);
    let _ = StatsReport::deserialize(value);
    let _ = CheckReport::deserialize(value);
    let _ = GcReport::deserialize(value);
}

fn control_seeds() -> Vec<Vec<u8>> {
    let name = || Name(b"a\n\xff".to_vec());
    let requests = [
        Request::Status,
        Request::Snapshot { name: Some(name()), comment: "x\ny".into() },
        Request::Rename { name: name(), new_name: Name(b"b".to_vec()) },
        Request::Check { read_data: true, resume: true },
        Request::Gc { max_unused: Some(5), dry_run: true },
    ];
    let status = StatusReport {
        repository: Name(b"/repo".to_vec()),
        volume: "main".into(),
        mountpoint: name(),
        pid: 7,
        started: 1_700_000_000,
        read_only: false,
        health: "good".into(),
        trouble: None,
        dirty_bytes: 5,
        changes: 1,
        head: 3,
        checkpoint: Some(1_700_000_000),
        free_bytes: 1 << 40,
        total_bytes: 1 << 41,
        notes: vec!["a note".into()],
    };
    let report = crate::error::Report { exit: Exit::NotFound, message: "no".into(), hint: Some("look".into()) };
    let status = serde_json::to_value(status).expect("every report has a form in JSON");
    let answers = [Answer::Waiting, Answer::Busy, Answer::Done(status), Answer::Failed(report)];
    let line = |value: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut line = Vec::new();
        value(&mut line).expect("memory takes everything");
        line
    };
    let asked = requests.iter().map(|request| line(&|to| write_line(to, request)));
    asked.chain(answers.iter().map(|answer| line(&|to| write_line(to, answer)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_to_be_understood_is_accepted_by_every_target() {
        vellum_fuzzing::check_seeds(TARGETS);
    }

    #[test]
    fn every_input_that_is_kept_for_a_target_passes() {
        vellum_fuzzing::check_kept(TARGETS);
    }
}
