//! The local pointer to the current manifest, so that a restart finds it without the log entries before it.
//!
//! ```text
//! offset size  field (little endian)
//!      0    4  magic "HFCM"
//!      4    2  version (1)
//!      6    2  0
//!      8   24  manifest id
//!     32    4  CRC-32 of bytes 0..32
//! ```

use std::{fs, io, path::Path};

use crate::{
    durable,
    error::{Error, Result},
    format::{check_version, manifest::ManifestId, u16_at, u32_at},
};

const MAGIC: &[u8; 4] = b"HFCM";
const VERSION: u16 = 1;
const BYTES: usize = 36;

fn encode(id: ManifestId) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..4].copy_from_slice(MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[8..32].copy_from_slice(&id.to_bytes());
    let crc = crc32fast::hash(&out[..32]);
    out[32..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<ManifestId> {
    if bytes.len() != BYTES || &bytes[..4] != MAGIC || u32_at(bytes, 32) != Some(crc32fast::hash(&bytes[..32])) {
        return Err(Error::Corrupt("not a manifest pointer, or its checksum does not match".to_owned()));
    }
    check_version("manifest pointer", u16_at(bytes, 4).unwrap_or(0), VERSION)?;
    ManifestId::from_bytes(&bytes[8..32]).ok_or_else(|| Error::Corrupt("bad manifest id".to_owned()))
}

/// The pointer at `path`; `None` if there is none yet. Blocks.
pub fn read(path: &Path) -> Result<Option<ManifestId>> {
    let at = |why: String| Error::Corrupt(format!("{}: {why}", path.display()));
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some).map_err(|error| at(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(error.to_string())),
    }
}

/// Replaces the pointer; on the device, name included, when this returns. Blocks.
pub fn write(path: &Path, id: ManifestId) -> Result<()> {
    durable::replace(path, &encode(id)).map_err(|error| Error::Store(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ManifestId = ManifestId { term: 3, ulid: 0x0102 };

    #[test]
    fn golden_bytes() {
        let hex: String = encode(ID).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4846434d0100000003000000000000000201000000000000000000000000000016a9a771");
    }

    #[test]
    fn every_changed_byte_is_detected() {
        assert_eq!(decode(&encode(ID)), Ok(ID));
        for place in 0..BYTES {
            let mut bad = encode(ID);
            bad[place] ^= 1;
            assert!(decode(&bad).is_err(), "byte {place}");
            assert!(decode(&encode(ID)[..place]).is_err());
        }
    }

    #[test]
    fn replaces_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MANIFEST");
        assert_eq!(read(&path), Ok(None));
        write(&path, ManifestId::default()).unwrap();
        write(&path, ID).unwrap();
        assert_eq!(read(&path), Ok(Some(ID)));
        fs::write(&path, b"garbage").unwrap();
        assert!(matches!(read(&path), Err(Error::Corrupt(why)) if why.contains("MANIFEST")));
    }
}
