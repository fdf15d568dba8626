//! On-disk formats: one file each, with its layout, encoder, decoder and golden bytes. Here: what they share.

pub mod archive;
pub mod batch;
pub mod hot;
pub mod manifest;
pub mod object;
pub mod page;
pub mod spill;
pub mod state;

use bytes::Bytes;

use crate::error::{Error, Result};

/// A format error without its place; the caller that knows the object and offset adds them.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::Corrupt(what.to_string())
}

/// Refuses a format written by a newer build.
pub(crate) fn check_version(what: &str, found: u16, newest: u16) -> Result<()> {
    if found == 0 || found > newest {
        return Err(corrupt(format!("{what} has format version {found}; this build reads up to {newest}")));
    }
    Ok(())
}

/// The newest level of formats that this build can read and write. The level in force is cluster state (rule 9): formats of
/// a later level are written only once an entry has raised it, which a leader proposes when every member knows it.
pub(crate) const FORMAT_LEVEL: u32 = 1;

/// Refuses what was written since a newer build raised the format level.
pub(crate) fn check_level(what: &str, level: u32) -> Result<()> {
    if level > FORMAT_LEVEL {
        return Err(corrupt(format!(
            "{what} is of format level {level}, and this release knows levels up to {FORMAT_LEVEL}: run the release that \
             raised it, or a later one"
        )));
    }
    Ok(())
}

/// Appends `value` in LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 number at `*at` and moves past it.
#[inline]
pub(crate) fn get_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The first eight bytes of `key`, zero-padded, as a number that orders like them.
#[inline]
pub(crate) fn head8(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => key.iter().fold((0, 56), |(head, shift), byte| (head | u64::from(*byte) << shift, shift.max(8) - 8)).0,
    }
}

/// The first four bytes of `key`, zero-padded, as a number that orders like them.
#[inline]
pub(crate) fn head4(key: &[u8]) -> u32 {
    match key.first_chunk::<4>() {
        Some(chunk) => u32::from_be_bytes(*chunk),
        None => (head8(key) >> 32) as u32,
    }
}

/// How many leading bytes two keys share.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// A bounded reader over one record's fields; running off the end is corruption, never a panic.
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
    what: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    fn short(&self) -> Error {
        corrupt(format!("{} ends early at byte {}", self.what, self.at))
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        get_varint(&self.bytes, &mut self.at).ok_or_else(|| self.short())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.varint()?.try_into().map_err(|_| corrupt(format!("{}: number over 32 bits at {}", self.what, self.at)))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.short())?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn u128(&mut self) -> Result<u128> {
        let end = self.at + 16;
        let chunk = self.bytes.get(self.at..end).and_then(<[u8]>::first_chunk).ok_or_else(|| self.short())?;
        let value = u128::from_le_bytes(*chunk);
        self.at = end;
        Ok(value)
    }

    /// A length-prefixed byte string, without copying.
    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        let len = usize::try_from(self.varint()?).map_err(|_| self.short())?;
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.short())?;
        let value = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(value)
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes.slice(self.at..)
    }

    /// A count of things that take at least `each` bytes, so that a corrupt count cannot allocate without bound.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.short())?;
        if count > (self.bytes.len() - self.at) / each.max(1) {
            return Err(corrupt(format!("{}: count {count} does not fit the record", self.what)));
        }
        Ok(count)
    }

    pub(crate) fn finish(self) -> Result<()> {
        if self.at != self.bytes.len() {
            return Err(corrupt(format!("{}: {} bytes too many", self.what, self.bytes.len() - self.at)));
        }
        Ok(())
    }
}

/// Appends a length-prefixed byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut at = 0;
            prop_assert_eq!(get_varint(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
        }

        #[test]
        fn heads_order_like_keys(a: Vec<u8>, b: Vec<u8>) {
            if head4(&a) != head4(&b) {
                prop_assert_eq!(head4(&a) < head4(&b), a < b);
            }
            if head8(&a) != head8(&b) {
                prop_assert_eq!(head8(&a) < head8(&b), a < b);
            }
        }
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        assert_eq!(get_varint(&[0xff; 11], &mut 0), None);
        assert_eq!(get_varint(&[0x80], &mut 0), None);
    }
}
