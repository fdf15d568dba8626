//! FORMAT: catalog rows in the `catalog` keyspace.
//!
//! ```text
//! key   01, database name                          value  version byte (1), JSON of `StoredDatabase`
//! key   02, database name, 00, table name          value  version byte (1), JSON of `StoredTable`
//! key   03                                         value  version byte (1), JSON number: the next table id
//! ```
//!
//! Unknown JSON fields of the same version are ignored; a newer version byte is refused. Column types are numbers:
//! `TypeKind`, flags, precision, scale, length, MySQL collation id. A default is the hex of a one-column stored row
//! (`row.rs`) of the column's kind.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version this build writes, and the newest that it reads.
pub const VERSION: u8 = 1;

const DATABASE: u8 = 1;
const TABLE: u8 = 2;
const NEXT_ID: u8 = 3;

/// A database row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDatabase {
    pub collation: u16,
}

/// A table row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTable {
    pub id: u32,
    pub version: u64,
    pub columns: Vec<StoredColumn>,
    /// Ordinals of the primary key's parts; empty = hidden row id.
    pub primary: Vec<StoredPart>,
    pub indexes: Vec<StoredIndex>,
    pub next_index: u16,
    pub collation: u16,
    pub comment: String,
    pub created: i64,
    pub auto_start: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredColumn {
    pub name: String,
    pub kind: u8,
    pub unsigned: bool,
    pub zerofill: bool,
    pub precision: u8,
    pub scale: u8,
    pub length: u32,
    pub collation: u16,
    pub nullable: bool,
    pub default: StoredDefault,
    pub on_update_now: bool,
    pub auto_increment: bool,
    pub comment: String,
    pub invisible: bool,
    pub instant: StoredDefault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredDefault {
    None,
    Row(String),
    Now,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPart {
    pub column: u16,
    pub prefix: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIndex {
    pub id: u16,
    pub name: String,
    pub unique: bool,
    pub parts: Vec<StoredPart>,
    pub building: bool,
    pub comment: String,
    pub invisible: bool,
}

/// What a catalog key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogKey {
    Database(String),
    Table { database: String, name: String },
    NextId,
}

impl CatalogKey {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Database(name) => [&[DATABASE], name.as_bytes()].concat(),
            Self::Table { database, name } => [&[TABLE], database.as_bytes(), &[0], name.as_bytes()].concat(),
            Self::NextId => vec![NEXT_ID],
        }
    }

    /// `None`: not a key of this format.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (tag, rest) = key.split_first()?;
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).ok();
        match *tag {
            DATABASE => Some(Self::Database(text(rest)?)),
            TABLE => {
                let zero = rest.iter().position(|b| *b == 0)?;
                Some(Self::Table { database: text(&rest[..zero])?, name: text(&rest[zero + 1..])? })
            }
            NEXT_ID if rest.is_empty() => Some(Self::NextId),
            _ => None,
        }
    }
}

/// Version byte and JSON.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut out = vec![VERSION];
    serde_json::to_writer(&mut out, value).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Inverse of [`encode`]; the error says what is wrong, for the message that names the key.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|e| e.to_string()),
        Some((v, _)) if *v > VERSION => Err(format!("catalog row has version {v}, newer than this build's {VERSION}")),
        _ => Err("catalog row has no version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let stored = encode(&StoredDatabase { collation: 255 }).unwrap();
        assert_eq!(stored, b"\x01{\"collation\":255}");
        assert_eq!(decode::<StoredDatabase>(&stored).unwrap().collation, 255);
        let key = CatalogKey::Table { database: "d".into(), name: "t".into() };
        assert_eq!(key.encode(), b"\x02d\x00t");
        assert_eq!(CatalogKey::decode(b"\x02d\x00t"), Some(key));
    }

    #[test]
    fn newer_versions_are_refused_by_name() {
        let why = decode::<StoredDatabase>(b"\x02{}").unwrap_err();
        assert!(why.contains("version 2"), "{why}");
    }
}
