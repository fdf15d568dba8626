//! The data directory's identity: which cluster its log and pointer belong to. Written once, before anything else.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFID"
//!      4    2  version (1)
//!      6    2  length of the file (44)
//!      8   16  cluster
//!     24   16  incarnation
//!     40    4  CRC-32 of bytes 0..40
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::{
    error::{Error, Result},
    format::{check_version, u16_at, u32_at},
    store::owner::Owner,
};

const MAGIC: &[u8; 4] = b"HFID";
const VERSION: u16 = 1;
const BYTES: usize = 44;

fn encode(owner: Owner) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..4].copy_from_slice(MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[6..8].copy_from_slice(&(BYTES as u16).to_le_bytes());
    out[8..24].copy_from_slice(&owner.cluster.to_le_bytes());
    out[24..40].copy_from_slice(&owner.incarnation.to_le_bytes());
    let crc = crc32fast::hash(&out[..40]);
    out[40..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Owner> {
    let damaged = || Error::Corrupt("not an identity file, or its checksum does not match".into());
    let Some(bytes) = bytes.first_chunk::<BYTES>().filter(|_| bytes.len() == BYTES) else { return Err(damaged()) };
    if &bytes[..4] != MAGIC || u32_at(bytes, 40) != Some(crc32fast::hash(&bytes[..40])) {
        return Err(damaged());
    }
    check_version("identity file", u16_at(bytes, 4).unwrap_or(0), VERSION)?;
    let id = |at: usize| bytes[at..].first_chunk::<16>().map(|id| u128::from_le_bytes(*id)).ok_or_else(damaged);
    Ok(Owner { cluster: id(8)?, incarnation: id(24)? })
}

/// The identity at `path`; made by `mint` and synced if there is none. Blocks.
pub fn read_or_make(path: &Path, mint: impl FnOnce() -> Owner) -> Result<Owner> {
    let at = |error: String| format!("{}: {error}", path.display());
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map_err(|error| Error::Corrupt(at(error.to_string()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let owner = mint();
            write(path, owner).map_err(|error| Error::Invalid(at(error.to_string())))?;
            Ok(owner)
        }
        Err(error) => Err(Error::Invalid(at(error.to_string()))),
    }
}

fn write(path: &Path, owner: Owner) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = File::create(&staged)?;
    file.write_all(&encode(owner))?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { cluster: 0x0102, incarnation: 0x0304 };

    #[test]
    fn golden_bytes() {
        let hex: String = encode(OWNER)[..24].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4846494401002c0002010000000000000000000000000000");
    }

    #[test]
    fn every_changed_byte_is_detected() {
        assert_eq!(decode(&encode(OWNER)), Ok(OWNER));
        for place in 0..BYTES {
            let mut bad = encode(OWNER);
            bad[place] ^= 1;
            assert!(decode(&bad).is_err(), "byte {place}");
        }
    }

    #[test]
    fn is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("IDENTITY");
        assert_eq!(read_or_make(&path, || OWNER), Ok(OWNER));
        assert_eq!(read_or_make(&path, || unreachable!()), Ok(OWNER));
    }
}
