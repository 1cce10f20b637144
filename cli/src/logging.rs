//! The logger behind `log`: standard error, a file, or syslog.
//!
//! *Invariants*
//! 1. A line is one write, so that lines of several processes do not mix in a file opened for appending.
//! 2. A failed write is dropped: a log that cannot be written must not stop a filesystem.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

/// Where the lines go.
enum Sink {
    Stderr,
    File(File),
    #[cfg(unix)]
    Syslog(std::os::unix::net::UnixDatagram),
}

struct Logger {
    sink: RwLock<Sink>,
}

static LOGGER: Logger = Logger { sink: RwLock::new(Sink::Stderr) };

/// Syslog's "daemon" facility.
#[cfg(unix)]
const FACILITY_DAEMON: u8 = 3;
#[cfg(unix)]
const SYSLOG_SOCKET: &str = "/dev/log";

/// Starts logging to standard error: warnings, and more with each `-v`.
pub fn start(verbose: u8) {
    // A second call finds the same logger in place.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
}

/// Lets everything from [`Level::Info`] on through, as a process in the background should.
pub fn at_least_info() {
    log::set_max_level(log::max_level().max(LevelFilter::Info));
}

/// Whether people at the terminal see the lines as they come.
pub fn is_seen() -> bool {
    matches!(&*LOGGER.sink.read(), Sink::Stderr)
}

/// Logs to the end of a file from here on; only its owner can read it, since names of files may be in it.
pub fn to_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    *LOGGER.sink.write() = Sink::File(options.open(path)?);
    Ok(())
}

/// Logs to syslog from here on; false where there is none.
#[cfg(unix)]
pub fn to_syslog() -> bool {
    let connect = || {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.connect(SYSLOG_SOCKET)?;
        // A stuck syslog must not stop the filesystem.
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    match connect() {
        Ok(socket) => {
            *LOGGER.sink.write() = Sink::Syslog(socket);
            true
        }
        Err(_) => false,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What the FUSE crate says of single requests drowns everything else.
        let floor = if metadata.target().starts_with("fuser") { Level::Warn } else { Level::Trace };
        metadata.level() <= log::max_level() && metadata.level() <= floor
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_unclaimed_reply(record) {
            return;
        }
        let text = crate::output::escaped(record.args().to_string().as_bytes());
        let word = word(record.level());
        // Dropped on failure: see invariant 2.
        let _ = match &*self.sink.read() {
            Sink::Stderr => writeln_once(&mut io::stderr().lock(), format!("{word}: {text}\n")),
            Sink::File(file) => {
                let line = format!("{:.3} vellum[{}] {word}: {text}\n", Timestamp::now(), std::process::id());
                writeln_once(&mut &*file, line)
            }
            #[cfg(unix)]
            Sink::Syslog(socket) => {
                let priority = FACILITY_DAEMON << 3 | severity(record.level());
                socket.send(format!("<{priority}>vellum[{}]: {text}", std::process::id()).as_bytes()).map(|_| ())
            }
        };
    }

    fn flush(&self) {}
}

/// Whether the FUSE crate only says that nobody waits for a reply any more: the mount was taken away meanwhile.
fn is_unclaimed_reply(record: &Record<'_>) -> bool {
    const SENDING: &str = "Failed to send FUSE reply: ";
    let unclaimed = [libc::ENOENT, libc::ENODEV].map(io::Error::from_raw_os_error);
    record.target().starts_with("fuser")
        && unclaimed.iter().any(|error| record.args().to_string().strip_prefix(SENDING) == Some(&error.to_string()))
}

fn writeln_once(out: &mut dyn Write, line: String) -> io::Result<()> {
    out.write_all(line.as_bytes())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(unix)]
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_requests_of_the_fuse_crate_stay_out_of_the_log() {
        start(9);
        let about = |target, level| LOGGER.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(!about("fuser::request", Level::Debug));
        assert!(about("fuser::session", Level::Warn));
        assert!(about("vellum_fs::volume", Level::Debug));
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_no_news() {
        let unclaimed = |target, text: &str| {
            is_unclaimed_reply(&Record::builder().target(target).args(format_args!("{text}")).build())
        };
        assert!(unclaimed("fuser::reply", "Failed to send FUSE reply: No such file or directory (os error 2)"));
        assert!(!unclaimed("fuser::reply", "Failed to send FUSE reply: Invalid argument (os error 22)"));
        assert!(!unclaimed("vellum_fs", "Failed to send FUSE reply: No such file or directory (os error 2)"));
    }
}
