//! Printing results: for people, or as JSON.
//!
//! *Invariants*
//! 1. Standard output carries results only; notes, progress and errors go to standard error.
//! 2. What came from a name is escaped before a terminal sees it: a file name must not drive the terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use vellum_fs::time::Time;

use crate::error::{Error, Result};

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
}

impl Output {
    /// Prints a result: as one JSON document, or as `human` writes it.
    pub fn print<T: Serialize>(self, value: &T, human: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        self.write(|out| match self.json {
            true => {
                serde_json::to_writer_pretty(&mut *out, value)?;
                writeln!(out)
            }
            false => human(out),
        })
    }

    /// Writes to standard output, whole.
    pub fn write(self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        write(&mut out).and_then(|()| out.flush()).map_err(output_error)
    }
}

/// The error of a failed write to standard output.
pub fn output_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::io("write to standard output", error),
    }
}

/// Tells people something beside the result.
pub fn note(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "note: {}", escaped(text.as_bytes()));
}

/// A name as a terminal may see it: control characters and what is no UTF-8 are escaped.
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A name as it is printed: escaped on a terminal, byte for byte elsewhere.
pub fn printed(name: &[u8]) -> Cow<'_, [u8]> {
    match io::stdout().is_terminal() {
        true => Cow::Owned(escaped(name).into_bytes()),
        false => Cow::Borrowed(name),
    }
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count and the word for it.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time for people, in their zone, to the second.
pub fn local_time(time: Time) -> String {
    match Timestamp::new(time.sec, 0) {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.sec.to_string(),
    }
}

/// A time for programs: RFC 3339 with nanoseconds, in UTC.
pub fn exact_time(time: Time) -> String {
    match Timestamp::new(time.sec, time.nsec as i32) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        Err(_) => format!("{}.{:09}", time.sec, time.nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_rounded_to_the_largest_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(escaped(b"plain \xc3\xa4"), "plain \u{e4}");
        assert_eq!(escaped(b"\x1b[2J\n\xff"), "\\u{1b}[2J\\n\\xff");
    }

    #[test]
    fn exact_times_keep_their_nanoseconds() {
        let at = Time { sec: 1_795_292_246, nsec: 7 };
        assert_eq!(exact_time(at), "2026-11-21T20:17:26.000000007Z");
        assert_eq!(exact_time(Time { sec: -1, nsec: 500_000_000 }), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(exact_time(Time { sec: i64::MAX, nsec: 0 }), format!("{}.000000000", i64::MAX));
    }
}
