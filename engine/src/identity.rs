//! The data directory's identity: which cluster its log and pointer belong to. Written once, before anything else.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFID"
//!      4    2  version (2)
//!      6    2  length of the file (68)
//!      8   16  cluster
//!     24   16  incarnation
//!     40    8  node number
//!     48   16  the directory's own id, drawn once
//!     64    4  CRC-32 of bytes 0..64
//! ```
//!
//! Version 1 ends after the incarnation: a single node, number 1, without an id.

use std::{fs, io, path::Path};

use crate::{
    cluster::join::ALONE,
    durable,
    error::{Error, Result},
    format::{check_version, u16_at, u32_at, u64_at},
    store::owner::Owner,
};

const MAGIC: &[u8; 4] = b"HFID";
const VERSION: u16 = 2;
const BYTES: usize = 68;
/// Bytes of version 1.
const BYTES_1: usize = 44;

/// Whose data directory this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster and its incarnation.
    pub owner: Owner,
    /// The node's number in it.
    pub node: u64,
    /// Tells this directory from every other; 0 in those of version 1.
    pub nonce: u128,
}

fn encode(identity: Identity) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..4].copy_from_slice(MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[6..8].copy_from_slice(&(BYTES as u16).to_le_bytes());
    out[8..24].copy_from_slice(&identity.owner.cluster.to_le_bytes());
    out[24..40].copy_from_slice(&identity.owner.incarnation.to_le_bytes());
    out[40..48].copy_from_slice(&identity.node.to_le_bytes());
    out[48..64].copy_from_slice(&identity.nonce.to_le_bytes());
    let crc = crc32fast::hash(&out[..64]);
    out[64..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Identity> {
    let damaged = || Error::Corrupt("not an identity file, or its checksum does not match".into());
    let body = bytes.len().checked_sub(4).filter(|_| bytes.len() >= BYTES_1).ok_or_else(damaged)?;
    if &bytes[..4] != MAGIC || u32_at(bytes, body) != Some(crc32fast::hash(&bytes[..body])) {
        return Err(damaged());
    }
    let version = u16_at(bytes, 4).unwrap_or(0);
    check_version("identity file", version, VERSION)?;
    if bytes.len() != if version == 1 { BYTES_1 } else { BYTES } {
        return Err(damaged());
    }
    let id = |at: usize| bytes[at..].first_chunk::<16>().map(|id| u128::from_le_bytes(*id)).ok_or_else(damaged);
    let owner = Owner { cluster: id(8)?, incarnation: id(24)? };
    if version == 1 {
        return Ok(Identity { owner, node: ALONE, nonce: 0 });
    }
    Ok(Identity { owner, node: u64_at(bytes, 40).ok_or_else(damaged)?, nonce: id(48)? })
}

/// Whether a log was opened here before. It is made after the identity, and a log that vanishes must not look like a new one.
pub fn log_was_used(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

/// From now on the log holds something; on the device when this returns. Blocks.
pub fn mark_log_used(path: &Path) -> Result<()> {
    let text = "The log beside this file has been in use. Without its files the database does not start.\n";
    durable::mark(path, text).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

/// The identity at `path`, if there is one. Blocks.
pub fn read(path: &Path) -> Result<Option<Identity>> {
    let at = |error: String| format!("{}: {error}", path.display());
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some).map_err(|error| Error::Corrupt(at(error.to_string()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Invalid(at(error.to_string()))),
    }
}

/// Makes `identity` that of the directory; on the device when this returns. Blocks.
pub fn make(path: &Path, identity: Identity) -> Result<Identity> {
    let made = durable::replace(path, &encode(identity));
    made.map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
    Ok(identity)
}

/// Takes the identity of a directory back, whose log was never used. Blocks.
pub fn forget(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { owner: Owner { cluster: 0x0102, incarnation: 0x0304 }, node: 3, nonce: 0x0506 };

    #[test]
    fn golden_bytes() {
        let hex: String = encode(IDENTITY).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex[..128],
            concat!(
                "4846494402004400",
                "02010000000000000000000000000000",
                "04030000000000000000000000000000",
                "0300000000000000",
                "06050000000000000000000000000000"
            )[..]
        );
    }

    #[test]
    fn every_changed_byte_is_detected() {
        assert_eq!(decode(&encode(IDENTITY)), Ok(IDENTITY));
        for place in 0..BYTES {
            let mut bad = encode(IDENTITY);
            bad[place] ^= 1;
            assert!(decode(&bad).is_err(), "byte {place}");
            assert!(decode(&encode(IDENTITY)[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn the_first_version_is_a_single_node() {
        let mut old = encode(IDENTITY)[..40].to_vec();
        old[4..8].copy_from_slice(&[1, 0, 44, 0]);
        let crc = crc32fast::hash(&old);
        old.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&old), Ok(Identity { node: 1, nonce: 0, ..IDENTITY }));
    }

    #[test]
    fn is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("IDENTITY");
        assert_eq!(read(&path), Ok(None));
        assert_eq!(make(&path, IDENTITY), Ok(IDENTITY));
        assert_eq!(read(&path), Ok(Some(IDENTITY)));
        forget(&path).unwrap();
        assert_eq!(read(&path), Ok(None));
    }
}
