//! Rules of names, and the case folding under which directory entries are hashed.
//!
//! *Invariants*
//! 1. A name is 1 to 255 bytes without `/` and 0, and is neither `.` nor `..`; any other bytes are allowed, so what any
//!    Unix tree holds can be kept. Rules of one front end (such as Windows' reserved names) are that front end's.
//! 2. Folding never changes: it decides where an entry is stored.

use std::borrow::Cow;

use crate::error::{Error, Object, Result};

mod fold;

/// Longest name of a directory entry.
pub const NAME_BYTES_MAX: usize = 255;

/// Refuses what cannot be the name of a directory entry.
pub fn check(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong(Object::Text(String::from_utf8_lossy(name).into_owned())));
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&b| b == 0 || b == b'/') {
        return Err(Error::InvalidArgument(Object::Text(format!("name {:?}", String::from_utf8_lossy(name)))));
    }
    Ok(())
}

/// The case-folded form of a name: each character of the basic multilingual plane becomes its simple upper case, every
/// other character and every byte that is not UTF-8 stays.
pub fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    if name.is_ascii() {
        return match name.iter().any(u8::is_ascii_lowercase) {
            true => Cow::Owned(name.to_ascii_uppercase()),
            false => Cow::Borrowed(name),
        };
    }
    let mut folded = Vec::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            folded.extend_from_slice(fold_char(c).encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(folded)
}

/// Whether two names differ in case only, or not at all.
pub fn same_folded(a: &[u8], b: &[u8]) -> bool {
    a == b || fold(a) == fold(b)
}

fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let Ok(code) = u16::try_from(u32::from(c)) else {
        return c;
    };
    let at = fold::RANGES.partition_point(|&(first, ..)| first <= code);
    let Some(&(first, last, step, delta)) = at.checked_sub(1).and_then(|at| fold::RANGES.get(at)) else {
        return c;
    };
    if code > last || !(code - first).is_multiple_of(step.into()) {
        return c;
    }
    u32::try_from(i32::from(code) + delta).ok().and_then(char::from_u32).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_fold_table_is_the_one_of_the_format() {
        let mut bytes = Vec::new();
        for code in 0..=0xffff {
            if let Some(c) = char::from_u32(code) {
                bytes.extend_from_slice(&u32::from(fold_char(c)).to_le_bytes());
            }
        }
        let hash = blake3::hash(&bytes).to_hex();
        assert_eq!(hash.as_str(), "8c6bcb27c3104b4600ea93080d146423a7f42ebe99184f003768bd53c5c2b597");
    }

    #[test]
    fn the_ranges_are_in_order_and_apart() {
        assert!(fold::RANGES.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(fold::RANGES.iter().all(|&(first, last, step, delta)| first <= last && step > 0 && delta != 0));
    }

    #[test]
    fn folding_knows_scripts_and_leaves_the_rest_alone() {
        for (name, folded) in [
            ("readme.TXT", "README.TXT"),
            ("straße", "STRAßE"),
            ("ÿ", "Ÿ"),
            ("żółć", "ŻÓŁĆ"),
            ("ω", "Ω"),
            ("日本", "日本"),
            ("😀a", "😀A"),
        ] {
            assert_eq!(fold(name.as_bytes()), folded.as_bytes(), "{name}");
        }
        assert_eq!(fold(b"a\xff\xc3b\xc3"), &b"A\xff\xc3B\xc3"[..]);
        assert!(same_folded("Äpfel".as_bytes(), "äPFEL".as_bytes()));
        assert!(!same_folded(b"a", b"b"));
    }

    #[test]
    fn names_that_no_directory_can_hold_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(matches!(check(bad), Err(Error::InvalidArgument(_))), "{bad:?}");
        }
        assert!(matches!(check(&[b'x'; 256]), Err(Error::NameTooLong(_))));
        for good in [&b"..."[..], b"\xff\xfe", b" ", &[b'x'; 255]] {
            assert!(check(good).is_ok());
        }
    }
}
