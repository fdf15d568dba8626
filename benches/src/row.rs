//! Owns the content of rows: made from the row's key and version, so that whoever reads one can tell whether it is right.

use bytes::Bytes;

use crate::dist::mix;

/// The least size of a value: its key and version.
pub const MIN_VALUE: usize = 16;

/// The value of a key's version: 16 bytes that name both, then filler that depends on both and does not compress.
pub fn value(key: u64, version: u64, size: usize) -> Bytes {
    let mut value = Vec::with_capacity(size.next_multiple_of(8));
    value.extend_from_slice(&key.to_be_bytes());
    value.extend_from_slice(&version.to_be_bytes());
    let mut state = mix(key) ^ version;
    while value.len() < size {
        state = mix(state.wrapping_add(0x9E37_79B9_7F4A_7C15));
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(size.max(MIN_VALUE));
    Bytes::from(value)
}

/// The version of a value that was read for `key`, or what is wrong with it. Every byte is compared.
pub fn check(key: u64, read: &[u8], size: usize) -> Result<u64, String> {
    let version = match (read.first_chunk::<8>(), read.get(8..).and_then(|rest| rest.first_chunk::<8>())) {
        (Some(of_key), Some(version)) if u64::from_be_bytes(*of_key) == key => u64::from_be_bytes(*version),
        (Some(of_key), Some(_)) => {
            return Err(format!("key {key} has the value of key {}", u64::from_be_bytes(*of_key)));
        }
        _ => return Err(format!("key {key} has a value of {} bytes", read.len())),
    };
    if read != value(key, version, size) {
        return Err(format!("key {key}, version {version}: {} bytes read differ from those written", read.len()));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_key_and_version() {
        for size in [16, 17, 100, 1000] {
            assert_eq!(value(5, 3, size).len(), size);
            assert_eq!(check(5, &value(5, 3, size), size), Ok(3));
        }
    }

    #[test]
    fn wrong_values_are_found() {
        let mut damaged = value(5, 3, 100).to_vec();
        damaged[99] ^= 1;
        assert!(check(5, &damaged, 100).is_err());
        assert!(check(5, &value(6, 3, 100), 100).unwrap_err().contains("key 6"));
        assert!(check(5, &value(5, 3, 99), 100).is_err());
        assert!(check(5, b"", 100).is_err());
    }
}
