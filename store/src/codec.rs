//! Bounded little-endian reader and writer, the only way format modules touch bytes.
//!
//! *Invariants*
//! 1. A [`Reader`] never reads outside its slice and never allocates: what does not fit is [`Error::Corrupt`] naming the object.
//! 2. Whatever a [`Writer`] method wrote, the [`Reader`] method of the same name gives back.
//! 3. Variable-length integers have one encoding: a padded LEB128 is refused, so that equal values have equal bytes.
//!
//! *Bounds*: lengths read from the bytes are compared with the caller's maximum and with what is left before they are used.
//!
//! *Format*: integers are little-endian and unpadded; `var_bytes` is a `u32` length, then the bytes; `uvar` is unsigned
//! LEB128 of at most ten bytes, shortest form.

use crate::error::{Error, Result};

/// Most bytes that one [`Reader::uvar`] takes.
pub const UVAR_BYTES_MAX: usize = 10;

/// A position in bytes of one object; every failure names that object.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    object: &'a str,
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`; `object` is named in errors.
    pub fn new(bytes: &'a [u8], object: &'a str) -> Self {
        Self { bytes, position: 0, object }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The error for this object at this position.
    pub fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(self.object, format!("{what} at byte {}", self.position))
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.remaining() {
            return Err(self.corrupt(&format!("{length} bytes wanted, {} left", self.remaining())));
        }
        let slice = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A `u16`.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// A `u32`.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A `u64`.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An `i64`, two's complement.
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A `u32` length of at most `max`, then that many bytes.
    pub fn var_bytes(&mut self, max: usize) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(self.corrupt(&format!("length {length} is over the limit {max}")));
        }
        self.bytes(length)
    }

    /// An unsigned LEB128 integer in its shortest form.
    pub fn uvar(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for index in 0..UVAR_BYTES_MAX {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if index == UVAR_BYTES_MAX - 1 && byte > 1 {
                return Err(self.corrupt("an integer is over 64 bits"));
            }
            value |= low << (7 * index);
            if byte & 0x80 == 0 {
                if index > 0 && byte == 0 {
                    return Err(self.corrupt("an integer is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("an integer is over 64 bits"))
    }

    /// Reads `length` bytes that must all be zero: the reserved fields.
    pub fn zeros(&mut self, length: usize) -> Result<()> {
        if self.bytes(length)?.iter().any(|&byte| byte != 0) {
            return Err(self.corrupt("reserved bytes are not zero"));
        }
        Ok(())
    }

    /// Ends the reading: bytes left over are damage.
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.corrupt(&format!("{left} bytes left over"))),
        }
    }
}

/// Bytes being put together; the mirror of [`Reader`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends an array as it is.
    pub fn array<const N: usize>(&mut self, array: &[u8; N]) {
        self.bytes(array);
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Appends a `u16`.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a `u32`.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a `u64`.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends an `i64`.
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a `u32` length and the bytes.
    ///
    /// # Panics
    /// If there are 4 GiB of them or more: every caller has a smaller bound.
    pub fn var_bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a field is bounded far below 4 GiB by its writer");
        self.u32(length);
        self.bytes(bytes);
    }

    /// Appends an unsigned LEB128 integer in its shortest form.
    pub fn uvar(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// Appends `length` zero bytes.
    pub fn zeros(&mut self, length: usize) {
        self.0.resize(self.0.len() + length, 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_field_reads_back_as_it_was_written() {
        let mut writer = Writer::with_capacity(64);
        writer.u8(1);
        writer.u16(0x0203);
        writer.u32(0x0405_0607);
        writer.u64(u64::MAX - 1);
        writer.i64(-2);
        writer.array(&[9; 5]);
        writer.var_bytes(b"abc");
        writer.uvar(300);
        writer.zeros(3);
        let mut reader = Reader::new(&writer.0, "x");
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.u16().unwrap(), 0x0203);
        assert_eq!(reader.u32().unwrap(), 0x0405_0607);
        assert_eq!(reader.u64().unwrap(), u64::MAX - 1);
        assert_eq!(reader.i64().unwrap(), -2);
        assert_eq!(reader.array::<5>().unwrap(), [9; 5]);
        assert_eq!(reader.var_bytes(3).unwrap(), b"abc");
        assert_eq!(reader.uvar().unwrap(), 300);
        reader.zeros(3).unwrap();
        reader.finish().unwrap();
        assert_eq!(&writer.0[..7], &[1, 3, 2, 7, 6, 5, 4], "little-endian");
    }

    #[test]
    fn variable_integers_have_exactly_one_encoding() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut writer = Writer::new();
            writer.uvar(value);
            assert!(writer.len() <= UVAR_BYTES_MAX);
            let mut reader = Reader::new(&writer.0, "x");
            assert_eq!(reader.uvar().unwrap(), value);
            reader.finish().unwrap();
        }
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0x80; 11], &[0x80], &[]] {
            assert!(Reader::new(bad, "x").uvar().is_err(), "{bad:?}");
        }
        let mut over = [0x80u8; 10];
        over[9] = 2;
        assert!(Reader::new(&over, "x").uvar().is_err(), "bit 64");
    }

    #[test]
    fn every_failure_is_damage_that_names_the_object() {
        let failures = [
            Reader::new(&[1], "packs/x").u16().unwrap_err(),
            Reader::new(&[255, 255, 255, 255, 0], "packs/x").var_bytes(usize::MAX).unwrap_err(),
            Reader::new(&[4, 0, 0, 0, 1, 2, 3, 4], "packs/x").var_bytes(3).unwrap_err(),
            Reader::new(&[0, 1], "packs/x").zeros(2).unwrap_err(),
            Reader::new(&[1], "packs/x").finish().unwrap_err(),
        ];
        for error in failures {
            assert!(matches!(&error, Error::Corrupt { object, .. } if object == "packs/x"), "{error}");
        }
    }

    #[test]
    fn a_failed_read_moves_nothing() {
        let mut reader = Reader::new(&[7, 8], "x");
        assert!(reader.u32().is_err());
        assert_eq!((reader.position(), reader.remaining()), (0, 2));
        assert_eq!(reader.u16().unwrap(), 0x0807);
    }
}
