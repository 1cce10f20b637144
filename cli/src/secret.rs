//! Where secrets come from: options, the environment, a command, a prompt.
//!
//! *Invariants*
//! 1. No secret is ever an argument, and none is passed on in the environment of a process that is started here.
//! 2. Exactly one source is used. Two that contradict each other are an error, because guessing which was meant could
//!    make a key slot that nobody can open.
//! 3. What holds a secret is zeroized when it is dropped.
//!
//! *Bounds*: a passphrase and a key file are read up to one byte more than the store allows.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use vellum_store::crypto::{Credential, KEY_FILE_LENGTH_MAX, PASSPHRASE_LENGTH_MAX, generate_key_file};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    args::{NewSecretArgs, SecretArgs},
    error::{Error, Result},
};

/// The variables that hold or lead to the present secret.
pub const VARIABLES: [&str; 4] =
    ["VELLUM_PASSPHRASE", "VELLUM_PASSPHRASE_FILE", "VELLUM_PASSPHRASE_COMMAND", "VELLUM_KEY_FILE"];
/// The same for a secret that is to be set.
const VARIABLES_NEW: [&str; 4] =
    ["VELLUM_NEW_PASSPHRASE", "VELLUM_NEW_PASSPHRASE_FILE", "VELLUM_NEW_PASSPHRASE_COMMAND", "VELLUM_NEW_KEY_FILE"];

/// One place that a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The variable itself.
    Variable(&'static str),
    PassphraseFile(PathBuf),
    PassphraseCommand(OsString),
    KeyFile(PathBuf),
    Prompt,
}

/// Finds the present secret.
pub fn credential(args: &SecretArgs, prompt: &str) -> Result<Credential> {
    let given = [
        args.passphrase_file.clone().map(|path| ("--passphrase-file", Source::PassphraseFile(path))),
        args.passphrase_command.clone().map(|command| ("--passphrase-command", Source::PassphraseCommand(command))),
        args.key_file.clone().map(|path| ("--key-file", Source::KeyFile(path))),
    ];
    read(choose(given.into_iter().flatten().collect(), VARIABLES, env::var_os)?, prompt, false)
}

/// Finds the secret for something that is made: a prompt asks for it twice.
pub fn credential_to_set(args: &SecretArgs, prompt: &str) -> Result<Credential> {
    let given = [
        args.passphrase_file.clone().map(|path| ("--passphrase-file", Source::PassphraseFile(path))),
        args.passphrase_command.clone().map(|command| ("--passphrase-command", Source::PassphraseCommand(command))),
        args.key_file.clone().map(|path| ("--key-file", Source::KeyFile(path))),
    ];
    let credential = read(choose(given.into_iter().flatten().collect(), VARIABLES, env::var_os)?, prompt, true)?;
    credential.check()?;
    Ok(credential)
}

/// Finds the secret of a key slot that is added or changed. A recovery code is told to `show`.
pub fn new_credential(args: &NewSecretArgs, show: &mut dyn FnMut(&str)) -> Result<Credential> {
    if args.recovery_code {
        let code = vellum_store::crypto::generate_recovery_code();
        show(&code);
        return Ok(Credential::RecoveryCode(code));
    }
    if let Some(path) = &args.generate_key_file {
        return write_key_file(path).map(Credential::KeyFile);
    }
    let given = [
        args.new_passphrase_file.clone().map(|path| ("--new-passphrase-file", Source::PassphraseFile(path))),
        args.new_passphrase_command
            .clone()
            .map(|command| ("--new-passphrase-command", Source::PassphraseCommand(command))),
        args.new_key_file.clone().map(|path| ("--new-key-file", Source::KeyFile(path))),
    ];
    let source = choose(given.into_iter().flatten().collect(), VARIABLES_NEW, env::var_os)?;
    let credential = read(source, "New passphrase", true)?;
    credential.check()?;
    Ok(credential)
}

/// A command for a process that must not inherit a secret.
pub fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in [VARIABLES[0], VARIABLES_NEW[0]] {
        command.env_remove(variable);
    }
    command
}

/// The one source that is meant: an option, else a variable, else the prompt.
fn choose(
    mut given: Vec<(&'static str, Source)>,
    variables: [&'static str; 4],
    lookup: impl Fn(&'static str) -> Option<OsString>,
) -> Result<Source> {
    if given.is_empty() {
        for (at, variable) in variables.into_iter().enumerate() {
            let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else { continue };
            let source = match at {
                0 => Source::Variable(variable),
                1 => Source::PassphraseFile(value.into()),
                2 => Source::PassphraseCommand(value),
                _ => Source::KeyFile(value.into()),
            };
            given.push((variable, source));
        }
    }
    match given.len() {
        0 => Ok(Source::Prompt),
        1 => Ok(given.remove(0).1),
        _ => {
            let names: Vec<_> = given.iter().map(|(name, _)| *name).collect();
            let message = format!("{} are given at the same time", names.join(" and "));
            Err(Error::usage(message, "leave only one of them"))
        }
    }
}

fn read(source: Source, prompt: &str, twice: bool) -> Result<Credential> {
    match source {
        Source::Variable(name) => {
            let value = env::var_os(name).unwrap_or_default().into_encoded_bytes();
            passphrase(Zeroizing::new(value), name)
        }
        Source::PassphraseFile(path) => {
            let what = format!("passphrase file {}", path.display());
            let bytes = read_file(&path, &what, PASSPHRASE_LENGTH_MAX)?;
            passphrase(first_line(bytes), &what)
        }
        Source::PassphraseCommand(command) => run_command(&command),
        Source::KeyFile(path) => {
            let what = format!("key file {}", path.display());
            warn_if_readable_by_others(&path);
            read_file(&path, &what, KEY_FILE_LENGTH_MAX).map(Credential::KeyFile)
        }
        Source::Prompt => ask(prompt, twice),
    }
}

fn passphrase(bytes: Zeroizing<Vec<u8>>, what: &str) -> Result<Credential> {
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Error::usage(format!("{what} is not UTF-8 text"), "use a key file for a secret of arbitrary bytes")
    })?;
    if text.is_empty() {
        return Err(Error::usage(format!("{what} is empty"), "put the passphrase on its first line"));
    }
    Ok(Credential::Passphrase(Zeroizing::new(text.to_string())))
}

/// Everything before the first end of line.
fn first_line(bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn read_file(path: &Path, what: &str, length_max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(|error| Error::io(format!("open {what}"), error))?;
    read_bounded(file, what, length_max)
}

/// Reads into one buffer that never moves, so that no copy of the secret stays behind.
fn read_bounded(mut from: impl Read, what: &str, length_max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; length_max + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match from.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(format!("read {what}"), error)),
        }
    }
    if length > length_max {
        return Err(Error::usage(
            format!("{what} is longer than {length_max} bytes"),
            "check that it is the right one",
        ));
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn run_command(command: &OsStr) -> Result<Credential> {
    const WHAT: &str = "the passphrase command";
    let failed = |error| Error::io(format!("run {WHAT}"), error);
    let mut process = clean_command("/bin/sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = process
        .stdout
        .take()
        .map(|pipe| read_bounded(pipe, "what the passphrase command prints", PASSPHRASE_LENGTH_MAX));
    let status = process.wait().map_err(failed)?;
    if !status.success() {
        let message = format!("{WHAT} failed: {status}");
        return Err(Error::refused(message, "run it by itself to see why; its first line of output is the passphrase"));
    }
    passphrase(first_line(output.transpose()?.unwrap_or_default()), "the output of the passphrase command")
}

fn ask(prompt: &str, twice: bool) -> Result<Credential> {
    let no_terminal = |error: std::io::Error| {
        let hint =
            "set VELLUM_PASSPHRASE_FILE, VELLUM_PASSPHRASE_COMMAND or VELLUM_KEY_FILE, or the options of those names";
        Error::usage(format!("no passphrase was given, and there is no terminal to ask for it ({error})"), hint)
    };
    let first = Zeroizing::new(rpassword::prompt_password(format!("{prompt}: ")).map_err(no_terminal)?);
    if twice {
        let second = Zeroizing::new(rpassword::prompt_password(format!("{prompt}, again: ")).map_err(no_terminal)?);
        if *first != *second {
            return Err(Error::usage("the two passphrases differ", "try again"));
        }
    }
    if first.is_empty() {
        return Err(Error::usage("the passphrase is empty", "try again"));
    }
    Ok(Credential::Passphrase(first))
}

/// Draws a key and writes it to a file that must not exist, readable by its owner only.
fn write_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let key = generate_key_file();
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o400);
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(&key)?;
        // The slot that needs it must never be durable without it.
        file.sync_all()?;
        if let Some(dir) = path.parent() {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            File::open(dir)?.sync_all()?;
        }
        std::io::Result::Ok(())
    };
    match write() {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::refused(
            format!("key file {} exists already", path.display()),
            "choose another name, or add the existing file with --new-key-file",
        )),
        Err(error) => Err(Error::io(format!("write key file {}", path.display()), error)),
    }
}

fn warn_if_readable_by_others(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path)
        && std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0
        && std::io::stderr().is_terminal()
    {
        log::warn!("key file {} can be read by others; `chmod 400` it", path.display());
    }
}

/// Number of the kind of a credential, for handing it to a process that was started by this one.
const WIRE_PASSPHRASE: u8 = 1;
const WIRE_KEY_FILE: u8 = 2;
const WIRE_RECOVERY: u8 = 3;

/// Hands a secret over through a pipe.
pub fn send(credential: &Credential, to: &mut dyn Write) -> std::io::Result<()> {
    let (kind, bytes) = match credential {
        Credential::Passphrase(text) => (WIRE_PASSPHRASE, text.as_bytes()),
        Credential::KeyFile(bytes) => (WIRE_KEY_FILE, &bytes[..]),
        Credential::RecoveryCode(text) => (WIRE_RECOVERY, text.as_bytes()),
    };
    to.write_all(&[kind])?;
    to.write_all(bytes)?;
    to.flush()
}

/// Takes a secret that [`send`] handed over; the pipe's end ends it.
pub fn receive(from: &mut dyn Read) -> Result<Credential> {
    const WHAT: &str = "the secret from the calling process";
    let bytes = read_bounded(from, WHAT, KEY_FILE_LENGTH_MAX + 1)?;
    let (&kind, secret) = bytes
        .split_first()
        .ok_or_else(|| Error::usage(format!("{WHAT} is missing"), "run `vellum mount` without --child"))?;
    let text = || std::str::from_utf8(secret).map(|text| Zeroizing::new(text.to_string()));
    let malformed = || Error::usage(format!("{WHAT} is malformed"), "run `vellum mount` without --child");
    match kind {
        WIRE_PASSPHRASE => Ok(Credential::Passphrase(text().map_err(|_| malformed())?)),
        WIRE_KEY_FILE => Ok(Credential::KeyFile(Zeroizing::new(secret.to_vec()))),
        WIRE_RECOVERY => Ok(Credential::RecoveryCode(text().map_err(|_| malformed())?)),
        _ => Err(malformed()),
    }
}

/// A copy of a secret, for when it opens what was just made with it.
pub fn duplicate(credential: &Credential) -> Credential {
    match credential {
        Credential::Passphrase(text) => Credential::Passphrase(text.clone()),
        Credential::KeyFile(bytes) => Credential::KeyFile(bytes.clone()),
        Credential::RecoveryCode(text) => Credential::RecoveryCode(text.clone()),
    }
}

/// What was typed as a passphrase, taken for a recovery code, if it looks like one.
pub fn as_recovery_code(credential: &Credential) -> Option<Credential> {
    let Credential::Passphrase(text) = credential else { return None };
    let mut text = text.trim().to_string();
    let code = Credential::RecoveryCode(Zeroizing::new(text.clone()));
    text.zeroize();
    code.check().is_ok().then_some(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chosen(variables: &[(&'static str, &str)], given: Vec<(&'static str, Source)>) -> Result<Source> {
        choose(given, VARIABLES, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn an_option_wins_over_the_environment() {
        let option = Source::KeyFile("k".into());
        let source = chosen(&[("VELLUM_PASSPHRASE", "x")], vec![("--key-file", option.clone())]).unwrap();
        assert_eq!(source, option);
    }

    #[test]
    fn two_sources_of_one_rank_are_refused_and_named() {
        let error = chosen(&[("VELLUM_PASSPHRASE", "hush"), ("VELLUM_KEY_FILE", "k")], vec![]).unwrap_err();
        let text = error.report().to_string();
        assert!(text.contains("VELLUM_PASSPHRASE and VELLUM_KEY_FILE"), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(chosen(&[("VELLUM_PASSPHRASE", "")], vec![]).unwrap(), Source::Prompt);
    }

    #[test]
    fn only_the_first_line_counts_and_other_blanks_stay() {
        let line = |text: &[u8]| first_line(Zeroizing::new(text.to_vec())).to_vec();
        assert_eq!(line(b"a b \nmore\n"), b"a b ");
        assert_eq!(line(b"win\r\n"), b"win");
        assert_eq!(line(b"bare"), b"bare");
    }

    #[test]
    fn a_secret_survives_the_pipe() {
        for credential in [
            Credential::Passphrase(Zeroizing::new("correct horse".to_string())),
            Credential::KeyFile(Zeroizing::new(vec![0, 255, 10, 13])),
            Credential::RecoveryCode(vellum_store::crypto::generate_recovery_code()),
        ] {
            let mut pipe = Vec::new();
            send(&credential, &mut pipe).unwrap();
            let back = receive(&mut &pipe[..]).unwrap();
            let mut again = Vec::new();
            send(&back, &mut again).unwrap();
            assert_eq!(pipe, again);
        }
        assert!(receive(&mut &b""[..]).is_err());
        assert!(receive(&mut &b"\x09x"[..]).is_err());
        assert!(receive(&mut &b"\x01\xff"[..]).is_err());
    }

    #[test]
    fn a_passphrase_command_gives_its_first_line() {
        let got = run_command(OsStr::new("printf 'one\\ntwo\\n'")).unwrap();
        let Credential::Passphrase(text) = got else { panic!("another kind") };
        assert_eq!(*text, "one");
        let failed = run_command(OsStr::new("echo secret-output; exit 3")).unwrap_err();
        assert!(!failed.report().to_string().contains("secret-output"));
    }

    #[test]
    fn an_overlong_secret_is_refused_before_it_is_kept() {
        let error = read_bounded(std::io::repeat(b'x'), "the thing", 10).unwrap_err();
        assert!(error.to_string().contains("longer than 10 bytes"), "{error}");
    }

    #[test]
    fn a_generated_key_file_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = write_key_file(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), *key);
        assert!(write_key_file(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), *key);
    }

    #[test]
    fn a_recovery_code_is_recognised_and_a_passphrase_is_not() {
        let code = vellum_store::crypto::generate_recovery_code();
        let typed = Credential::Passphrase(Zeroizing::new(format!(" {} ", *code)));
        assert!(matches!(as_recovery_code(&typed), Some(Credential::RecoveryCode(_))));
        let typed = Credential::Passphrase(Zeroizing::new("correct horse battery staple".to_string()));
        assert!(as_recovery_code(&typed).is_none());
    }
}
